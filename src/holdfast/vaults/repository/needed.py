"""What snapshots need: every blob that can be reached from them, each tree read once.

What is needed is a byte beside each record of the index: ten million blobs take ten megabytes.
Trees wait to be read as ids; no more of them are held than the folders that one batch names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from holdfast.errors import HoldfastError, RepositoryDamaged
from holdfast.model.artifact import Chunk

from . import nodes
from .ahead import in_order
from .blobs import ID_SIZE, Kind
from .damage import DamagedError, damage_in
from .index import Places
from .read import BATCH, MOST_IN_BATCH, read_blobs
from .repository import Repository
from .runs import THREADS

NEEDED = 1


@dataclass(frozen=True, slots=True)
class Lack:
    """A blob that is needed and cannot be had."""

    kind: Kind
    id: bytes
    reason: str

    def __str__(self) -> str:
        """Name it, and say why."""
        return f"{self.kind} blob {self.id.hex()}: {self.reason}"


class Needed:
    """What the snapshots that were looked at need.

    The index must be loaded, and nobody may add to it. Blobs in the packs ``wrong`` count as gone.
    """

    def __init__(self, repository: Repository, wrong: Collection[bytes] = ()) -> None:
        self._repository = repository
        self.wrong = wrong
        self.marks = {kind: repository.index.marks(kind) for kind in Kind}
        self._unlisted: set[tuple[Kind, bytes]] = set()
        self._doubles = {kind: bytearray() for kind in Kind}  # ids one after the other

    def add(self, tree: bytes) -> Iterator[Lack]:
        """Mark all that a snapshot needs; gives what is lacking, each blob for the first that does.

        The snapshot is marked when the last lack was taken.
        """
        waiting: list[Places] = []
        yield from self._tree(tree, waiting)
        while waiting:
            for found in in_order(THREADS, self._read, _batches(waiting)):
                for id_, document in found.items():
                    yield from self._below(id_, document, waiting)

    def doubles(self) -> Iterator[tuple[Kind, bytes]]:
        """Give what is needed and lies in several places."""
        for kind, ids in self._doubles.items():
            for at in range(0, len(ids), ID_SIZE):
                yield kind, bytes(ids[at : at + ID_SIZE])

    def _read(self, batch: list[Places]) -> dict[bytes, Chunk | HoldfastError]:
        for pack in {places[0].pack for places in batch}:
            self._repository.bring_near(pack)
        return read_blobs(self._repository, batch)

    def _below(
        self, id_: bytes, document: Chunk | HoldfastError, waiting: list[Places]
    ) -> Iterator[Lack]:
        """Mark what one tree needs."""
        if isinstance(document, RepositoryDamaged):
            yield Lack(Kind.TREE, id_, document.fields["reason"])
            return
        if isinstance(document, HoldfastError):
            raise document
        try:
            for node in nodes.decode_tree(bytes(document)):
                if node.subtree is not None:
                    yield from self._tree(node.subtree, waiting)
                for blob in node.content:
                    if reason := self._mark(Kind.DATA, blob):
                        yield Lack(Kind.DATA, blob, reason)
        except DamagedError as error:
            yield Lack(Kind.TREE, id_, str(error))

    def _tree(self, id_: bytes, waiting: list[Places]) -> Iterator[Lack]:
        reason = self._mark(Kind.TREE, id_)
        if reason:
            yield Lack(Kind.TREE, id_, reason)
        elif reason is not None:
            with damage_in(self._repository.where, "index"):
                places = list(self._repository.index.places(Kind.TREE, id_))
            waiting.append([place for place in places if place.pack not in self.wrong])

    def _mark(self, kind: Kind, id_: bytes) -> str | None:
        """Mark a blob; returns why it is lost, nothing if it is there, None if it was marked."""
        marks = self.marks[kind]
        places = marks.places(id_)
        if not places:
            known = (kind, id_) in self._unlisted
            self._unlisted.add((kind, id_))
            return None if known else "no index file lists it"
        if marks.values[places[0]]:
            return None
        for at in places:
            marks.values[at] = NEEDED
        if len(places) > 1:
            self._doubles[kind] += id_
        return self._gone(kind, id_) if self.wrong else ""

    def _gone(self, kind: Kind, id_: bytes) -> str:
        """Say why a blob that is listed is lost all the same; nothing where it is not."""
        with damage_in(self._repository.where, "index"):
            packs = [place.pack for place in self._repository.index.places(kind, id_)]
        if any(pack not in self.wrong for pack in packs):
            return ""
        return f"pack {packs[0].hex()} is missing, or not as the index says"


def _batches(waiting: list[Places]) -> Iterator[list[Places]]:
    """Take what waits, the newest first, in pieces of a decent size."""
    while waiting:
        batch: list[Places] = []
        size = 0
        while waiting and size < BATCH and len(batch) < MOST_IN_BATCH:
            batch.append(waiting.pop())
            size += batch[-1][0].blob.size
        yield batch
