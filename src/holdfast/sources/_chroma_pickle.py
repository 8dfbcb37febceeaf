"""Reading Chroma's ``index_metadata.pickle`` as a stream, without ever executing it.

A pickle is a program that may call anything; this reader knows the few instructions that build
numbers, strings and dictionaries of them, and refuses every other. It keeps nothing but the
instruction at hand, so that a map of millions of ids costs no memory.

The file is a dictionary: ``total_elements_added``, ``id_to_label`` and its reverse ``label_to_id``,
and some values that are not needed here. Until an index grows again it may still be the file of a
Chroma before 1.0, an object of Python's with the same values; that one is read whole, if it is
small enough, by an unpickler that knows no other name.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20
LONGEST = 1 << 24  # bytes of one string; Chroma's ids are far shorter
LARGEST_OLD = 16 << 20  # bytes of an old file: some 230,000 ids, and 110 MB of memory
OLD = ("chromadb.segment.impl.vector.local_persistent_hnsw", "PersistentData")

Value = int | str | bool | float | None
Item = tuple[str, Value, Value]

_PROTO, _STOP, _MARK = 0x80, 0x2E, 0x28
_DICTIONARY, _ITEMS = 0x7D, 0x75
_PROTOCOL = 3  # what Chroma writes since 1.0; Python writes 4 or 5
_PUT = {0x71: 1, 0x72: 4, 0x94: 0}  # remembering a value for later: bytes to pass over
_CONSTANTS: dict[int, Value] = {0x4E: None, 0x88: True, 0x89: False}
_NUMBERS = {
    0x4A: struct.Struct("<i"),
    0x4B: struct.Struct("<B"),
    0x4D: struct.Struct("<H"),
    0x47: struct.Struct(">d"),
}
_STRINGS = {0x58: struct.Struct("<I"), 0x8C: struct.Struct("<B"), 0x8D: struct.Struct("<Q")}
_LONG = 0x8A

_WORD = struct.Struct("<I")
_INTEGER = struct.Struct("<i")


class PickleRefused(ValueError):
    """The file is damaged, or is not what Chroma writes."""


def read_index_metadata(path: Path) -> Iterator[Item]:
    """Give ``("", key, value)`` for plain values and ``(dictionary, key, value)`` for the others.

    Raises:
        PickleRefused: it is cut off, damaged, or contains anything but plain values.

    """
    with path.open("rb") as file:
        reader = _Reader(file)
        try:
            if reader.protocol() > _PROTOCOL:
                file.seek(0)
                yield from _items_of_old(file)
            else:
                yield from reader.items()
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            problem = f"it is cut off or damaged near byte {reader.position}"
            raise PickleRefused(problem) from error


def _items_of_old(file: BinaryIO) -> Iterator[Item]:
    size = file.seek(0, 2)
    if size > LARGEST_OLD:
        problem = (
            f"it was written by a Chroma before 1.0 and has {size} bytes, too many to be read;"
            " Chroma rewrites it when as many vectors were added as its sync_threshold says"
        )
        raise PickleRefused(problem)
    file.seek(0)
    try:
        found = _OldUnpickler(file).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as e:
        problem = f"it is no index of Chroma's: {e}"
        raise PickleRefused(problem) from e
    content = vars(found) if isinstance(found, _Old) else found
    if not isinstance(content, dict):
        raise PickleRefused("it is no index of Chroma's")
    for name, value in content.items():
        if isinstance(value, dict):
            yield from ((name, key, each) for key, each in value.items())
        else:
            yield "", name, value


class _Old:
    """Stands for the object of Chroma's that held the maps; it can do nothing."""


class _OldUnpickler(pickle.Unpickler):
    """Knows one name, and gives a class for it that does nothing."""

    def find_class(self, module_name: str, global_name: str) -> type[_Old]:
        if (module_name, global_name) != OLD:
            problem = f"it names {module_name}.{global_name}"
            raise pickle.UnpicklingError(problem)
        return _Old


