"""Reading a tar stream that may be damaged or hostile.

Nothing it says is believed: every number is checked before it is used, no header makes us hold
more than `LONGEST_HEADER` bytes, and a stream with more entries or more content than the manifest
records is given up. Paths that are absolute or go up by ``..`` are refused; where symbolic links
lead is the business of whoever writes the entries to a disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from holdfast.errors import UnsafeName
from holdfast.model.artifact import Chunk, Chunks, Entry, EntryKind, TreeItems
from holdfast.model.names import safe_path

from ._tar import LONGEST_HEADER, RECORD, SECOND, TYPES, XATTR

MOST_EXTENTS = 1 << 17
LONGEST_END = 1 << 20  # of the padding after the end mark; GNU tar writes 10 KiB at most
_LARGEST = (1 << 63) - 1

_KINDS = {kind: name for name, kind in TYPES.items()} | {
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
}
_REFUSED = {b"3": "a device", b"4": "a device", b"S": "a sparse file of the old GNU form"}
_LONG_NAMES = {b"L": b"path", b"K": b"linkpath"}  # how GNU tar's own format says them
_EXTENDED = {b"x", b"g", *_LONG_NAMES}
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]+))?")
_EMPTY = bytes(RECORD)
_NEGATIVE = 0xFF
_BINARY = {0x80, _NEGATIVE}


class TarDamagedError(ValueError):
    """The stream is not a whole tar archive."""


class TarUnsafeError(ValueError):
    """The stream holds something that must not be read on, or leads out of its folder."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


@dataclass(slots=True)
class _Header:
    """One header with the records that belong to it."""

    raw: bytes
    kind: bytes
    size: int
    records: dict[bytes, bytes] = field(default_factory=dict)


