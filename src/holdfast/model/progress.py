"""Counting bytes on their way, and telling of some at a time."""

from __future__ import annotations

from collections.abc import Callable

from .artifact import CHUNK, Chunks

MOST_UNTOLD = 64  # files and pieces of files whose bytes are told together


class Telling:
    """Tells ``progress`` of bytes, a megabyte or so at once. For one thread.

    To tell of each of ten thousand small files would take as long as looking at them.
    """

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.size = 0  # bytes so far
        self._progress = progress
        self._told = 0
        self._heard = 0

    def chunks(self, chunks: Chunks) -> Chunks:
        """Give the chunks, each counted when it is taken."""
        for chunk in chunks:
            self.add(len(chunk))
            yield chunk

    def add(self, size: int) -> None:
        """Count bytes."""
        self.size += size
        self._heard += 1
        if self.size - self._told >= CHUNK or self._heard >= MOST_UNTOLD:
            self.tell()

    def tell(self) -> None:
        """Tell of what was not told yet: in the end, at the latest."""
        told, self._told, self._heard = self._told, self.size, 0
        self._progress(self.size - told)
