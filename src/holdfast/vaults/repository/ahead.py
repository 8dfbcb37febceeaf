"""Work ahead: many pieces at once, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    threads: int, work: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Give what ``work`` makes of each item, in their order; never more than ``threads`` ahead.

    Items are taken in the caller's thread. The first error is raised in its place, and ends it.
    """
    with ThreadPoolExecutor(threads, "ahead") as pool:
        coming: deque[Future[Result]] = deque()
        try:
            for item in items:
                coming.append(pool.submit(work, item))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