class TarReader:
    """Reads the entries of one stream, at most ``entries`` of them with ``content_size`` bytes."""

    def __init__(self, chunks: Iterable[Chunk], *, content_size: int, entries: int) -> None:
        self._input = _Input(chunks)
        self._content_left = content_size
        self._entries_left = entries

    def items(self) -> TreeItems:
        """Give the entries; their content must be taken before the next one is asked for.

        Raises:
            TarDamagedError: it is no tar archive, ends too early, or has less than was recorded.
            TarUnsafeError: it has more than was recorded, or something that is never unpacked.

        """
        while (header := self._next_header()) is not None:
            entry = self._entry(header)
            self._allow(entry)
            content = self._input.chunks(entry.stored_size)
            yield entry, content
            for _passed_over in content:
                pass
            self._input.skip(-header.size % RECORD)
        if self._entries_left or self._content_left:
            problem = "it has fewer entries or less content than the manifest records"
            raise TarDamagedError(problem)
        self._expect_nothing_more()

    def _allow(self, entry: Entry) -> None:
        self._entries_left -= 1
        self._content_left -= entry.stored_size
        if self._entries_left < 0:
            raise TarUnsafeError(entry.path, "it has more entries than the manifest records")
        if self._content_left < 0:
            raise TarUnsafeError(entry.path, "it has more content than the manifest records")

    def _next_header(self) -> _Header | None:
        """Return the next header of an entry, with what extended headers before it say."""
        records: dict[bytes, bytes] = {}
        seen: set[bytes] = set()
        while True:
            raw = self._input.take(RECORD)
            if raw == _EMPTY:
                self._end(records)
                return None
            kind = raw[156:157]
            size = _natural(_checked(raw), 124, 12)
            if kind not in _EXTENDED:
                if b"size" in records:
                    size = _decimal(records[b"size"])
                return _Header(raw, kind, size, records)
            if kind in seen:
                problem = "an entry has two headers of one kind"
                raise TarDamagedError(problem)
            seen.add(kind)
            if size > LONGEST_HEADER:
                raise TarUnsafeError("", f"it has a header of {size} bytes")
            body = self._input.take(size)
            self._input.skip(-size % RECORD)
            if kind == b"x":
                records |= _pax_records(body)
            elif kind in _LONG_NAMES:
                records[_LONG_NAMES[kind]] = body.rstrip(b"\0")

    def _end(self, records: Mapping[bytes, bytes]) -> None:
        if records or self._input.take(RECORD) != _EMPTY:
            problem = "its end mark is damaged"
            raise TarDamagedError(problem)

    def _expect_nothing_more(self) -> None:
        """Read to the very end, so that whoever sums up the stored bytes has seen all of them."""
        after = 0
        for chunk in self._input.rest():
            after += len(chunk)
            if after > LONGEST_END or any(chunk):
                raise TarUnsafeError("", "there is more after its end mark")

    def _entry(self, header: _Header) -> Entry:
        raw, records = header.raw, header.records
        kind = _KINDS.get(header.kind)
        path = _path(records.get(b"GNU.sparse.name") or records.get(b"path") or _old_path(raw))
        if kind is None:
            what = _REFUSED.get(header.kind, f"of an unknown kind, {header.kind!r}")
            raise TarUnsafeError(path, f"it is {what}")
        if kind is EntryKind.FILE and _old_path(raw).endswith(b"/") and b"path" not in records:
            kind = EntryKind.FOLDER  # as tar programs before 1988 said it
        if kind is not EntryKind.FILE and header.size:
            raise TarUnsafeError(path, "only files can have content")
        size, extents = self._sparse(header, path)
        return Entry(
            path=path,
            kind=kind,
            mode=_natural(raw, 100, 8) & 0o7777,
            mtime_ns=_mtime(raw, records),
            size=size,
            uid=_id(raw, records, b"uid", 108),
            gid=_id(raw, records, b"gid", 116),
            owner=os.fsdecode(records.get(b"uname", _until_nul(raw[265:297]))),
            group=os.fsdecode(records.get(b"gname", _until_nul(raw[297:329]))),
            target=_target(kind, records.get(b"linkpath", _until_nul(raw[157:257]))),
            extents=extents,
            xattrs=_xattrs(records),
        )

    def _sparse(self, header: _Header, path: str) -> tuple[int, tuple[tuple[int, int], ...] | None]:
        """Return an entry's size with its holes, and its map, which precedes the data."""
        records = header.records
        if not any(key.startswith(b"GNU.sparse.") for key in records):
            return header.size, None
        version = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
        if version != (b"1", b"0") or header.kind not in {b"0", b"\0"}:
            raise TarUnsafeError(path, "it is a sparse file of another form than GNU.sparse 1.0")
        size = _decimal(records.get(b"GNU.sparse.realsize", b""))
        extents, map_size = self._map()
        if map_size > header.size:
            raise TarUnsafeError(path, "its map is longer than itself")
        end = 0
        for start, length in extents:
            if start < end or start + length > size:
                raise TarUnsafeError(path, "its map of holes contradicts itself")
            end = start + length
        extents = tuple(extent for extent in extents if extent[1])
        if sum(length for _start, length in extents) != header.size - map_size:
            raise TarUnsafeError(path, "its map of holes does not fit its data")
        return size, extents

    def _map(self) -> tuple[tuple[tuple[int, int], ...], int]:
        """Read the decimal lines of a sparse map, which fill whole records."""
        numbers: list[int] = []
        size, wanted, begun = 0, 1, b""
        while len(numbers) < wanted:
            *lines, begun = (begun + self._input.take(RECORD)).split(b"\n")
            size += RECORD
            if lines and not numbers:
                numbers.append(_few(_decimal(lines.pop(0))))
                wanted += 2 * numbers[0]
            numbers += [_decimal(line) for line in lines[: wanted - len(numbers)]]
            if len(begun) > RECORD:
                problem = "the map of a sparse file is damaged"
                raise TarDamagedError(problem)
        pairs = iter(numbers[1:wanted])
        return tuple(zip(pairs, pairs, strict=True)), size


class _Input:
    """The stream, taken by lengths."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Return exactly ``size`` bytes; only for sizes that were checked."""
        part = self._part(size)
        if len(part) == size:
            return bytes(part)
        parts = [part]
        missing = size - len(part)
        while missing:
            part = self._part(missing)
            if not part:
                problem = "it ends too early"
                raise TarDamagedError(problem)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def chunks(self, size: int) -> Chunks:
        """Give the next ``size`` bytes without copying them."""
        while size:
            part = self._part(size)
            if not part:
                problem = "it ends too early"
                raise TarDamagedError(problem)
            size -= len(part)
            yield part

    def skip(self, size: int) -> None:
        for _part in self.chunks(size):
            pass

    def rest(self) -> Chunks:
        if self._rest:
            yield self._rest
        yield from self._chunks

    def _part(self, size: int) -> memoryview:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk)
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def _checked(raw: bytes) -> bytes:
    """Return a header whose own checksum holds."""
    stated = _natural(raw, 148, 8)
    if stated != sum(raw) - sum(raw[148:156]) + 8 * 0x20:
        problem = "a header is damaged"
        raise TarDamagedError(problem)
    return raw