class _Reader:
    """The instructions of one file, one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = b""
        self._at = 0
        self._before = 0  # bytes of the file before ``_data``

    @property
    def position(self) -> int:
        return self._before + self._at

    def protocol(self) -> int:
        """Read how it begins, and return the version of the format."""
        if self._code() != _PROTO:
            raise PickleRefused("it does not begin like a pickle")
        return self._take(1)[0]

    def items(self) -> Iterator[Item]:
        """Walk the outer dictionary."""
        self._expect(_DICTIONARY)
        self._expect(_MARK)
        code = self._code()
        while code != _ITEMS:
            key = self._value(code)
            if not isinstance(key, str):
                raise self._refused(code)
            code = self._code()
            if code == _DICTIONARY:
                code = yield from self._inner(key)
            else:
                yield "", key, self._value(code)
                code = self._code()
        self._expect(_STOP)

    def _inner(self, name: str) -> Generator[Item, None, int]:
        """Walk one inner dictionary, and return the first instruction after it."""
        while (code := self._code()) == _MARK:
            yield from self._pairs(name)
        return code

    def _pairs(self, name: str) -> Iterator[Item]:
        """Walk the pairs up to the end of a batch; this is where the time goes.

        The two forms that Chroma writes, a string with a 4-byte number and the reverse, are read
        in place; whatever else comes is read step by step.
        """
        while True:
            self._fill(64)
            data, at = self._data, self._at
            end = len(data) - 16
            while at < end:
                code = data[at]
                if code == 0x58:  # noqa: PLR2004 - a string, then a number
                    stop = at + 5 + _WORD.unpack_from(data, at + 1)[0]
                    if stop > end or data[stop] != 0x4A:  # noqa: PLR2004
                        break
                    yield (
                        name,
                        data[at + 5 : stop].decode(),
                        _INTEGER.unpack_from(data, stop + 1)[0],
                    )
                    at = stop + 5
                elif code == 0x4A and data[at + 5] == 0x58:  # noqa: PLR2004 - a number, then a string
                    stop = at + 10 + _WORD.unpack_from(data, at + 6)[0]
                    if stop > end:
                        break
                    yield name, _INTEGER.unpack_from(data, at + 1)[0], data[at + 10 : stop].decode()
                    at = stop
                else:
                    break
            self._at = at
            code = self._code()
            if code == _ITEMS:
                return
            key = self._value(code)
            yield name, key, self._value(self._code())

    def _code(self) -> int:
        while True:
            code = self._take(1)[0]
            if code in _PUT:
                self._take(_PUT[code])
            else:
                return code

    def _value(self, code: int) -> Value:
        if code in _STRINGS:
            size = _STRINGS[code]
            return self._take(size.unpack(self._take(size.size))[0]).decode()
        if code in _NUMBERS:
            number = _NUMBERS[code]
            value: Value = number.unpack(self._take(number.size))[0]
            return value
        if code == _LONG:
            return int.from_bytes(self._take(self._take(1)[0]), "little", signed=True)
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        raise self._refused(code)

    def _expect(self, wanted: int) -> None:
        code = self._code()
        if code != wanted:
            raise self._refused(code)

    def _refused(self, code: int) -> PickleRefused:
        return PickleRefused(
            f"byte {self.position - 1} holds {code:#04x}, which Chroma never writes"
        )

    def _take(self, count: int) -> bytes:
        if count > LONGEST:
            raise PickleRefused(f"a string of {count} bytes is claimed at byte {self.position}")
        self._fill(count)
        data = self._data[self._at : self._at + count]
        if len(data) < count:
            raise PickleRefused(f"it ends after {self.position + len(data)} bytes, too early")
        self._at += count
        return data

    def _fill(self, count: int) -> None:
        """Have the next ``count`` bytes in memory, if there are so many."""
        if len(self._data) - self._at >= count:
            return
        rest = self._data[self._at :]
        self._before += self._at
        self._data = rest + self._file.read(max(BLOCK, count))
        self._at = 0
