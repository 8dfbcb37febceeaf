"""Blobs: the pieces of content that are stored once each, named by the SHA-256 of their plaintext.

A blob is compressed where that makes it smaller, and sealed on its own: that is how it lies in a
pack. Data and trees are two kinds with names of their own ("Pack Format").
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256, Hash

from holdfast.model.artifact import Chunk

from .compression import compress_all, expand, expand_all, expand_into
from .crypto import OVERHEAD, Key, seal_all, unseal, unseal_into
from .damage import DamagedError

ID_SIZE = 32
_SHA256 = SHA256()


class Kind(StrEnum):
    """What a blob holds; the same bytes may be stored as both."""

    DATA = "data"  # a piece of a file
    TREE = "tree"  # a folder's nodes, as JSON


# The longest plaintext that is believed. restic cuts data at 8 MiB; a tree is one blob however many
# entries its folder has: 1 GiB is some two million.
SMALL = 64 << 10  # the longest plaintext of blobs that are worked on together
LONGEST = {Kind.DATA: 64 << 20, Kind.TREE: 1 << 30}


@dataclass(frozen=True, slots=True)
class Sealed:
    """A blob as it lies in a pack."""

    kind: Kind
    id: bytes  # the SHA-256 of the plaintext
    data: Chunk
    size: int  # of the plaintext
    compressed: bool


@dataclass(frozen=True, slots=True)
class Located:
    """Where a blob lies, and what it is: an entry of a pack's header, or of the index."""

    kind: Kind
    id: bytes
    offset: int  # in its pack
    length: int  # there, sealed
    size: int  # of the plaintext
    compressed: bool


def blob_id(plain: Chunk) -> bytes:
    """Return the id of a blob."""
    return sha256(plain).digest()


def seal_blob(key: Key, kind: Kind, id_: bytes, plain: Chunk) -> Sealed:
    """Compress and seal a blob whose id is known; it may be called from several threads."""
    [sealed] = seal_blobs(key, [(kind, id_, plain)])
    return sealed


def seal_blobs(key: Key, blobs: Sequence[tuple[Kind, bytes, Chunk]]) -> list[Sealed]:
    """Compress and seal blobs, of which kind, id and plaintext are given: faster than one by one.

    It may be called from several threads.
    """
    plains = [plain for _kind, _id, plain in blobs]
    smaller = [
        frame if len(frame) < len(plain) else plain
        for frame, plain in zip(compress_all(plains), plains, strict=True)
    ]
    return [
        Sealed(kind, id_, sealed, len(plain), compressed=stored is not plain)
        for (kind, id_, plain), stored, sealed in zip(
            blobs, smaller, seal_all(key, smaller), strict=True
        )
    ]


def unseal_blob(key: Key, blob: Located, stored: Chunk) -> bytes:
    """Return the plaintext of a blob, after checking all there is to check.

    Raises:
        DamagedError: the bytes are not those of this blob.

    """
    if len(stored) != blob.length:
        raise DamagedError(f"blob {blob.id.hex()} has {len(stored)} bytes of {blob.length}")
    try:
        plain = unseal(key, stored)
        if blob.compressed:
            plain = expand(plain, blob.size)
    except DamagedError as error:
        raise DamagedError(f"blob {blob.id.hex()}: {error}") from error
    if blob_id(plain) != blob.id:
        raise DamagedError(f"blob {blob.id.hex()} holds other content than its name says")
    return plain


class Unsealer:
    """Unseals blobs into memory that is there already. For one thread at a time.

    What it needs besides, for the frames of compressed ones, it uses again: for large values the
    system takes longer to give fresh memory than zstd to fill it.
    """

    def __init__(self) -> None:
        self._frame = memoryview(b"")

    def unseal(self, key: Key, blob: Located, stored: Chunk, room: memoryview) -> None:
        """Put the plaintext of a blob where there is room of just its size; see `unseal_blob`."""
        if len(stored) != blob.length:
            raise DamagedError(f"blob {blob.id.hex()} has {len(stored)} bytes of {blob.length}")
        try:
            if blob.compressed:
                frame = self._room(blob.length - OVERHEAD)
                unseal_into(key, stored, frame)
                expand_into(frame, room)
            else:
                unseal_into(key, stored, room)
        except DamagedError as error:
            raise DamagedError(f"blob {blob.id.hex()}: {error}") from error
        if blob_id(room) != blob.id:
            raise DamagedError(f"blob {blob.id.hex()} holds other content than its name says")

    def _room(self, size: int) -> memoryview:
        """Return memory of this size; it grows by doubling, not with each larger blob."""
        if len(self._frame) < size:
            # Of the system: to clear it here would be with the interpreter's lock held.
            self._frame = memoryview(mmap.mmap(-1, 1 << (size - 1).bit_length()))
        return self._frame[:size]


def unseal_blobs(key: Key, blobs: Sequence[tuple[Located, Chunk]]) -> Iterator[tuple[bytes, Chunk]]:
    """Give the ids and plaintexts of blobs that lie in one pack, in no order; see `unseal_blob`.

    Small ones are unpacked together, and hashed by means that keep the interpreter's lock: where
    several threads want it, each time that it is given away costs as much as a small blob does.
    """
    small = []
    for blob, stored in blobs:
        if blob.compressed and blob.size <= SMALL and len(stored) == blob.length:
            small.append((blob, stored))
        else:
            yield blob.id, unseal_blob(key, blob, stored)
    frames = [unseal(key, stored) for _blob, stored in small]
    plains = expand_all(frames, [blob.size for blob, _stored in small])
    for (blob, _stored), plain in zip(small, plains, strict=True):
        digest = Hash(_SHA256)
        digest.update(plain)
        if digest.finalize() != blob.id:
            raise DamagedError(f"blob {blob.id.hex()} holds other content than its name says")
        yield blob.id, plain


def check_located(blob: Located) -> Located:
    """Return ``blob`` if a blob can lie there; what a header or an index says is not believed.

    Raises:
        DamagedError: it is longer than blobs are, or lies where no pack reaches.

    """
    longest = LONGEST[blob.kind]
    bounds = (
        len(blob.id) == ID_SIZE
        and 0 <= blob.size <= longest
        and OVERHEAD <= blob.length <= longest + OVERHEAD
        and blob.offset >= 0
        and blob.offset + blob.length < _PACK_END
        and (blob.compressed or blob.size == blob.length - OVERHEAD)
    )
    if not bounds:
        raise DamagedError(
            f"blob {blob.id.hex()} cannot have {blob.size} bytes, "
            f"and {blob.length} at offset {blob.offset} of a pack"
        )
    return blob


_PACK_END = 1 << 32  # offsets have 32 bits