def _natural(raw: bytes, start: int, length: int) -> int:
    value = _whole(raw, start, length)
    if value < 0:
        problem = "a number in a header is negative"
        raise TarDamagedError(problem)
    return value


def _whole(raw: bytes, start: int, length: int) -> int:
    """Return a number of a header: octal, or binary as GNU tar writes what has no room so."""
    text = raw[start : start + length]
    if text[0] in _BINARY:
        return _bounded(int.from_bytes(text[1:], "big", signed=text[0] == _NEGATIVE))
    found = _OCTAL.fullmatch(text)
    if found is None:
        problem = "a number in a header is damaged"
        raise TarDamagedError(problem)
    return int(found[1] or b"0", 8)


def _few(extents: int) -> int:
    if extents > MOST_EXTENTS:
        raise TarUnsafeError("", f"it has a map of {extents} extents")
    return extents


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        problem = "a number in a header is damaged"
        raise TarDamagedError(problem)
    return _bounded(int(text))


def _bounded(value: int) -> int:
    if abs(value) > _LARGEST:
        problem = "a number in a header is out of range"
        raise TarDamagedError(problem)
    return value


def _id(raw: bytes, records: Mapping[bytes, bytes], key: bytes, start: int) -> int:
    return _decimal(records[key]) if key in records else _natural(raw, start, 8)


def _mtime(raw: bytes, records: Mapping[bytes, bytes]) -> int:
    if b"mtime" not in records:
        return _whole(raw, 136, 12) * SECOND
    found = _TIME.fullmatch(records[b"mtime"])
    if found is None:
        problem = "a time in a header is damaged"
        raise TarDamagedError(problem)
    fraction = (found[3] or b"").ljust(9, b"0")[:9]
    total = int(found[2]) * SECOND + int(fraction)
    return -total if found[1] else total


def _old_path(raw: bytes) -> bytes:
    """Return the path as the plain header says it; a POSIX header may have it in two parts."""
    name, prefix = _until_nul(raw[:100]), _until_nul(raw[345:500])
    if prefix and raw[257:263] == b"ustar\0":
        return prefix + b"/" + name
    return name


def _path(raw: bytes) -> str:
    """Return a path as entries have it: relative, without ``./`` before or ``/`` after it."""
    path = os.fsdecode(raw)
    while path.startswith("./"):
        path = path[2:]
    path = path.rstrip("/") if raw != b"/" else path
    if path in {"", "."} and raw:
        return "."
    return _safe(path)


def _target(kind: EntryKind, raw: bytes) -> str:
    if kind is EntryKind.HARDLINK:
        return _path(raw)
    if kind is not EntryKind.SYMLINK:
        return ""
    if not raw or b"\0" in raw:
        raise TarUnsafeError(os.fsdecode(raw), "a symbolic link points nowhere")
    return os.fsdecode(raw)


def _safe(path: str) -> str:
    try:
        return safe_path(path, "path")
    except UnsafeName as error:
        raise TarUnsafeError(path, "it leads out of its folder") from error


def _until_nul(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _pax_records(body: bytes) -> dict[bytes, bytes]:
    """Return the records of an extended header: ``length key=value`` and a newline, each."""
    records = {}
    offset = 0
    while offset < len(body):
        blank = body.find(b" ", offset, offset + 20)
        end = offset + _decimal(body[offset:blank]) if blank > offset else 0
        key, equals, value = body[blank + 1 : end - 1].partition(b"=")
        if not blank < end <= len(body) or body[end - 1 : end] != b"\n" or not (key and equals):
            problem = "an extended header is damaged"
            raise TarDamagedError(problem)
        records[key] = value
        offset = end
    return records


def _xattrs(records: Mapping[bytes, bytes]) -> dict[str, bytes]:
    return {
        os.fsdecode(_unquoted(key[len(XATTR) :])): value
        for key, value in records.items()
        if key.startswith(XATTR)
    }


def _unquoted(key: bytes) -> bytes:
    return key.replace(b"%3D", b"=").replace(b"%25", b"%")
