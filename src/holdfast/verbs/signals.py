"""Keeping Ctrl-C out of the few steps that must not be left half-way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def uninterrupted() -> Iterator[list[signal.Signals]]:
    """Hold back signals that end the program until the block is left, then let them act.

    Gives the list of those that arrived; what is taken out of it does not act. Where the block is
    left by an error they do not act either: it ends what they would have ended, and says more.
    Outside the main thread nothing is done: Python delivers signals to the main thread only.
    """
    arrived: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return

    def remember(number: int, _frame: FrameType | None) -> None:
        arrived.append(signal.Signals(number))

    before: dict[signal.Signals, Any] = {}
    try:
        # Within, because one that came a moment ago may act here, when the first are held already.
        for number in DEFERRED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, remember)
        yield arrived
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python, which cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    for late in arrived:
        signal.raise_signal(late)
