"""Faults in content: functions from chunks to chunks, and artifacts that go through one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..model.artifact import Artifact, Chunks, Stream, Tree, TreeItems

Through = Callable[[Chunks], Chunks]


def corrupted(at: int) -> Through:
    """Flip one bit of the byte at an offset."""

    def through(chunks: Chunks) -> Chunks:
        position = 0
        for chunk in chunks:
            if position <= at < position + len(chunk):
                data = bytearray(chunk)
                data[at - position] ^= 1
                yield bytes(data)
            else:
                yield chunk
            position += len(chunk)

    return through


def truncated(size: int) -> Through:
    """End after so many bytes, as if that were all."""

    def through(chunks: Chunks) -> Chunks:
        left = size
        for chunk in chunks:
            if len(chunk) >= left:
                yield chunk[:left]
                return
            left -= len(chunk)
            yield chunk

    return through


def broken(size: int, error: Callable[[], BaseException]) -> Through:
    """Raise after so many bytes."""

    def through(chunks: Chunks) -> Chunks:
        yield from truncated(size)(chunks)
        raise error()

    return through


def slowed(seconds: float) -> Through:
    """Wait before each chunk."""

    def through(chunks: Chunks) -> Chunks:
        for chunk in chunks:
            time.sleep(seconds)
            yield chunk

    return through


def through_artifact(artifact: Artifact, through: Through) -> Artifact:
    """Return an artifact whose content goes through a fault; of a tree, that of every entry."""
    if isinstance(artifact, Stream):
        return _stream(artifact, through)
    return _tree(artifact, through)


def _stream(stream: Stream, through: Through) -> Stream:
    @contextmanager
    def opened() -> Iterator[Chunks]:
        with stream.open() as chunks:
            yield through(chunks)

    return replace(stream, open=opened, path=None, disposable=False)


def _tree(tree: Tree, through: Through) -> Tree:
    @contextmanager
    def opened() -> Iterator[TreeItems]:
        with tree.open() as items:
            yield ((entry, through(chunks)) for entry, chunks in items)

    return replace(tree, open=opened)
