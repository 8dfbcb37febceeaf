"""Pack files: sealed blobs one after the other, then a sealed header, then its length.

``blob … blob | header | length of the header, 4 bytes`` ("Pack Format"). A header entry is a type
byte, the sealed length, of a compressed blob the length of its plaintext, and the id. Blobs of one
kind only are in a pack.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain

from holdfast.model.artifact import Chunk, Chunks

from .blobs import Kind, Located, Sealed, check_located
from .crypto import OVERHEAD, Key, seal, unseal
from .damage import DamagedError
from .pieces import gathered

PACKS = "data"  # the folder that they lie in
TARGET_SIZE = 16 << 20  # bytes that a pack has before it is finished, as restic's
LARGEST_HEADER = 16 << 20  # restic believes no more
TAIL_SIZE = 8 << 10  # bytes at the end of a pack that hold the header of most

_JOINED = 128 << 10  # bytes; smaller pieces of a pack are joined

_LENGTH = struct.Struct("<I")
_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_KINDS = (Kind.DATA, Kind.TREE)
_IS_COMPRESSED = 2  # the bit of the type byte
MOST_BLOBS = (LARGEST_HEADER - OVERHEAD) // _COMPRESSED.size

EMPTY_SIZE = OVERHEAD + _LENGTH.size  # bytes of a pack without blobs
ENTRY_SIZE = (_PLAIN.size, _COMPRESSED.size)  # that a blob adds in the header; [1] if compressed

Part = Callable[[int, int], Chunk]  # offset and length to bytes of a pack


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack and what lies in it, as its header or an index says."""

    id: bytes  # the SHA-256 of the file
    blobs: Sequence[Located]


@dataclass(frozen=True, slots=True)
class FinishedPack:
    """A pack to be stored: under ``name``, the bytes of `chunks`."""

    pack: Pack
    size: int
    pieces: Sequence[Chunk]

    @property
    def name(self) -> str:
        """Where it goes in the repository."""
        return pack_name(self.pack.id)

    def chunks(self) -> Chunks:
        """Give its bytes; may be called again for another store, or another attempt."""
        return iter(self.pieces)


class PackWriter:
    """Collects sealed blobs of one kind until there are enough for a pack. For one thread."""

    def __init__(self, target: int = TARGET_SIZE) -> None:
        self._target = target
        self._blobs: list[Sealed] = []
        self._size = 0

    def add(self, blob: Sealed) -> None:
        """Take a blob."""
        self._blobs.append(blob)
        self._size += len(blob.data)

    @property
    def size(self) -> int:
        """How many bytes were taken."""
        return self._size

    @property
    def full(self) -> bool:
        """Whether it should be finished before it takes more."""
        return self._size >= self._target or len(self._blobs) >= MOST_BLOBS

    def take(self) -> list[Sealed]:
        """Return what was collected, for `finish` in any thread, and begin anew."""
        taken, self._blobs, self._size = self._blobs, [], 0
        return taken


def finish(key: Key, sealed: Sequence[Sealed]) -> FinishedPack:
    """Make a pack of blobs of one kind: the header, and the hash of everything.

    Small blobs are joined: a call to the system, or to the hash, for each would take longer. Large
    ones are not: to copy them takes longer than that.
    """
    located, offset = [], 0
    for blob in sealed:
        located.append(
            Located(blob.kind, blob.id, offset, len(blob.data), blob.size, blob.compressed)
        )
        offset += len(blob.data)
    header = seal(key, b"".join(map(_entry, located)))
    blobs = (blob.data for blob in sealed)
    pieces = list(gathered(chain(blobs, (header + _LENGTH.pack(len(header)),)), _JOINED))
    digest = sha256()
    for piece in pieces:
        digest.update(piece)
    return FinishedPack(Pack(digest.digest(), located), sum(map(len, pieces)), pieces)


def pack_name(id_: bytes) -> str:
    """Return where a pack lies: in one of 256 folders."""
    name = id_.hex()
    return f"{PACKS}/{name[:2]}/{name}"


def pack_of(name: str) -> bytes | None:
    """Return the id of the pack that a name below ``data`` stands for; None for other files."""
    parts = name.split("/")
    last = parts[-1]
    if len(last) != _HEX_SIZE or set(last) - _HEX or parts[:-1] != ["data", last[:2]]:
        return None
    return bytes.fromhex(last)


def read_header(key: Key, size: int, part: Part) -> list[Located]:
    """Return what lies in a pack of ``size`` bytes, from its header: one or two reads.

    Raises:
        DamagedError: the header cannot be trusted, or does not describe all of the pack.

    """
    start = max(0, size - TAIL_SIZE)
    tail = part(start, size - start)
    if len(tail) < _LENGTH.size:
        raise DamagedError(f"{size} bytes are too few for a pack")
    (length,) = _LENGTH.unpack(tail[-_LENGTH.size :])
    first = size - _LENGTH.size - length
    if not OVERHEAD <= length <= LARGEST_HEADER or first < 0:
        raise DamagedError(f"its header cannot have {length} bytes")
    sealed = tail[first - start : -_LENGTH.size] if first >= start else part(first, length)
    located = parse_header(unseal(key, sealed))
    end = located[-1].offset + located[-1].length if located else 0
    if end != first:
        raise DamagedError(f"its header speaks of {end} bytes, and {first} are before it")
    return located


def parse_header(header: bytes) -> list[Located]:
    """Return the entries of an unsealed header.

    Raises:
        DamagedError: an entry is cut off, of a type that is not known, or cannot be.

    """
    return list(_entries(header))


def _entries(header: bytes) -> Iterator[Located]:
    at, offset = 0, 0
    while at < len(header):
        type_ = header[at]
        if type_ > _IS_COMPRESSED + 1:
            raise DamagedError(f"its header has a blob of type {type_}, which is not known")
        compressed = type_ >= _IS_COMPRESSED
        form = _COMPRESSED if compressed else _PLAIN
        if at + form.size > len(header):
            raise DamagedError("the last entry of its header is cut off")
        fields = form.unpack_from(header, at)
        size = fields[2] if compressed else fields[1] - OVERHEAD
        kind = _KINDS[type_ % _IS_COMPRESSED]
        yield check_located(Located(kind, fields[-1], offset, fields[1], size, compressed))
        at, offset = at + form.size, offset + fields[1]


def _entry(blob: Located) -> bytes:
    type_ = _KINDS.index(blob.kind)
    if blob.compressed:
        return _COMPRESSED.pack(_IS_COMPRESSED + type_, blob.length, blob.size, blob.id)
    return _PLAIN.pack(type_, blob.length, blob.id)


_HEX = frozenset("0123456789abcdef")
_HEX_SIZE = 64
