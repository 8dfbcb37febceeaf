"""The index: in which pack each blob lies ("Indexing"), as files and in memory.

In memory a blob takes 48 bytes and a few per cent, its kind none, a pack 72. Files are read one
after the other, so that no more than one is held as JSON.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .blobs import ID_SIZE, Kind, Located, check_located
from .crypto import OVERHEAD
from .damage import DamagedError
from .packs import Pack
from .table import Marks, Table
from .unpacked import from_json, to_json

LARGEST_DOCUMENT = 128 << 20  # restic ends an index file after the pack that reaches 50,000 blobs
BLOBS_PER_FILE = 50_000

_BLOB = struct.Struct(f">{ID_SIZE}sIIII")  # id, pack number, offset, length, size if compressed
_PACK = struct.Struct(f">{ID_SIZE}sI")

Row = tuple[bytes, int, int, int, int]  # as `_BLOB` has it


@dataclass(frozen=True, slots=True)
class Place:
    """A blob and the pack that it lies in."""

    pack: bytes
    blob: Located


Places = list[Place]  # of one blob: one, or several where it was stored more than once


class Index:
    """What is stored where. All methods may be called from several threads."""

    def __init__(self) -> None:
        self._tables = {kind: Table(_BLOB.size - ID_SIZE) for kind in Kind}
        self._numbers = Table(_PACK.size - ID_SIZE)
        self._packs = bytearray()  # their ids, by number
        self._claimed: set[tuple[Kind, bytes]] = set()
        self._unsaved: list[Pack] = []
        self._changing = threading.Lock()
        self._saving = threading.Lock()

    # --- asking ---

    def __len__(self) -> int:
        """How many blobs there are; one that lies in two packs counts twice."""
        return sum(map(len, self._tables.values()))

    def has(self, kind: Kind, id_: bytes) -> bool:
        """Tell whether a blob is stored."""
        return self._tables[kind].has(id_)

    def lookup(self, kind: Kind, id_: bytes) -> Place | None:
        """Return where a blob lies, if it is stored."""
        return next(self.places(kind, id_), None)

    def places(self, kind: Kind, id_: bytes) -> Iterator[Place]:
        """Give every place that a blob lies in: two writers at once may store one twice.

        Raises:
            DamagedError: no blob can lie in such a place.

        """
        return (self._place(kind, record) for record in self._tables[kind].find(id_))

    def everything(self) -> Iterator[Place]:
        """Give every place of every blob, in no order; nobody may add meanwhile."""
        for kind, table in self._tables.items():
            yield from (self._place(kind, record) for record in table.records())

    def packs(self) -> Iterator[bytes]:
        """Give the id of every pack that there is said to be."""
        held = bytes(self._packs)
        yield from (held[at : at + ID_SIZE] for at in range(0, len(held), ID_SIZE))

    @property
    def pending(self) -> bool:
        """Whether there is anything that is not stored yet, or that no index file lists."""
        return bool(self._claimed or self._unsaved)

    # --- counting: nobody may add meanwhile ---

    def marks(self, kind: Kind) -> Marks:
        """Return a mark for each of `rows`, and for each of the `places` of a blob in order."""
        return Marks(self._tables[kind])

    def rows(self, kind: Kind) -> Iterator[Row]:
        """Give every place of every blob of a kind, unchecked, as fast as that can be done."""
        for bucket in self._tables[kind].buckets():
            yield from _BLOB.iter_unpack(bucket)

    def copies(self) -> int:
        """Count the second, third and further copies of blobs."""
        return sum(table.again() for table in self._tables.values())

    def pack_count(self) -> int:
        """Return how many packs there are said to be; they are numbered from 0."""
        return len(self._packs) // ID_SIZE

    def pack(self, number: int) -> bytes:
        """Return the id of a pack by its number."""
        return bytes(self._packs[number * ID_SIZE : (number + 1) * ID_SIZE])

    def pack_number(self, pack: bytes) -> int | None:
        """Return the number of a pack; None for one that no index file lists."""
        return next((_PACK.unpack(found)[1] for found in self._numbers.find(pack)), None)

    # --- adding ---

    def claim(self, kind: Kind, id_: bytes) -> bool:
        """Tell whether the caller shall store a blob: nobody did so yet, or is about to.

        A claim ends when `add` is told of the pack. A run that fails ends with its index.
        """
        with self._changing:
            if (kind, id_) in self._claimed or self.has(kind, id_):
                return False
            self._claimed.add((kind, id_))
            return True

    def add(self, pack: Pack) -> None:
        """Know a pack that is stored now, and list it when the index is saved next."""
        with self._changing:
            number = self._number(pack.id)
            for blob in pack.blobs:
                size = blob.size if blob.compressed else 0
                record = _BLOB.pack(blob.id, number, blob.offset, blob.length, size)
                self._tables[blob.kind].add(record)
                self._claimed.discard((blob.kind, blob.id))
            self._unsaved.append(pack)

    def save(self, write: Callable[[bytes], None], *, everything: bool) -> None:
        """Give ``write`` the documents of packs that no index file lists yet.

        Without ``everything`` only full ones. What ``write`` fails to store is given again.
        """
        with self._saving:
            while count := self._ready(everything=everything):
                write(encode(self._unsaved[:count]))
                with self._changing:
                    del self._unsaved[:count]

    def load(self, document: bytes) -> None:
        """Take in what an index file lists; what is known already is passed over.

        Raises:
            DamagedError: it is not an index, and nothing of what it lists after that is taken in.

        """
        with self._changing:
            try:
                for pack in from_json(document).get("packs") or ():
                    self._load_pack(pack)
            except (KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
                raise DamagedError(f"it is not an index: {error}") from error

    # --- how ---

    def _load_pack(self, pack: dict[str, Any]) -> None:
        known = len(self._packs)
        number = self._number(_id(pack["id"]))
        again = len(self._packs) == known  # listed by another index file too
        for blob in pack["blobs"] or ():
            size = blob.get("uncompressed_length", 0)
            id_ = _id(blob["id"])
            record = _BLOB.pack(id_, number, blob["offset"], blob["length"], size)
            table = self._tables[blob["type"]]
            if not (again and record in table.find(id_)):
                table.add(record)

    def _number(self, pack: bytes) -> int:
        found = self.pack_number(pack)
        if found is not None:
            return found
        number = self.pack_count()
        self._numbers.add(_PACK.pack(pack, number))
        self._packs += pack
        return number

    def _place(self, kind: Kind, record: bytes) -> Place:
        id_, number, offset, length, size = _BLOB.unpack(record)
        located = Located(kind, id_, offset, length, size or length - OVERHEAD, size > 0)
        return Place(self.pack(number), check_located(located))

    def _ready(self, *, everything: bool) -> int:
        """Return how many of the packs that are not saved make the next file."""
        with self._changing:
            blobs = 0
            for count, pack in enumerate(self._unsaved, 1):
                blobs += len(pack.blobs)
                if blobs >= BLOBS_PER_FILE:
                    return count
            return len(self._unsaved) if everything else 0


def encode(packs: Iterable[Pack]) -> bytes:
    """Return the document of an index file that lists these packs."""
    return to_json({"packs": [listed(pack) for pack in packs]})


def listed(pack: Pack) -> dict[str, Any]:
    """Return what an index file says of a pack."""
    return {"id": pack.id.hex(), "blobs": [_entry(blob) for blob in pack.blobs]}


def _entry(blob: Located) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": blob.id.hex(),
        "type": blob.kind.value,
        "offset": blob.offset,
        "length": blob.length,
    }
    if blob.compressed:
        entry["uncompressed_length"] = blob.size
    return entry


def _id(text: str) -> bytes:
    id_ = bytes.fromhex(text)
    if len(id_) != ID_SIZE:
        raise DamagedError(f"an id has {len(id_)} bytes")
    return id_
