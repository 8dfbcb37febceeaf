"""What the log in a snapshot still adds to its segments, as far as it can be told without Qdrant.

Segments in a snapshot are as of the moment it was begun; the log is as of a little later, and on
recovery Qdrant replays it from the operation it had acknowledged. Operations that name their points
can be replayed here as well. One that selects them by a filter cannot: `Undecided` is raised, and
whoever wants to know must let Qdrant recover the snapshot.

Forms: segments of the log as in the ``wal`` crate (``src/segment.rs``), named ``closed-<index of
the first entry>`` and ``open-<n>``; entries as in ``lib/shard/src/operations`` of Qdrant, in CBOR.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from ._qdrant_ids import Id

MAGIC = b"wal\0"
HEADER = 8
LENGTH = struct.Struct("<Q")
CRC = 4
FIRST_INDEX = "first-index"

Sizes = Mapping[str, int]
"""Dimensions, or `SPARSE`, by the name of the vector; the one without a name has the empty one."""


SPARSE = 0  # in place of dimensions


class UndecidedError(Exception):
    """What an operation did to the points cannot be told without Qdrant; the text says why."""


def replay(folder: Path, *, applied: int, sizes: Sizes) -> dict[Id, bool]:
    """Return, for each point that the log names, whether it is there in the end.

    ``folder`` holds the files of one shard's log. ``applied`` is the last operation that a segment
    of the shard knows of.

    Raises:
        UndecidedError: Qdrant must be asked.

    """
    acknowledged = _acknowledged(folder / FIRST_INDEX)
    there: dict[Id, bool] = {}
    for index, entry in _entries(folder):
        if index < acknowledged:
            continue
        try:
            _replay_one(entry, there, sizes)
        except UndecidedError:
            # What is acknowledged is in the segments; only of the last one it is not quite sure.
            if not index == acknowledged <= applied:
                raise
        except (IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise UndecidedError("an operation in its log is of an unknown form") from error
    return there


def _acknowledged(path: Path) -> int:
    if not path.exists():
        return 0
    try:
        return int(json.loads(path.read_bytes())["ack_index"])
    except (KeyError, TypeError, ValueError) as error:
        raise UndecidedError("the beginning of its log is of an unknown form") from error


# --- the files of the log ---


def _entries(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Give each entry with its index, in order."""
    if not folder.is_dir():
        return
    closed, opened = _numbered(folder, "closed-"), _numbered(folder, "open-")
    index = min(closed, default=0)
    for first in sorted(closed):
        if first != index:
            raise UndecidedError("a part of its log is missing")
        for entry in _of_file(closed[first]):
            yield index, entry
            index += 1
    for number in sorted(opened):
        for entry in _of_file(opened[number]):
            yield index, entry
            index += 1


def _numbered(folder: Path, prefix: str) -> dict[int, Path]:
    found = {path.name.removeprefix(prefix): path for path in folder.glob(f"{prefix}*")}
    return {int(number): path for number, path in found.items() if number.isdigit()}


