"""The files of one vector index: the format of hnswlib, as Chroma persists it.

``header.bin`` says how many elements there are and how a row is laid out; ``data_level0.bin`` has
one row for each: its neighbours on the ground level, its vector, its label. ``length.bin`` has one
number each, ``link_lists.bin`` the neighbours on the levels above, one list after the other. Rows
are read in blocks, so that the size of an index does not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 4 << 20
VERSION = 1
MOST = 1 << 32  # elements; their numbers have four bytes
FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin")
_HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
_WORD = 4
_LABEL = 8
_DEGREE = 0xFFFF
_DELETED = 1 << 16


class IndexDamaged(ValueError):
    """The files of an index cannot be right."""


@dataclass(frozen=True, slots=True)
class Header:
    """What ``header.bin`` says; sizes and offsets in bytes, within a row of ``data_level0.bin``."""

    capacity: int
    elements: int
    row: int
    label_at: int
    vector_at: int
    top_level: int
    entry_point: int
    links_above: int  # neighbours of an element, at most, on a level above the ground
    links_ground: int

    @property
    def dimension(self) -> int:
        """How many numbers a vector has."""
        return (self.label_at - self.vector_at) // _WORD

    @property
    def list_above(self) -> int:
        """Bytes of one list of neighbours in ``link_lists.bin``."""
        return (self.links_above + 1) * _WORD


def read_header(folder: Path) -> Header:
    """Return the header of an index; raises `IndexDamaged` where it contradicts itself."""
    with (folder / "header.bin").open("rb") as file:
        data = file.read(_HEADER.size)
    if len(data) < _HEADER.size:
        raise IndexDamaged(f"header.bin has {len(data)} bytes, not {_HEADER.size}")
    version, start, *sizes, _m, _mult, _ef = _HEADER.unpack(data)
    header = Header(*sizes)
    if version != VERSION:
        raise IndexDamaged(f"header.bin has version {version}; {VERSION} is known")
    for sound, what in (
        (start == 0, "the rows"),
        (header.elements <= header.capacity < MOST, "the number of elements"),
        (0 < header.links_above <= header.links_ground <= _DEGREE, "the number of links"),
        (header.vector_at == (header.links_ground + 1) * _WORD, "the place of the vectors"),
        (header.label_at > header.vector_at, "the place of the labels"),
        ((header.label_at - header.vector_at) % _WORD == 0, "the size of the vectors"),
        (header.row == header.label_at + _LABEL, "the size of a row"),
        (header.elements == 0 or header.entry_point < header.elements, "the entry point"),
        (header.elements == 0 or header.top_level >= 0, "the highest level"),
    ):
        if not sound:
            raise IndexDamaged(f"header.bin contradicts itself about {what}")
    return header


def live_labels(folder: Path, header: Header, most: int) -> NDArray[np.bool_]:
    """Read every row; return for each label up to ``most`` whether an element has it, undeleted.

    Raises `IndexDamaged` where a row cannot be right: a neighbour that does not exist, a label that
    comes twice or was never given.
    """
    import numpy as np

    seen = np.zeros(most + 1, dtype=np.bool_)
    live = np.zeros(most + 1, dtype=np.bool_)
    _need(folder / "length.bin", header.elements * _WORD)
    for first, rows in _rows(folder, header):
        flags = _words(rows, 0, 1)[:, 0]
        _check_links(
            _words(rows, _WORD, header.links_ground), (flags & _DEGREE).astype("<u4"), header, first
        )
        labels = np.ascontiguousarray(rows[:, header.label_at :]).view("<u8")[:, 0]
        if labels.size and (labels.min() < 1 or labels.max() > most):
            raise IndexDamaged(f"data_level0.bin has a label beyond {most} after row {first}")
        if seen[labels].any() or np.unique(labels).size != labels.size:
            raise IndexDamaged(f"data_level0.bin has a label twice, after row {first}")
        seen[labels] = True
        live[labels[(flags & _DELETED) == 0]] = True
    return live


def vectors(
    folder: Path, header: Header, wanted: Collection[int]
) -> dict[int, NDArray[np.float32]]:
    """Return the vectors of a few labels, as the index has them: normalised for cosine."""
    import numpy as np

    found = {}
    for _first, rows in _rows(folder, header):
        labels = np.ascontiguousarray(rows[:, header.label_at :]).view("<u8")[:, 0]
        for index in np.flatnonzero(np.isin(labels, list(wanted))):
            vector = rows[index, header.vector_at : header.label_at].copy().view("<f4")
            found[int(labels[index])] = vector
    return found


def check_upper_levels(folder: Path, header: Header) -> None:
    """Walk ``link_lists.bin``; raises `IndexDamaged` where it leads nowhere."""
    with (folder / "link_lists.bin").open("rb") as file:
        lists = _Lists(file, header)
        for element in range(header.elements):
            lists.walk(element)
    # A search begins at the entry point, which is one of the highest.
    if header.elements and not lists.highest == lists.entry == header.top_level:
        problem = f"link_lists.bin goes up to level {lists.highest}, from {lists.entry}"
        raise IndexDamaged(f"{problem}; header.bin says {header.top_level}")


class _Lists:
    """The lists of ``link_lists.bin``, one element after the other."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        self._header = header
        self._data = b""
        self._at = 0
        self.highest = 0  # the highest level of any element
        self.entry = 0  # that of the entry point

    def walk(self, element: int) -> None:
        data, at = self._data, self._at
        if data[at : at + _WORD] == b"\0\0\0\0":  # most elements are on the ground only
            self._at = at + _WORD
            return
        size = int.from_bytes(self._take(_WORD, element), "little")
        levels, odd = divmod(size, self._header.list_above)
        if odd or levels > max(self._header.top_level, 0):
            raise IndexDamaged(f"link_lists.bin has a list of {size} bytes for element {element}")
        self.highest = max(self.highest, levels)
        if element == self._header.entry_point:
            self.entry = levels
        self._check(self._take(size, element), element)

    def _check(self, lists: bytes, element: int) -> None:
        for start in range(0, len(lists), self._header.list_above):
            degree = int.from_bytes(lists[start : start + 2], "little")
            links = memoryview(lists)[start + _WORD : start + (degree + 1) * _WORD].cast("I")
            if degree > self._header.links_above or max(links, default=0) >= self._header.elements:
                raise IndexDamaged(f"link_lists.bin leads nowhere from element {element}")

    def _take(self, count: int, element: int) -> bytes:
        if len(self._data) - self._at < count:
            self._data = self._data[self._at :] + self._file.read(max(BLOCK, count))
            self._at = 0
        data = self._data[self._at : self._at + count]
        if len(data) < count:
            raise IndexDamaged(f"link_lists.bin ends too early, at element {element}")
        self._at += count
        return data


