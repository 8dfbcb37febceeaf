"""Work that is done ahead by several threads, while its results are taken one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")
SMALLEST = 1 << 14  # bytes that a piece of work is counted at least


@dataclass(frozen=True, slots=True)
class Work(Generic[Result]):
    """One thing to do, and how many bytes its result needs until it was taken."""

    do: Callable[[], Result]
    size: int


def ahead(
    threads: ThreadPoolExecutor, works: Iterable[Work[Result]], room: int
) -> Generator[Future[Result], None, None]:
    """Give what was done, in the order of ``works``, which are begun as long as there is room.

    Leaving early cancels what has not begun.
    """
    waiting: deque[tuple[Future[Result], int]] = deque()
    held = 0
    coming = iter(works)
    more = True
    try:
        while True:
            while more and (held < room or not waiting):
                work = next(coming, None)
                if work is None:
                    more = False
                    break
                size = max(work.size, SMALLEST)
                waiting.append((threads.submit(work.do), size))
                held += size
            if not waiting:
                return
            future, size = waiting.popleft()
            yield future
            held -= size
    finally:
        for future, _size in waiting:
            future.cancel()
