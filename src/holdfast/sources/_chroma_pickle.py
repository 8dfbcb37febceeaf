"""Reading Chroma's ``index_metadata.pickle`` as a stream, without ever executing it.

A pickle is a program that may call anything; this reader knows the few instructions that build
numbers, strings and dictionaries of them, and refuses every other. It keeps nothing but the
instruction at hand, so that a map of millions of ids costs no memory.

The file is a dictionary: ``total_elements_added``, ``id_to_label`` and its reverse ``label_to_id``,
and some values that are not needed here.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 20
LONGEST = 1 << 24  # bytes of one string; Chroma's ids are far shorter

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
_RECALL = {0x68, 0x6A, 0x67}  # using a remembered value
_CALLS = {0x63, 0x93, 0x52, 0x62, 0x81, 0x92, 0x69, 0x6F, 0x82, 0x83, 0x84, 0x50, 0x51}

FOREIGN = "it was written by a Chroma before 1.0, and not since"

_WORD = struct.Struct("<I")
_INTEGER = struct.Struct("<i")


class PickleRefused(ValueError):
    """The file is damaged, or is not what Chroma writes."""


class PickleForeign(PickleRefused):
    """The file is a pickle, but was written by Python: by a Chroma before 1.0."""


def read_index_metadata(path: Path) -> Iterator[Item]:
    """Give ``("", key, value)`` for plain values and ``(dictionary, key, value)`` for the others.

    Raises:
        PickleForeign: it was written by a Chroma before 1.0.
        PickleRefused: it is cut off, damaged, or contains anything but plain values.

    """
    with path.open("rb") as file:
        reader = _Reader(file)
        try:
            yield from reader.items()
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            problem = f"it is cut off or damaged near byte {reader.position}"
            raise PickleRefused(problem) from error


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

    def items(self) -> Iterator[Item]:
        """Walk the outer dictionary."""
        if self._code() != _PROTO:
            raise PickleRefused("it does not begin like a pickle")
        if self._take(1)[0] > _PROTOCOL:
            raise PickleForeign(FOREIGN)
        self._expect(_DICTIONARY)
        if self._code() == _MARK:
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
        if code in _CALLS or code in _RECALL:
            return PickleForeign(FOREIGN)
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
