"""Giving one artifact to several drafts from a single read.

The source is read in one thread; each draft reads a copy of the artifact whose chunks come through
a short queue. The slowest draft sets the pace, and memory stays bounded. A draft that fails is left
behind and the others go on.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ..model.artifact import Artifact, Chunk, Chunks, Entry, Stream, TreeItems
from ._watch import watched

DEPTH = 8  # chunks waiting for each draft: 8 MiB at most
Result = TypeVar("Result")
Message = Chunk | Entry | BaseException | None  # None: the end


class _Outlet:
    """One draft's end of the read."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Message] = queue.Queue(DEPTH)
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def push(self, message: Message) -> None:
        while not self.closed:
            try:
                self._waiting.put(message, timeout=0.1)
            except queue.Full:
                continue
            return

    def pull(self) -> Message:
        message = self._waiting.get()
        if isinstance(message, BaseException):
            raise message
        return message

    def close(self) -> None:
        self._closed.set()

    @contextmanager
    def stream(self) -> Iterator[Chunks]:
        yield self._chunks()

    def _chunks(self) -> Chunks:
        while isinstance(message := self.pull(), bytes | memoryview):
            yield message

    @contextmanager
    def tree(self) -> Iterator[TreeItems]:
        yield self._items()

    def _items(self) -> TreeItems:
        waiting: list[Message] = [self.pull()]

        def content() -> Chunks:
            while isinstance(message := self.pull(), bytes | memoryview):
                yield message
            waiting.append(message)

        while isinstance(entry := waiting.pop(), Entry):
            chunks = content()
            yield entry, chunks
            for _passed_over in chunks:
                pass


@dataclass(frozen=True, slots=True)
class Given(Generic[Result]):
    """What each taker made of an artifact, in their order; and what the source raised, if it did.

    An error of the source reaches every taker, so theirs tell nothing of them then.
    """

    results: Sequence[Future[Result]]
    failure: Exception | None


def give(artifact: Artifact, takers: Sequence[Callable[[Artifact], Result]]) -> Given[Result]:
    """Let each taker read the artifact. With one taker nothing but the watch stands in between."""
    failures: list[Exception] = []
    artifact = watched(artifact, failures)
    if len(takers) == 1:
        futures = [_settled(takers[0], artifact)]
    else:
        outlets = [_Outlet() for _taker in takers]
        with ThreadPoolExecutor(len(takers), "tee") as threads:
            futures = [
                threads.submit(_take, taker, _copy(artifact, outlet), outlet)
                for taker, outlet in zip(takers, outlets, strict=True)
            ]
            _pump(artifact, outlets)
    return Given(futures, failures[0] if failures else None)


def _settled(taker: Callable[[Artifact], Result], artifact: Artifact) -> Future[Result]:
    future: Future[Result] = Future()
    try:
        future.set_result(taker(artifact))
    except Exception as error:  # noqa: BLE001 - handed on to whoever asks for the result
        future.set_exception(error)
    return future


def _take(taker: Callable[[Artifact], Result], artifact: Artifact, outlet: _Outlet) -> Result:
    try:
        return taker(artifact)
    finally:
        outlet.close()


def _copy(artifact: Artifact, outlet: _Outlet) -> Artifact:
    if isinstance(artifact, Stream):
        return replace(artifact, open=outlet.stream, path=None, disposable=False)
    # In order for all: one may want what another knows already.
    return replace(artifact, open=outlet.tree, sparing=None, apart=0)


def _pump(artifact: Artifact, outlets: Sequence[_Outlet]) -> None:
    try:
        for message in _messages(artifact):
            if all(outlet.closed for outlet in outlets):
                return
            _push_all(outlets, message)
        _push_all(outlets, None)
    except BaseException as error:
        _push_all(outlets, error)
        if not isinstance(error, Exception):
            raise


def _messages(artifact: Artifact) -> Iterator[Message]:
    if isinstance(artifact, Stream):
        with artifact.open() as chunks:
            yield from chunks
        return
    with artifact.open() as items:
        for entry, chunks in items:
            yield entry
            yield from chunks


def _push_all(outlets: Sequence[_Outlet], message: Message) -> None:
    for outlet in outlets:
        outlet.push(message)
