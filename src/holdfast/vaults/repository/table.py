"""Records behind ids, by the million, in little memory: what the index is made of.

Ids are hashes, so their first two bytes spread them evenly over 65,536 buckets. A bucket is one
run of bytes, in no order, that is searched from its start: with ten million ids it holds 150
records, and the search takes two microseconds. Adding costs one append, nothing is ever sorted, and
a record takes its own bytes and a few per cent of room to grow.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import accumulate

from .blobs import ID_SIZE

_BUCKETS = 1 << 16


class Table:
    """Records of ``width`` bytes, several of which may have one id.

    Reading while another thread adds sees a record whole or not at all, because the interpreter
    appends to a run of bytes in one step.
    """

    def __init__(self, width: int) -> None:
        self._step = ID_SIZE + width
        self._buckets: list[bytearray | None] = [None] * _BUCKETS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, record: bytes) -> None:
        """Add a record: its id first."""
        at = record[0] << 8 | record[1]
        bucket = self._buckets[at]
        if bucket is None:
            self._buckets[at] = bytearray(record)
        else:
            bucket += record
        self._count += 1

    def has(self, id_: bytes) -> bool:
        """Tell whether there is a record with this id."""
        return next(self.find(id_), None) is not None

    def find(self, id_: bytes) -> Iterator[bytes]:
        """Give the records with this id, the id included, in the order they were added."""
        bucket = self._buckets[id_[0] << 8 | id_[1]]
        if bucket is not None:
            for at in self._starts(bucket, id_):
                yield bytes(bucket[at : at + self._step])

    def numbers(self, id_: bytes) -> Iterator[int]:
        """Give where the records of `find` stand in their bucket, counted in records."""
        bucket = self._buckets[id_[0] << 8 | id_[1]]
        if bucket is not None:
            for at in self._starts(bucket, id_):
                yield at // self._step

    def again(self) -> int:
        """Count the records whose id another record before them has."""
        ids = (
            {bucket[at : at + ID_SIZE] for at in range(0, len(bucket), self._step)}
            for bucket in self.buckets()
        )
        return len(self) - sum(map(len, ids))

    def counts(self) -> Iterator[int]:
        """Give how many records each bucket holds."""
        for bucket in self._buckets:
            yield 0 if bucket is None else len(bucket) // self._step

    def _starts(self, bucket: bytearray, id_: bytes) -> Iterator[int]:
        at = bucket.find(id_)
        while at >= 0:
            beside = at % self._step
            if not beside:  # and not a part of two records that happens to look like it
                yield at
            at = bucket.find(id_, at - beside + self._step if not beside else at + 1)

    def records(self) -> Iterator[bytes]:
        """Give every record, those of one bucket together."""
        for bucket in self._buckets:
            if bucket is not None:
                held = bytes(bucket)
                yield from (held[at : at + self._step] for at in range(0, len(held), self._step))

    def buckets(self) -> Iterator[bytes]:
        """Give the records of each bucket in one piece, in the order of `records`."""
        yield from (bytes(bucket) for bucket in self._buckets if bucket is not None)


class Marks:
    """A small number beside each record of a table, 0 at first: a byte each.

    ``values`` has them in the order of `Table.records`. Nobody may add to the table meanwhile.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._first = array("Q", accumulate(table.counts(), initial=0))
        self.values = bytearray(len(table))

    def places(self, id_: bytes) -> list[int]:
        """Return where in ``values`` the marks of the records with this id are."""
        first = self._first[id_[0] << 8 | id_[1]]
        return [first + number for number in self._table.numbers(id_)]
