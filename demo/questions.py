"""Twenty questions that are asked again and again: the answers must not change."""

from __future__ import annotations

QUESTIONS = (
    "Is there any warranty for this program?",
    "May I distribute modified copies of the source code?",
    "Who is liable for damages arising from the use of the software?",
    "Which trademark rights does the license grant?",
    "What happens to my patent license when I start litigation?",
    "How do I install this package with pip?",
    "Which version of Python is required?",
    "Where is the documentation published?",
    "Where should bugs and issues be reported?",
    "How can I contribute to the project?",
    "How are the tests run?",
    "Does it support asynchronous clients and servers?",
    "How are JSON documents parsed and serialized?",
    "How do I validate data with type annotations?",
    "How is a progress bar shown in the terminal?",
    "How are dates and time zones handled?",
    "Does it run on Windows, macOS and Linux?",
    "How do I make an HTTP request with a timeout?",
    "What is an aggregate of works on a storage medium?",
    "Must the copyright notice be kept in all copies?",
)
