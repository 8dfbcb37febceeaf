"""Work in threads of their own beside the caller's: bounded, and ended by the first error."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

Work = Callable[[], None]


@dataclass(eq=False, slots=True)
class _Job:
    """Pieces of work that threads do at once, and what comes after the last of them."""

    pieces: Iterator[Work]
    end: Work
    given: bool = False  # whether there are no more pieces to be begun
    under_way: int = 0

    @property
    def ready(self) -> bool:
        """Whether the end may come."""
        return self.given and not self.under_way


class Aside:
    """Threads that do what they are given, the pieces of one job before those of the next.

    Always `close` it. Of every job that is taken the end is called once, when no piece of it is
    under way any more: where nobody wants it, `over` is true by then, so that it only lets go of
    what it holds. With one thread everything is done in order.
    """

    def __init__(self, most: int, threads: int = 1) -> None:
        """Let ``most`` jobs wait; the threads begin with the first."""
        self._most = most
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()  # whose pieces are not all given out
        self._working = 0  # threads
        self._ended = False
        self._error: BaseException | None = None
        self._count = threads
        self._threads: list[threading.Thread] = []

    @property
    def over(self) -> bool:
        """Whether what is given or done now is of no use: it was ended, or something failed."""
        return self._ended or self._error is not None

    @property
    def busy(self) -> bool:
        """Whether something is not done yet."""
        return bool(self._waiting or self._working)

    def give(self, work: Work) -> None:
        """Have something done; waits for room. Raises what failed before: it was not taken then."""
        self.share(iter(()), work)

    def share(self, pieces: Iterator[Work], end: Work) -> None:
        """Have pieces done by all threads at once, and then ``end``; waits and raises as `give`.

        The pieces are asked for one at a time, in any of the threads.
        """
        self._start()
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < self._most or self.over)
            self.check()
            self._waiting.append(_Job(pieces, end))
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until all is done. Raises what failed."""
        with self._changed:
            self._changed.wait_for(lambda: not self.busy)
            self.check()

    def close(self) -> None:
        """End the threads; what is under way is told by `over`, and waited for."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise what failed, if anything did."""
        if self._error is not None:
            raise self._error

    def _start(self) -> None:
        while len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name="aside")
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._failed(error)
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _failed(self, error: BaseException) -> None:
        self._error = self._error or error

    def _next(self) -> Work | None:
        with self._changed:
            while not (work := self._begun()):
                if self._ended and not self._waiting:
                    return None
                self._changed.wait()
            self._working += 1
            return work

    def _begun(self) -> Work | None:
        """Return what may be done now, if there is anything."""
        for job in tuple(self._waiting):
            if not job.given and (piece := self._piece(job)):
                job.under_way += 1
                return partial(self._do, job, piece)
            job.given = True
            if job.ready:
                self._waiting.remove(job)
                self._changed.notify_all()
                return job.end
        return None

    def _piece(self, job: _Job) -> Work | None:
        if self.over:
            return None
        try:
            return next(job.pieces, None)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._failed(error)
            return None

    def _do(self, job: _Job, piece: Work) -> None:
        try:
            piece()
        finally:
            with self._changed:
                job.under_way -= 1
