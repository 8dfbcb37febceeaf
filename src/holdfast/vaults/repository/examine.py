"""Reading a pack whole: its hash, its header against the index, each blob against its id."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from hashlib import sha256

from holdfast.errors import RepositoryDamaged

from .blobs import Located, unseal_blob
from .damage import DamagedError, damage_in
from .index import Place
from .inventory import Inventory, blob_counts
from .packs import Part, pack_name, read_header
from .repository import INDEX, Repository
from .runs import runs

THREADS = len(os.sched_getaffinity(0)) + 1  # one may wait for the store
_WHOLE = 24 << 20  # bytes of a pack that is read from afar with one call
_PIECE = 1 << 20  # bytes that are worked on at once, so that they stay in the processor's cache


class Examiner:
    """Examines packs, in any threads; each takes `_WHOLE` bytes, or one blob if that is larger."""

    def __init__(self, repository: Repository, inventory: Inventory) -> None:
        self._repository = repository
        self._sizes = inventory.found
        self._counts = blob_counts(repository.index)

    def examine(self, number: int) -> tuple[int, list[str]]:
        """Read the pack of this number in the index; returns it, and what is wrong with the pack.

        Raises:
            HoldfastError: the store cannot be read.

        """
        try:
            return number, list(self._reasons(number))
        except RepositoryDamaged as error:
            return number, [error.fields["reason"]]

    def _reasons(self, number: int) -> Iterator[str]:
        pack, size = self._repository.index.pack(number), self._sizes[number]
        part = _parts(self._repository, pack, size)
        digest = sha256()
        with damage_in(self._repository.where, pack_name(pack)):
            header = read_header(self._repository.key, size, part)
        end = 0
        for run in runs((Place(pack, blob) for blob in header), _PIECE):
            start, end = end, run[-1].blob.offset + run[-1].blob.length
            piece = memoryview(part(start, end - start))
            digest.update(piece)
            for place in run:
                blob, at = place.blob, place.blob.offset - start
                yield from self._blob(blob, piece[at : at + blob.length])
                if not self._is_listed(place):
                    yield f"the index does not list blob {blob.id.hex()} there"
        if len(header) != self._counts[number]:
            yield f"it holds {len(header)} blobs, and by the index {self._counts[number]}"
        digest.update(part(end, size - end))
        if digest.digest() != pack:
            yield "its bytes are not those it was named for"

    def _blob(self, blob: Located, stored: memoryview) -> Iterator[str]:
        try:
            unseal_blob(self._repository.key, blob, stored)
        except DamagedError as error:
            yield str(error)

    def _is_listed(self, place: Place) -> bool:
        with damage_in(self._repository.where, INDEX):
            return place in self._repository.index.places(place.blob.kind, place.blob.id)


def _parts(repository: Repository, pack: bytes, size: int) -> Part:
    """Return how parts of a pack are read: from afar all with one call, if its size is decent."""
    if size > _WHOLE or repository.store.path(pack_name(pack)) is not None:
        return partial(repository.part, pack)
    whole = memoryview(repository.part(pack, 0, size))
    return lambda start, length: whole[start : start + length]