def _rows(folder: Path, header: Header) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Give the rows in blocks, each with the number of its first row; used before the next."""
    import numpy as np

    path = folder / "data_level0.bin"
    _need(path, header.elements * header.row)
    at_once = max(1, BLOCK // header.row)
    buffer = np.empty((min(at_once, header.elements), header.row), dtype=np.uint8)
    with path.open("rb", buffering=0) as file:
        for first in range(0, header.elements, at_once):
            rows = buffer[: min(at_once, header.elements - first)]
            _read_full(file, rows.data.cast("B"))
            yield first, rows


def _read_full(file: BinaryIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]  # raw files have it
        if not count:
            raise IndexDamaged("data_level0.bin ends too early")
        view = view[count:]


def _words(rows: NDArray[np.uint8], start: int, count: int) -> NDArray[np.uint32]:
    import numpy as np

    return np.ascontiguousarray(rows[:, start : start + count * _WORD]).view("<u4")


def _check_links(
    links: NDArray[np.uint32], degrees: NDArray[np.uint32], header: Header, first: int
) -> None:
    import numpy as np

    if (degrees > header.links_ground).any():
        raise IndexDamaged(f"data_level0.bin has too many neighbours in a row after {first}")
    used = np.arange(header.links_ground, dtype=np.uint32) < degrees[:, None]
    if (links[used] >= header.elements).any():
        raise IndexDamaged(
            f"data_level0.bin has a neighbour that does not exist, after row {first}"
        )


def _need(path: Path, size: int) -> None:
    there = path.stat().st_size
    if there < size:
        raise IndexDamaged(f"{path.name} has {there} bytes; its elements need {size}")
