"""Work in a thread of its own beside the caller's: in order, bounded, ended by the first error."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

Work = Callable[[], None]


class Aside:
    """A thread that does what it is given, one thing after the other. Always `close` it.

    Every piece of work that is taken is called once: where nobody wants it any more, `over` is
    true by then, so that it can let go of what it holds.
    """

    def __init__(self, most: int) -> None:
        """Let ``most`` pieces of work wait; the thread begins with the first."""
        self._most = most
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._working = False
        self._ended = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def over(self) -> bool:
        """Whether what is given or done now is of no use: it was ended, or something failed."""
        return self._ended or self._error is not None

    def give(self, work: Work) -> None:
        """Have something done; waits for room. Raises what failed before: it was not taken then."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._most or self.over)
            self.check()
            self._waiting.append(work)
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="aside")
            self._thread.start()

    def finish(self) -> None:
        """Wait until all is done. Raises what failed."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._working))
            self.check()

    def close(self) -> None:
        """End the thread; what is under way is told by `over`, and waited for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def check(self) -> None:
        """Raise what failed, if anything did."""
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._error = self._error or error

    def _next(self) -> Work | None:
        with self._changed:
            self._working = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._ended)
            if not self._waiting:
                return None
            self._working = True
            return self._waiting.popleft()
