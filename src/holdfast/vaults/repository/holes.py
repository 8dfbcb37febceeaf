"""Holes of sparse files, in a format that has none.

restic stores a hole as the zeros that reading it gives. So do we, and mark it: a hole begins with a
blob of a single zero byte, and goes on with blobs of zeros only. No other content looks like that,
because data is cut into long blobs and only the last of a file may be short. We restore the holes
that there were, and one of whole blobs of zeros that were written right behind a hole. restic
restores zeros, or with ``--sparse`` holes, if it meets the blob of zeros that its own chunker
makes: so a hole that is long enough has that one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from holdfast.model.artifact import CHUNK, Chunk, Chunks, Entry

from .blobs import blob_id

MARK = blob_id(b"\0")
Extents = tuple[tuple[int, int], ...]

_RESTICS = 512 << 10  # zeros in restic's own blob of them
_BLOCK = 8 << 20  # zeros that are stored at once; the ids of one block serve for all
_ZEROS = bytes(CHUNK)


class HoleWriter:
    """Stores sparse files by the means for ordinary ones."""

    def __init__(self, store: Callable[[Chunks], tuple[list[bytes], int]]) -> None:
        """Store streams with ``store``, which returns the ids of their blobs, and their size."""
        self._store = store
        self._block: list[bytes] = []

    def file(self, entry: Entry, chunks: Chunks) -> tuple[list[bytes], int]:
        """Store a sparse file; returns the ids of its blobs, and its size with the holes."""
        ids: list[bytes] = []
        position = 0
        data = _Pieces(chunks)
        for offset, length in (*(entry.extents or ()), (entry.size, 0)):
            ids += self._hole(offset - position)
            if length:
                more, size = self._store(data.take(length))
                if size != length:
                    return ids, position + size  # too short: whoever compares the sizes says so
                ids += more
            position = offset + length
        return ids, position + data.left()

    def _hole(self, length: int) -> Sequence[bytes]:
        if length <= 0:
            return ()
        ids = self._zeros(1)
        first = min(length - 1, _RESTICS)
        blocks, rest = divmod(length - 1 - first, _BLOCK)
        if blocks and not self._block:
            self._block = self._zeros(_BLOCK)
        return ids + self._zeros(first) + self._block * blocks + self._zeros(rest)

    def _zeros(self, length: int) -> list[bytes]:
        return self._store(_ZEROS[: length - start] for start in range(0, length, CHUNK))[0]


def extents_of(content: Sequence[tuple[bytes, int]]) -> Extents | None:
    """Return where a file has data, from the ids and sizes of its blobs; None if it has no hole."""
    if all(id_ != MARK for id_, _size in content[:-1]):
        return None
    found: list[tuple[int, int]] = []
    start = position = 0
    for hole, size in _runs(content):
        if hole:
            if position > start:
                found.append((start, position - start))
            start = position + size
        position += size
    if position > start:
        found.append((start, position - start))
    return None if found == [(0, position)] else tuple(found)


def _runs(content: Sequence[tuple[bytes, int]]) -> Iterator[tuple[bool, int]]:
    """Give each blob's size, and whether it belongs to a hole."""
    hole = False
    for number, (id_, size) in enumerate(content):
        if hole:
            hole = _is_zeros(id_, size)
        elif id_ == MARK and number + 1 < len(content):
            hole = _is_zeros(*content[number + 1])
        yield hole, size


def _is_zeros(id_: bytes, size: int) -> bool:
    return size <= _BLOCK and id_ == _id_of_zeros(size)


@lru_cache(maxsize=1024)
def _id_of_zeros(size: int) -> bytes:
    return blob_id(bytes(size))


class _Pieces:
    """Chunks, cut where extents end."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._rest: Chunk = b""

    def take(self, size: int) -> Chunks:
        """Give the next ``size`` bytes, or as many as there are."""
        while size:
            chunk = self._rest or next(self._chunks, b"")
            if not chunk:
                return
            self._rest = chunk[size:]
            yield chunk[:size]
            size -= len(chunk[:size])

    def left(self) -> int:
        """Return how many bytes there are after all that was taken."""
        return len(self._rest) + sum(len(chunk) for chunk in self._chunks)
