"""What becomes of each pack when a repository is pruned."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import IntEnum

from .blobs import Kind, Located
from .index import Index
from .needed import NEEDED, Needed
from .table import Marks

SPARE = 2  # marks a copy that is not needed, because another one stays


class Fate(IntEnum):
    """What becomes of a pack."""

    KEEP = 0
    REPACK = 1
    DELETE = 2


@dataclass(slots=True)
class Tidying:
    """The fates of all packs, by their numbers in the index, and what they are decided by."""

    index: Index
    marks: dict[Kind, Marks]
    fates: bytearray
    used: array[int]  # bytes of blobs that stay, in each pack
    unused: array[int]
    used_blobs: int
    unused_blobs: int

    def packs(self, fate: Fate) -> list[int]:
        """Return the numbers of the packs of this fate."""
        return [number for number, found in enumerate(self.fates) if found == fate]

    def stays(self, number: int, blob: Located) -> bool:
        """Tell whether this very copy of a blob, in this pack, is to stay."""
        marks, pack = self.marks[blob.kind], self.index.pack(number)
        copies = zip(marks.places(blob.id), self.index.places(blob.kind, blob.id), strict=True)
        return any(
            marks.values[at] == NEEDED and (place.pack, place.blob) == (pack, blob)
            for at, place in copies
        )


def choose(index: Index, needed: Needed, tolerated: float) -> Tidying:
    """Decide. All that is needed must be there."""
    count = index.pack_count()
    used, unused = array("Q", bytes(8 * count)), array("Q", bytes(8 * count))
    used_blobs = unused_blobs = 0
    trees = bytearray(count)
    for kind in Kind:
        for row, mark in zip(index.rows(kind), needed.marks[kind].values, strict=True):
            _id, number, _offset, length, _size = row
            if mark:
                used[number] += length
                used_blobs += 1
            else:
                unused[number] += length
                unused_blobs += 1
            if kind is Kind.TREE:
                trees[number] = 1
    for number, length in _spare(index, needed, unused):
        used[number] -= length
        unused[number] += length
        used_blobs -= 1
        unused_blobs += 1
    fates = _fates(used, unused, trees, tolerated)
    return Tidying(index, needed.marks, fates, used, unused, used_blobs, unused_blobs)


def _spare(index: Index, needed: Needed, unused: array[int]) -> list[tuple[int, int]]:
    """Of what is stored twice, keep the copy beside which least is not needed.

    So packs that a run wrote which was killed are taken for what they are: the new home.
    """
    before = array("Q", unused)
    spare = []
    for kind, id_ in needed.doubles():
        marks = needed.marks[kind]
        copies = []
        for at, place in zip(marks.places(id_), index.places(kind, id_), strict=True):
            number = index.pack_number(place.pack)
            assert number is not None  # noqa: S101 - the index gave it
            copies.append((place.pack in needed.wrong, before[number], number, at, place.blob))
        copies.sort(key=lambda copy: copy[:4])
        for _wrong, _unused, number, at, blob in copies[1:]:
            marks.values[at] = SPARE
            spare.append((number, blob.length))
    return spare


def _fates(used: array[int], unused: array[int], trees: bytearray, tolerated: float) -> bytearray:
    fates = bytearray(len(used))
    partly = []
    for number in range(len(used)):
        if not used[number]:
            fates[number] = Fate.DELETE
        elif unused[number] and trees[number]:
            fates[number] = Fate.REPACK
        elif unused[number]:
            partly.append(number)
    partly.sort(key=lambda number: unused[number] / used[number])
    left, total = sum(unused[number] for number in partly), sum(used)
    while partly and left * (1 - tolerated) > total * tolerated:
        number = partly.pop()
        fates[number] = Fate.REPACK
        left -= unused[number]
    return fates
