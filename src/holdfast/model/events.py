"""What a run tells while it is under way. Faces turn events into text, bars or JSON lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step of a run began, for example ``freeze`` of component ``projects``."""

    step: str
    subject: str = ""
    total: int = 0  # bytes expected; 0: not known


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` more bytes of a step have been dealt with."""

    step: str
    subject: str
    done: int


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step of a run ended; ``error`` is empty if it went well."""

    step: str
    subject: str = ""
    seconds: float = 0.0
    error: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Warned:
    """Something a person should know that did not stop the run."""

    text: str
    subject: str = ""


Event = StepStarted | Progress | StepEnded | Warned
