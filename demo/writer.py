"""The application at work: `python -m demo.writer PLACES LOG --base N`.

Adds ``N`` documents as fast as it can, says ``ready``, and then goes on adding documents and asking
questions at a person's pace until it is told to end. Everything it has committed is written to the
log, which lies outside the application and is never backed up: what a backup holds is later judged
by it.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

from .app import Library, Places, write_settings
from .corpus import Text, gather, mixed
from .questions import QUESTIONS

MOST_TEXTS = 400
PACE = 0.02  # seconds between two writes
QUESTION_EVERY = 5  # writes


def main() -> None:
    """Read the command line and write until SIGTERM comes."""
    parser = argparse.ArgumentParser(prog="python -m demo.writer")
    parser.add_argument("places", type=Places.read)
    parser.add_argument("log", type=Path)
    parser.add_argument("--base", type=int, required=True)
    options = parser.parse_args()

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    write_settings(Path(options.places.settings))
    with Library(options.places) as library, options.log.open("w", encoding="utf-8") as log:
        texts = gather(MOST_TEXTS)
        for number in range(1, options.base + 1):
            _add(library, log, number, texts)
            print(number, flush=True)
        print("ready", flush=True)
        _go_on(library, log, texts, options.base, stop)


def _go_on(
    library: Library, log: TextIO, texts: list[Text], number: int, stop: threading.Event
) -> None:
    asked = 0
    while not stop.wait(PACE):
        number += 1
        _add(library, log, number, texts)
        if number % QUESTION_EVERY == 0:
            question = QUESTIONS[asked % len(QUESTIONS)]
            asked += 1
            _logged(log, "question", asked, partial(_ask, library, question))


def _ask(library: Library, question: str) -> int:
    library.ask(question)
    return 0


def _add(library: Library, log: TextIO, number: int, texts: list[Text]) -> None:
    round_, index = divmod(number - 1, len(texts))
    text = mixed(texts[index], number) if round_ else texts[index]
    _logged(log, "document", number, lambda: library.add(number, text))


def _logged(log: TextIO, kind: str, number: int, write: Callable[[], int]) -> None:
    """Write, and log when that began, when it was committed, and how many vectors it added."""
    begun = time.time()
    vectors = write()
    line = {
        "kind": kind,
        "number": number,
        "begun": begun,
        "committed": time.time(),
        "vectors": vectors,
    }
    print(json.dumps(line), file=log, flush=True)


if __name__ == "__main__":
    main()