def _of_file(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(HEADER)[: len(MAGIC)] != MAGIC:
            raise UndecidedError("its log is of an unknown form")
        while len(head := file.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            after = file.tell() + length + (CRC - length) % 8 + CRC
            if not length or after > size:
                return
            yield file.read(length)
            file.seek(after)


# --- operations ---


def _replay_one(entry: bytes, there: dict[Id, bool], sizes: Sizes) -> None:
    operation, _end = _Cbor(entry).item(0)
    if not isinstance(operation, dict) or not operation:
        raise ValueError("no operation")
    kind = next(iter(operation))
    content = operation[kind]
    if kind == "upsert_points":
        there.update(dict.fromkeys(map(_id, _upserted(content, sizes)), True))
    elif kind == "delete_points":
        there.update(dict.fromkeys(map(_id, content["ids"]), False))
    elif kind not in HARMLESS:
        raise UndecidedError(f"its log ends with an operation that only Qdrant can judge: {kind}")


HARMLESS = frozenset(  # to the number of points
    {
        "update_vectors",
        "delete_vectors",
        "delete_vectors_by_filter",
        "set_payload",
        "overwrite_payload",
        "delete_payload",
        "clear_payload",
        "clear_payload_by_filter",
        "create_index",
        "delete_index",
    }
)


def _upserted(content: Mapping[str, Any], sizes: Sizes) -> Sequence[Any]:
    """Return the ids of points that are added or replaced; Qdrant refuses vectors that do not fit.

    What it refuses is in its log all the same.
    """
    if "points" in content:
        points = content["points"]
        for point in points:
            _demand_fit(point["vector"], sizes)
        return [point["id"] for point in points]
    batch = content["batch"]
    vectors = batch["vectors"]
    for name, many in vectors.items() if isinstance(vectors, dict) else [("", vectors)]:
        for vector in many:
            _demand_fit({name: vector} if name else vector, sizes)
    return list(batch["ids"])


def _id(written: Any) -> Id:
    """Return an id; UUIDs are written as bytes in some operations, and as text in others."""
    if isinstance(written, str):
        return UUID(written).bytes
    if isinstance(written, bytes) and len(written) != len(UUID(int=0).bytes):
        raise ValueError("an id that is none")
    return written if isinstance(written, bytes) else int(written)


def _demand_fit(vectors: Any, sizes: Sizes) -> None:
    """Raise unless Qdrant will certainly take these vectors."""
    for name, vector in vectors.items() if isinstance(vectors, dict) else [("", vectors)]:
        known = sizes.get(name)
        if isinstance(vector, dict):
            fits = known == SPARSE
        else:  # a vector, or several of a multivector
            rows = vector if isinstance(vector, list) and vector else [vector]
            fits = all(isinstance(row, _Floats) and row.count == known for row in rows)
        if not fits:
            raise UndecidedError("its log ends with vectors that only Qdrant can judge")


# --- CBOR, as far as Qdrant writes it ---


class _Floats:
    """A list of floating-point numbers, of which only the number is of interest."""

    def __init__(self, count: int) -> None:
        self.count = count


@cache
def _floats(count: int) -> re.Pattern[bytes]:
    """Match so many numbers of 4 bytes, or of 2 where nothing is lost by it."""
    return re.compile(rb"(?:\xfa[\s\S]{4}|\xf9[\s\S]{2}){%d}" % count)


INDEFINITE, BREAK = 31, 0xFF


class _Cbor:
    """Reads items of RFC 8949; lists of floats become `_Floats`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._readers: Sequence[Callable[[int, int, int], tuple[Any, int]]] = (
            self._number,
            self._negative,
            self._bytes,
            self._text,
            self._list,
            self._map,
            self._tagged,
            self._simple,
        )

    def item(self, at: int) -> tuple[Any, int]:
        """Return the item at a place, and where the next one begins."""
        major, minor = divmod(self._data[at], 32)
        at += 1
        if minor < 24:  # noqa: PLR2004 - RFC 8949, 3: smaller values stand for themselves
            argument = minor
        elif minor < 28:  # noqa: PLR2004 - 24 to 27: the value follows in 1, 2, 4 or 8 bytes
            width = 1 << (minor - 24)
            argument = int.from_bytes(self._data[at : at + width], "big")
            at += width
        elif minor == INDEFINITE:
            argument = -1
        else:
            raise ValueError("reserved")
        return self._readers[major](minor, argument, at)

    def _number(self, _minor: int, argument: int, at: int) -> tuple[Any, int]:
        return argument, at

    def _negative(self, _minor: int, argument: int, at: int) -> tuple[Any, int]:
        return -1 - argument, at

    def _bytes(self, _minor: int, argument: int, at: int) -> tuple[Any, int]:
        if argument < 0 or at + argument > len(self._data):
            raise ValueError("out of bounds")
        return self._data[at : at + argument], at + argument

    def _text(self, minor: int, argument: int, at: int) -> tuple[Any, int]:
        raw, at = self._bytes(minor, argument, at)
        return raw.decode(), at

    def _list(self, _minor: int, argument: int, at: int) -> tuple[Any, int]:
        if 0 < argument <= len(self._data) and self._data[at] in b"\xfa\xf9":
            found = _floats(argument).match(self._data, at)
            if found:
                return _Floats(argument), found.end()
        items: list[Any] = []
        while self._more(len(items), argument, at):
            item, at = self.item(at)
            items.append(item)
        return items, at + (argument < 0)

    def _map(self, _minor: int, argument: int, at: int) -> tuple[Any, int]:
        items: dict[Any, Any] = {}
        count = 0
        while self._more(count, argument, at):
            key, at = self.item(at)
            items[key], at = self.item(at)
            count += 1
        return items, at + (argument < 0)

    def _more(self, count: int, argument: int, at: int) -> bool:
        return count < argument if argument >= 0 else self._data[at] != BREAK

    def _tagged(self, _minor: int, _argument: int, at: int) -> tuple[Any, int]:
        return self.item(at)

    def _simple(self, _minor: int, argument: int, at: int) -> tuple[Any, int]:
        if argument < 0:
            raise ValueError("a break without a beginning")
        return None, at  # floating-point numbers and truth: of no interest here
