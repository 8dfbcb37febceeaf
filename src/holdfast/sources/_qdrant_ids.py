"""Which points a segment of a snapshot holds, read from the files in which Qdrant keeps their ids.

The forms are those of ``lib/segment/src/id_tracker`` of Qdrant 1.13 to 1.19, all little-endian:

- ``mutable_id_tracker.mappings``, a log of changes: a byte that says which (1, 2: added; 3, 4:
  removed; odd: a number of 8 bytes, even: a UUID of 16), the id, and for added ones 4 more bytes.
- ``id_tracker.mappings``: how many there are (8 bytes), then for each a byte (0: number, 1: UUID),
  the id, and 4 more bytes. ``id_tracker.deleted`` has a bit for each that is gone.

An id is an ``int``, or the 16 ``bytes`` of a UUID.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

Id = int | bytes

IN_MEMORY = 300_000  # ids that are held before they go to files; some 60 MB
BUCKETS = 256
RUN = 4096  # entries of the same kind that are read at once
COUNT = struct.Struct("<Q")
RECORD = struct.Struct("<BI16s")  # of a bucket: what it says, of which segment, the id
IS_UUID, IS_GONE = 1, 2
WHOLE = 0  # in place of a segment: ids that are there whatever else is said


class BadIdsError(ValueError):
    """A file of ids is not of the form that is known here."""


class IdSet:
    """The distinct ids of a shard, in bounded memory: many of them go to files in ``folder``.

    A point may lie in several segments, and what one segment removed another may still have: the
    changes of one come together, up to `end_segment`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: set[Id] = set()  # of the segments that ended
        self._recent: dict[Id, bool] = {}  # of the segment that is read: whether it is there
        self._segment = WHOLE + 1
        self._spilled = False

    def change(self, ids: Iterable[Id], *, there: bool) -> None:
        """Add ids to the segment, or remove them from it."""
        self._recent.update(dict.fromkeys(ids, there))
        if len(self._held) + len(self._recent) > IN_MEMORY:
            self._spill()

    def end_segment(self) -> None:
        """Say that what follows belongs to another segment."""
        if self._spilled:
            self._spill()
        else:
            self._held.update(one for one, there in self._recent.items() if there)
        self._recent.clear()
        self._segment += 1

    def count(self, besides: Collection[Id] = ()) -> int:
        """Return how many there are that are not in ``besides``; no segment may be open."""
        if not self._spilled:
            return len(self._held.difference(besides))
        excluded = set(besides)
        return sum(len(bucket - excluded) for bucket in self._buckets())

    def _spill(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._spilled = True
        shares: list[list[bytes]] = [[] for _bucket in range(BUCKETS)]
        for one in self._held:
            shares[_bucket_of(one)].append(_record(one, WHOLE, there=True))
        for one, there in self._recent.items():
            shares[_bucket_of(one)].append(_record(one, self._segment, there=there))
        for bucket, share in enumerate(shares):
            if share:
                with (self._folder / f"{bucket}").open("ab") as file:
                    file.write(b"".join(share))
        self._held.clear()
        self._recent.clear()

    def _buckets(self) -> Iterator[set[Id]]:
        for path in self._folder.iterdir():
            found: dict[tuple[int, Id], bool] = {}
            for flags, segment, raw in RECORD.iter_unpack(path.read_bytes()):
                one = raw if flags & IS_UUID else int.from_bytes(raw, "little")
                found[segment, one] = not flags & IS_GONE
            yield {one for (_segment, one), there in found.items() if there}


def _bucket_of(one: Id) -> int:
    # Ids that are numbers come in runs and UUIDs at random: both are spread evenly.
    return one % BUCKETS if isinstance(one, int) else one[-1]


def _record(one: Id, segment: int, *, there: bool) -> bytes:
    gone = 0 if there else IS_GONE
    if isinstance(one, int):
        return RECORD.pack(gone, segment, one.to_bytes(16, "little"))
    return RECORD.pack(gone | IS_UUID, segment, one)


class _Entries:
    """A file of entries that begin with their kind, taken in pieces, read in runs of one kind.

    ``forms`` has the form of each kind, whose second field is the id.
    """

    forms: ClassVar[Mapping[int, struct.Struct]]

    def __init__(self, ids: IdSet) -> None:
        self._ids = ids
        self._left = b""

    def take(self, _offset: int, piece: memoryview) -> None:
        """Take the next piece; raises `BadIdsError`."""
        data = self._left + piece
        at = self._head(data)
        while at < len(data):
            form = self.forms.get(data[at])
            if form is None:
                raise BadIdsError(f"an entry is of the unknown kind {data[at]}")
            whole = min((len(data) - at) // form.size, RUN)
            if not whole:
                break
            kinds = data[at : at + whole * form.size : form.size]
            run = len(kinds) - len(kinds.lstrip(kinds[:1]))
            end = at + run * form.size
            self._run(data[at], [entry[1] for entry in form.iter_unpack(data[at:end])])
            at = end
        self._left = data[at:]

    def _head(self, data: bytes) -> int:
        """Read what comes before the entries; returns where they begin in this data."""
        del data
        return 0

    def _run(self, kind: int, ids: list[Id]) -> None:
        raise NotImplementedError


class MutableIds(_Entries):
    """The log of a segment that grows. One that breaks off counts up to there, as for Qdrant."""

    forms: ClassVar[Mapping[int, struct.Struct]] = {
        1: struct.Struct("<BQI"),
        2: struct.Struct("<B16sI"),
        3: struct.Struct("<BQ"),
        4: struct.Struct("<B16s"),
    }

    def _run(self, kind: int, ids: list[Id]) -> None:
        self._ids.change(ids, there=kind in {1, 2})


class ImmutableIds(_Entries):
    """The list of a segment that is complete; ``deleted`` are its bits."""

    forms: ClassVar[Mapping[int, struct.Struct]] = {
        0: struct.Struct("<BQI"),
        1: struct.Struct("<B16sI"),
    }

    def __init__(self, ids: IdSet, deleted: bytes) -> None:
        super().__init__(ids)
        self._deleted = deleted
        self._some_deleted = any(deleted)
        self._expected: int | None = None
        self._seen = 0

    def _head(self, data: bytes) -> int:
        if self._expected is not None:
            return 0
        (self._expected,) = COUNT.unpack_from(data)
        return COUNT.size

    def take(self, offset: int, piece: memoryview) -> None:
        """Take the next piece; raises `BadIdsError`."""
        if self._expected is None and len(self._left) + len(piece) < COUNT.size:
            self._left += bytes(piece)
            return
        super().take(offset, piece)

    def _run(self, kind: int, ids: list[Id]) -> None:
        del kind
        first = self._seen
        self._seen += len(ids)
        if self._some_deleted:
            ids = [one for index, one in enumerate(ids, first) if not self._is_deleted(index)]
        self._ids.change(ids, there=True)

    def _is_deleted(self, index: int) -> bool:
        place, bit = divmod(index, 8)
        return place < len(self._deleted) and bool(self._deleted[place] >> bit & 1)

    def end(self) -> None:
        """Say that it is over; raises `BadIdsError` if ids are missing."""
        if self._left or self._seen != (self._expected or 0):
            raise BadIdsError(f"{self._seen} ids came of {self._expected}")
