"""Lines of work between threads: bounded by weight, and closed by the first error.

Several lines make a pipeline by sharing one `Outcome`. Whoever waits at any of them, to put or to
take, is woken when something fails anywhere: that is why nothing hangs.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Outcome:
    """The first error of a pipeline, if there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._conditions: list[threading.Condition] = []
        self._error: BaseException | None = None

    def condition(self) -> threading.Condition:
        """Return something to wait for that an error ends too. All share one lock."""
        condition = threading.Condition(self._lock)
        self._conditions.append(condition)
        return condition

    @property
    def failed(self) -> bool:
        """Whether something failed: what is still in the lines is not worth doing."""
        return self._error is not None

    def fail(self, error: BaseException) -> None:
        """Stop everything because of this, unless something else failed before."""
        with self._lock:
            self._error = self._error or error
            for condition in self._conditions:
                condition.notify_all()

    def check(self) -> None:
        """Raise the first error, in whatever thread."""
        if self._error is not None:
            raise self._error


class Line(Generic[Item]):
    """Items on their way from some threads to others, in order.

    The weight of an item counts from `put` to `done`, so that what is being worked on is bounded
    too. One item may be heavier than all that is allowed: it then travels alone.
    """

    def __init__(self, outcome: Outcome, most: int) -> None:
        self._outcome = outcome
        self._comes = outcome.condition()
        self._goes = outcome.condition()
        self._most = most
        self._weight = 0
        self._items: deque[Item] = deque()
        self._ended = False

    def put(self, item: Item, weight: int) -> None:
        """Add an item; waits for room. Raises what failed in the pipeline."""
        with self._goes:
            while self._weight and self._weight + weight > self._most and not self._outcome.failed:
                self._goes.wait()
            self._outcome.check()
            self._weight += weight
            self._items.append(item)
            self._comes.notify()

    def take(self) -> Item | None:
        """Return the next item; waits for one. None: there will be no more, or something failed."""
        with self._comes:
            while not self._items and not self._ended and not self._outcome.failed:
                self._comes.wait()
            if self._outcome.failed or not self._items:
                return None
            return self._items.popleft()

    def done(self, weight: int) -> None:
        """Give room for others: an item that was taken needs its memory no more."""
        with self._goes:
            self._weight -= weight
            self._goes.notify_all()

    def end(self) -> None:
        """Say that nothing more will be put."""
        with self._comes:
            self._ended = True
            self._comes.notify_all()
