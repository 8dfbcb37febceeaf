"""Streams in pieces of other sizes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from holdfast.model.artifact import Chunk


def gathered(pieces: Iterable[Chunk], least: int) -> Iterator[Chunk]:
    """Give a stream in pieces of ``least`` bytes or more, but for the last: small ones joined."""
    small: list[Chunk] = []
    size = 0
    for piece in pieces:
        if not small and len(piece) >= least:
            yield piece
            continue
        small.append(piece)
        size += len(piece)
        if size >= least:
            yield b"".join(small)
            small, size = [], 0
    if small:
        yield b"".join(small) if len(small) > 1 else small[0]
