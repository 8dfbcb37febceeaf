"""One snapshot of a collection out of those of all nodes of a cluster, while they are read.

Each node's snapshot has the folders of its own shards, and Qdrant wants them all in one: a server
of its own refuses to recover a part, and a node of a cluster leaves shards that it has and the
snapshot has not without data. So the entries of the archives are strung together: every shard from
one node, and the collection's own documents from the first.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from holdfast.model.artifact import Chunk, Chunks, Stream

from ._qdrant_reading import Open
from ._qdrant_tar import (
    BLOCK,
    FURTHER_RANGES,
    IS_EXTENDED,
    LONG_NAME,
    SPARSE,
    NotATarError,
    demand_whole,
    name_of,
    number,
    padded,
    text,
)

SHARDS = "shards"  # the label of a snapshot: the numbers of the shards that are whole in it


def merged(snapshots: Sequence[Stream]) -> Open:
    """Return what opens one snapshot made of those of several nodes; one alone stays as it is."""
    if len(snapshots) == 1:
        return snapshots[0].open
    owners = _owners(snapshots)

    @contextmanager
    def opened() -> Iterator[Chunks]:
        with closing(_strung(snapshots, owners)) as chunks:
            yield chunks

    return opened


def _owners(snapshots: Sequence[Stream]) -> Mapping[str, int]:
    """Return which snapshot each shard is taken from."""
    owners: dict[str, int] = {}
    for place, snapshot in enumerate(snapshots):
        for shard in filter(None, snapshot.labels.get(SHARDS, "").split(",")):
            owners.setdefault(shard, place)
    return owners


def _strung(snapshots: Sequence[Stream], owners: Mapping[str, int]) -> Generator[Chunk, None, None]:
    for place, snapshot in enumerate(snapshots):

        def is_kept(name: str, place: int = place) -> bool:
            first = name.removeprefix("./").partition("/")[0]
            return owners.get(first, 0) == place

        with snapshot.open() as chunks:
            yield from _entries(chunks, is_kept)
    yield bytes(2 * BLOCK)


def _entries(chunks: Chunks, is_kept: Callable[[str], bool]) -> Iterator[Chunk]:
    """Give the entries of an archive that are kept, as they are, without its end."""
    source = _Source(chunks)
    while any(header := source.take(BLOCK)):
        demand_whole(header)
        entry, name = header, name_of(header)
        if header[156:157] == LONG_NAME:
            length = number(header[124:136])
            long_name = source.take(padded(length))
            header = source.take(BLOCK)
            entry, name = entry + long_name + header, text(long_name[:length])
        more = header[156:157] == SPARSE and header[IS_EXTENDED]
        while more:
            block = source.take(BLOCK)
            entry += block
            more = block[FURTHER_RANGES * 24]
        content = source.pieces(padded(number(header[124:136])))
        if is_kept(name):
            yield entry
            yield from content
        else:
            for _passed_over in content:
                pass
    for _rest in source.chunks:
        pass  # reading to the end is what shows whether all bytes are as they should be


class _Source:
    """Bytes taken from chunks."""

    def __init__(self, chunks: Chunks) -> None:
        self.chunks = chunks
        self._left = memoryview(b"")

    def take(self, count: int) -> bytes:
        return b"".join(self.pieces(count))

    def pieces(self, count: int) -> Iterator[Chunk]:
        while count:
            if not self._left:
                chunk = next(self.chunks, None)
                if chunk is None:
                    raise NotATarError("it ends in the middle")
                self._left = memoryview(chunk)
                continue
            piece = self._left[:count]
            self._left = self._left[len(piece) :]
            count -= len(piece)
            yield piece
