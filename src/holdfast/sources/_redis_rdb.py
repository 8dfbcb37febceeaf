"""Reading an RDB file from end to end: its structure, its counts and its checksum.

The format is that of ``rdb.h`` and ``rdb.c`` of Redis up to version 12 (Redis 8.0), and of Valkey 9
(version 80). Values are stepped over, not built: what they hold is proved by the checksum. Memory
is bounded by one chunk and the longest key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from holdfast.model.artifact import Chunk

from ._redis_crc import crc64
from ._redis_lzf import expanded

NEWEST = 12
VALKEY = 80  # of Valkey 9, whose files begin with VALKEY080
_MAGIC, _MAGIC_VALKEY = b"REDIS", b"VALKEY"

SLOT_INFO, FUNCTION2, MODULE_AUX, IDLE, FREQ, AUX = 244, 245, 247, 248, 249, 250
RESIZEDB, EXPIRETIME_MS, EXPIRETIME, SELECTDB, EOF = 251, 252, 253, 254, 255
_OPCODES = 243  # numbers from here on are no types of values
_MORE = -1  # no record at all: what was noted is to be given first
_NOTED = 1000  # items noted before they are given

# Types of values by what follows the key. A positive number is so many bytes.
_STRING, _LENGTH = -1, -2
_ONE_STRING = frozenset({0, 9, 10, 11, 12, 13, 16, 17, 20, 23})
# What comes first, and what then comes as many times as a length says.
_LISTS: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    1: ((), (_STRING,)),  # list
    2: ((), (_STRING,)),  # set
    4: ((), (_STRING, _STRING)),  # hash
    5: ((), (_STRING, 8)),  # sorted set
    14: ((), (_STRING,)),  # list of ziplists
    18: ((), (_LENGTH, _STRING)),  # list of listpacks
    22: ((), (_LENGTH, _STRING, _STRING)),  # hash whose fields expire, of Redis 7.4 in the making
    24: ((8,), (_LENGTH, _STRING, _STRING)),  # the same as it was released
}
_VALKEY_HASH, _VALKEY_FIELD = 22, (_STRING, _STRING, 8)
_OLD_ZSET, _MODULE_2, _HASH_LISTPACK_EX = 3, 7, 25
_STREAMS = {15: 1, 19: 2, 21: 3}  # by the version of their layout

_MODULE_NUMBERS = frozenset({1, 2})
_MODULE_SIZES = {3: 4, 4: 8}
_MODULE_STRING = 5
_MODULE_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

_MARGIN = 192  # bytes within which one short key and the lengths of its value lie
_LONGEST_NAME = 1 << 26  # bytes of a string that is read and not stepped over
_LONGEST_HEAD = 19  # bytes before the content of a string


class RdbDamaged(Exception):
    """It is not a whole RDB file; says what is wrong and where."""


class RdbTooNew(Exception):
    """It has a version or a type that is not known here."""


@dataclass(slots=True)
class Summary:
    """What an RDB file holds. ``modules`` are the names of the modules whose data is in it."""

    version: int = 0
    keys: Counter[int] = field(default_factory=Counter)
    expiring: Counter[int] = field(default_factory=Counter)
    functions: int = 0
    modules: set[str] = field(default_factory=set)
    aux: dict[str, str] = field(default_factory=dict)
    size: int = 0
    checksummed: bool = True  # False: the server was told to write none


@dataclass(frozen=True, slots=True)
class Item:
    """A key, or a library of functions; ``start`` to ``end`` is where its value lies."""

    kind: int
    start: int
    end: int
    database: int = 0
    key: bytes = b""
    expires: int | None = None  # milliseconds since 1970


def read_rdb(chunks: Iterator[Chunk]) -> Summary:
    """Read a file to its end, compare its checksum and return what it holds.

    Raises:
        RdbDamaged: it is cut short, does not add up, or is something else.
        RdbTooNew: a later server wrote it.

    """
    reader = _Reader(chunks, listing=False)
    for _item in reader.read():  # gives none
        pass
    return reader.found


def rdb_items(chunks: Iterator[Chunk]) -> Iterator[Item]:
    """Give every library and every key of a file, and raise at its end as `read_rdb` does."""
    return _Reader(chunks, listing=True).read()


class _Reader:
    def __init__(self, chunks: Iterator[Chunk], *, listing: bool) -> None:
        """With ``listing`` the names and places of keys are noted, which takes longer."""
        self._chunks = chunks
        self._listing = listing
        self._items: list[Item] = []
        self._data = b""
        self._pos = 0  # may lie beyond the data, after a string that is stepped over
        self._base = 0  # offset of the data in the file
        self._crc = 0
        self._database = 0
        self._expires: int | None = None
        self.found = Summary()

    @property
    def size(self) -> int:
        """How many bytes came so far."""
        return self._base + len(self._data)

    def read(self) -> Iterator[Item]:
        """Read everything, and give what was noted."""
        try:
            self._head()
            while (kind := self._walk()) != EOF:
                if kind != _MORE:
                    self._special(kind)
                yield from self._items
                self._items.clear()
            yield from self._items
            self._end()
        except IndexError:
            raise RdbDamaged(f"it ends in the middle, at byte {self.size}") from None

    def _head(self) -> None:
        magic = self._take(9)
        for name, least, newest in ((_MAGIC, 1, NEWEST), (_MAGIC_VALKEY, VALKEY, VALKEY)):
            digits = magic.removeprefix(name)
            if digits != magic and digits.isdigit():
                self.found.version = int(digits)
                if not least <= self.found.version <= newest:
                    raise RdbTooNew(f"RDB version {self.found.version}")
                return
        raise RdbDamaged("it does not begin as an RDB file does")

    def _end(self) -> None:
        """Compare the checksum, which covers everything up to itself."""
        self._forget()
        self._need(8)
        if len(self._data) < 8:  # noqa: PLR2004 - the bytes of a CRC-64
            raise IndexError
        sworn = int.from_bytes(self._data[:8], "little")
        self._pos = 8
        self._need(1)
        if len(self._data) > self._pos:
            raise RdbDamaged(f"something follows its end, at byte {self._base + self._pos}")
        self.found.checksummed = sworn != 0
        if sworn and sworn != self._crc:
            raise RdbDamaged("its checksum differs")
        self.found.size = self.size

    # --- records ---

    def _walk(self) -> int:
        """Step over keys and their values until something else comes; returns what that is.

        One string under a short key is what most keys are: those are handled here, in one place
        without a call for each, which halves the time for a million keys.
        """
        keys, listing = 0, self._listing
        data, pos = self._data, self._pos
        limit = len(data) - _MARGIN
        while True:
            if pos >= limit:
                self._pos = pos
                self._need(_MARGIN)
                data, pos = self._data, self._pos
                limit = len(data) - _MARGIN
            kind = data[pos]
            if kind == EXPIRETIME_MS:
                self._expires = int.from_bytes(data[pos + 1 : pos + 9], "little")
                self.found.expiring[self._database] += 1
                pos += 9
                continue
            if kind in _ONE_STRING and not listing:
                keys += 1
                first = data[pos + 1]
                if first < 0x40:  # noqa: PLR2004 - six bits of length
                    pos += first + 2
                    first = data[pos]
                    if first < 0x40:  # noqa: PLR2004 - again
                        pos += first + 1
                        continue
                    strings = 1
                else:
                    pos += 1
                    strings = 2
                self._pos = pos
                self._skip_strings(strings)
            else:
                self._pos = pos + 1
                if kind >= _OPCODES:
                    self.found.keys[self._database] += keys
                    return kind
                keys += 1
                self._key(kind)
                if len(self._items) >= _NOTED:
                    self.found.keys[self._database] += keys
                    return _MORE
            data, pos = self._data, self._pos
            limit = len(data) - _MARGIN

    def _key(self, kind: int) -> None:
        if not self._listing:
            self._skip_strings(1)
            self._value(kind)
            return
        key = self._string()
        start = self._offset
        self._value(kind)
        self._items.append(Item(kind, start, self._offset, self._database, key, self._expires))
        self._expires = None

    def _special(self, kind: int) -> None:
        if kind == SELECTDB:
            self._database = self._length()
        elif kind == RESIZEDB:
            self._lengths(2)
        elif kind == AUX:
            name, value = self._string(), self._string()
            self.found.aux[_text(name)] = _text(value)
        elif kind == EXPIRETIME:
            self._expires = 1000 * int.from_bytes(self._take(4), "little")
            self.found.expiring[self._database] += 1
        elif kind == FREQ:
            self._skip(1)
        elif kind == IDLE:
            self._length()
        elif kind == SLOT_INFO:
            self._lengths(3)
        elif kind == FUNCTION2:
            self._function()
        elif kind == MODULE_AUX:
            self._module()
        else:
            raise RdbTooNew(f"record {kind} at byte {self._offset - 1}")

    def _function(self) -> None:
        start = self._offset
        self._skip_strings(1)
        self.found.functions += 1
        if self._listing:
            self._items.append(Item(FUNCTION2, start, self._offset))

    # --- values ---

    def _value(self, kind: int) -> None:
        if kind in _ONE_STRING:
            self._skip_strings(1)
        elif kind == _VALKEY_HASH and self.found.version == VALKEY:
            self._times(_VALKEY_FIELD)
        elif kind in _LISTS:
            first, each = _LISTS[kind]
            self._parts(first)
            self._times(each)
        elif kind in _STREAMS:
            self._stream(_STREAMS[kind])
        elif kind == _HASH_LISTPACK_EX:
            self._parts((8, _STRING))
        elif kind == _MODULE_2:
            self._module()
        elif kind == _OLD_ZSET:
            self._old_scores()
        else:
            raise RdbTooNew(f"type {kind} at byte {self._offset}")

    def _times(self, each: tuple[int, ...]) -> None:
        count = self._length()
        if set(each) == {_STRING}:
            self._skip_strings(count * len(each))
            return
        for _turn in range(count):
            self._parts(each)

    def _parts(self, parts: tuple[int, ...]) -> None:
        for part in parts:
            if part == _STRING:
                self._skip_strings(1)
            elif part == _LENGTH:
                self._length()
            else:
                self._skip(part)

    def _old_scores(self) -> None:
        for _turn in range(self._length()):
            self._skip_strings(1)
            length = self._byte()
            if length < 253:  # noqa: PLR2004 - above it are NaN and the infinities, without text
                self._skip(length)

    def _stream(self, layout: int) -> None:
        self._times((_STRING, _STRING))
        self._lengths(3 if layout == 1 else 8)
        for _group in range(self._length()):
            self._skip_strings(1)
            self._lengths(2 if layout == 1 else 3)
            self._times((24, _LENGTH))  # delivered, and not acknowledged
            for _consumer in range(self._length()):
                self._skip_strings(1)
                self._skip(16 if layout == max(_STREAMS.values()) else 8)
                self._skip(16 * self._length())

    def _module(self) -> None:
        """Step over what a module wrote: numbers and strings, each after what it is, up to a 0."""
        self.found.modules.add(module_name(self._length()))
        while kind := self._length():
            if kind in _MODULE_NUMBERS:
                self._length()
            elif kind in _MODULE_SIZES:
                self._skip(_MODULE_SIZES[kind])
            elif kind == _MODULE_STRING:
                self._skip_strings(1)
            else:
                raise RdbDamaged(f"a module's data does not add up at byte {self._offset}")

    # --- bytes ---

    @property
    def _offset(self) -> int:
        return self._base + self._pos

    def _need(self, count: int) -> None:
        """Have so many bytes ahead, or all that are left if these are fewer."""
        while len(self._data) - self._pos < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                if self._pos > len(self._data):
                    raise IndexError
                return
            self._forget()
            self._data += chunk

    def _forget(self) -> None:
        """Drop what was read, after adding it to the checksum."""
        done = min(self._pos, len(self._data))
        self._crc = crc64(memoryview(self._data)[:done], self._crc)
        self._data = self._data[done:]
        self._base += done
        self._pos -= done

    def _skip(self, count: int) -> None:
        self._pos += count
        if self._pos > len(self._data):
            self._need(0)

    def _take(self, count: int) -> bytes:
        if count > _LONGEST_NAME:
            raise RdbDamaged(f"a name of {count} bytes at byte {self._offset}")
        self._need(count)
        taken = self._data[self._pos : self._pos + count]
        if len(taken) < count:
            raise IndexError
        self._pos += count
        return taken

    def _byte(self) -> int:
        return self._take(1)[0]

    def _lengths(self, count: int) -> None:
        for _turn in range(count):
            self._length()

    def _length(self) -> int:
        first = self._byte()
        if first < 0x40:  # noqa: PLR2004 - six bits
            return first
        if first < 0x80:  # noqa: PLR2004 - fourteen bits
            return (first & 0x3F) << 8 | self._byte()
        if first in {0x80, 0x81}:
            return int.from_bytes(self._take(4 if first == 0x80 else 8), "big")  # noqa: PLR2004
        raise RdbDamaged(f"there is no length at byte {self._offset - 1}")

    def _skip_strings(self, count: int) -> None:
        for _turn in range(count):
            pos = self._pos
            if len(self._data) - pos < _LONGEST_HEAD:
                self._need(_LONGEST_HEAD)
                pos = self._pos
            first = self._data[pos]
            if first < 0x40:  # noqa: PLR2004 - six bits
                self._pos = pos + 1 + first
            elif first < 0x80:  # noqa: PLR2004 - fourteen bits
                self._pos = pos + 2 + ((first & 0x3F) << 8 | self._data[pos + 1])
            elif first < 0xC0:  # noqa: PLR2004 - a longer length
                length = self._length()
                self._pos += length
            else:
                self._skip_encoded(first)
            if self._pos > len(self._data):
                self._need(0)

    def _skip_encoded(self, first: int) -> None:
        self._pos += 1
        if first == 0xC3:  # noqa: PLR2004 - compressed: its size, and the size it had before
            size = self._length()
            self._length()
            self._pos += size
        elif first in {0xC0, 0xC1, 0xC2}:
            self._pos += 1 << (first & 3)
        else:
            raise RdbDamaged(f"there is no string at byte {self._offset - 1}")

    def _string(self) -> bytes:
        first = self._byte()
        if first in {0xC0, 0xC1, 0xC2}:
            number = int.from_bytes(self._take(1 << (first & 3)), "little", signed=True)
            return str(number).encode()
        if first == 0xC3:  # noqa: PLR2004 - compressed
            size, before = self._length(), self._length()
            try:
                return expanded(self._take(size), before)
            except ValueError as error:
                raise RdbDamaged(f"{error}, before byte {self._offset}") from None
        self._pos -= 1
        return self._take(self._length())


def module_name(identity: int) -> str:
    """Return the nine letters of a module's type, which are all but the last ten of its bits."""
    letters = (identity >> (10 + 6 * place) & 0x3F for place in range(8, -1, -1))
    return "".join(_MODULE_LETTERS[letter] for letter in letters)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
