"""The blobs that manifests are made of: small, many, and each in another pack.

They are read several at once, those that lie close together with one call, and kept on this machine
where the repository is distant. Where all are there, not even the index is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain

from holdfast.errors import HoldfastError

from .ahead import in_order
from .blobs import Kind, Located, check_located, unseal_blob
from .cache import BLOBS
from .crypto import OVERHEAD
from .damage import DamagedError, damage_in
from .index import Place
from .packs import pack_name
from .repository import Repository
from .runs import position, read_run, runs

READERS = 8  # requests under way
SMALL = 1 << 20  # bytes of a blob that is read with others, and kept
_SIZE = struct.Struct(">I")  # before a blob that is kept: its size if it is compressed, as in index

Found = dict[bytes, bytes | HoldfastError]


class Documents:
    """Reads blobs of one moment: the index is loaded once, when it is first needed."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._loaded = False

    def read(self, kind: Kind, ids: Iterable[bytes]) -> Found:
        """Return the plaintext of blobs of one kind by their ids, or what is wrong with them.

        Who asks sees to it that all fit into memory.

        Raises:
            HoldfastError: the index cannot be read.

        """
        found: Found = {}
        missing = []
        for id_ in dict.fromkeys(ids):
            copy = _copy(self._repository, kind, id_)
            if copy is not None:
                found[id_] = copy
            else:
                missing.append(id_)
        if missing:
            if not self._loaded:
                self._repository.load_index()
                self._loaded = True
            found.update(_from_packs(self._repository, kind, missing))
        return found


def _from_packs(
    repository: Repository, kind: Kind, ids: Iterable[bytes]
) -> Iterator[tuple[bytes, bytes | HoldfastError]]:
    small: list[Place] = []
    large: list[Place] = []
    for id_ in ids:
        try:
            place = repository.places(kind, id_)[0]
        except HoldfastError as error:
            yield id_, error
        else:
            (small if place.blob.size <= SMALL else large).append(place)
    small.sort(key=position)
    read = in_order(READERS, lambda run: _read_run(repository, run), runs(small))
    yield from chain.from_iterable(read)
    for place in large:  # one after the other: together they may not fit into memory
        yield place.blob.id, _read_alone(repository, place)


def _read_run(
    repository: Repository, run: list[Place]
) -> list[tuple[bytes, bytes | HoldfastError]]:
    found: list[tuple[bytes, bytes | HoldfastError]] = []
    try:
        for place, stored in read_run(repository, run):
            with damage_in(repository.where, pack_name(place.pack)):
                found.append((place.blob.id, unseal_blob(repository.key, place.blob, stored)))
            _keep(repository, place.blob, stored)
    except HoldfastError:  # one of them: each on its own, and from other packs
        return [(place.blob.id, _read_alone(repository, place)) for place in run]
    return found


def _read_alone(repository: Repository, place: Place) -> bytes | HoldfastError:
    try:
        return repository.blob(place.blob.kind, place.blob.id)
    except HoldfastError as error:
        return error


def _keep(repository: Repository, blob: Located, stored: memoryview) -> None:
    size = blob.size if blob.compressed else 0
    repository.copies.keep(BLOBS, blob.id.hex(), _SIZE.pack(size) + bytes(stored))


def _copy(repository: Repository, kind: Kind, id_: bytes) -> bytes | None:
    """Return a blob from this machine, if there is a sound copy."""
    copy = repository.copies.read(BLOBS, id_.hex())
    if copy is None:
        return None
    with suppress(DamagedError, struct.error):
        (size,) = _SIZE.unpack_from(copy)
        stored = memoryview(copy)[_SIZE.size :]
        whole = size or len(stored) - OVERHEAD
        blob = check_located(Located(kind, id_, 0, len(stored), whole, size > 0))
        return unseal_blob(repository.key, blob, stored)
    repository.copies.drop(BLOBS, id_.hex())
    return None
