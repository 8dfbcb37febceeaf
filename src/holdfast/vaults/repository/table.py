"""Records behind ids, by the million, in little memory: what the index is made of.

Ids are hashes, so their first two bytes spread them evenly over 65,536 buckets. A bucket is one
run of bytes, in no order, that is searched from its start: with ten million ids it holds 150
records, and the search takes two microseconds. Adding costs one append, nothing is ever sorted, and
a record takes its own bytes and a few per cent of room to grow.
"""

from __future__ import annotations

from collections.abc import Iterator

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
        if bucket is None:
            return
        at = bucket.find(id_)
        while at >= 0:
            beside = at % self._step
            if not beside:  # and not a part of two records that happens to look like it
                yield bytes(bucket[at : at + self._step])
            at = bucket.find(id_, at - beside + self._step if not beside else at + 1)

    def records(self) -> Iterator[bytes]:
        """Give every record, those of one bucket together."""
        for bucket in self._buckets:
            if bucket is not None:
                held = bytes(bucket)
                yield from (held[at : at + self._step] for at in range(0, len(held), self._step))
