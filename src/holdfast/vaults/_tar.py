"""A tree as a pax tar stream that GNU tar and Python's tarfile read.

Only what an old tar header cannot say goes into a pax header before it: nanoseconds, long or
undecodable names, large numbers, extended attributes, and the maps of sparse files in the form
"GNU.sparse 1.0". Names are bytes, as the file system has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from holdfast.model.artifact import Chunk, Chunks, Entry, EntryKind, TreeItems

RECORD = 512
END = bytes(2 * RECORD)  # two empty records end an archive
XATTR = b"SCHILY.xattr."
LONGEST_HEADER = 1 << 20  # of what one entry needs beyond an old header; no reader takes more
MOST_OCTAL_7 = 0o7777777  # the largest user or group id that fits
MOST_OCTAL_11 = 0o77777777777  # the largest size or time
LONGEST_NAME = 100
LONGEST_OWNER = 32
SECOND = 1_000_000_000

TYPES = {
    EntryKind.FILE: b"0",
    EntryKind.HARDLINK: b"1",
    EntryKind.SYMLINK: b"2",
    EntryKind.FOLDER: b"5",
    EntryKind.FIFO: b"6",
}
_EXTENDED = b"x"


class TarWriter:
    """Writes one tree; what it counted is known when its pieces were read to the end."""

    def __init__(self, count: Callable[[int], None]) -> None:
        """Call ``count`` with each number of content bytes that were dealt with."""
        self._count = count
        self.content_size = 0
        self.entries = 0

    def pieces(self, items: TreeItems) -> Chunks:
        """Give the archive in pieces of any size.

        Raises ``ValueError`` if an entry's content is not as long as the entry says: the source has
        a bug, and the archive would be unreadable from there on.
        """
        for entry, chunks in items:
            self.entries += 1
            table = sparse_map(entry)
            yield headers(entry, len(table)) + table
            if entry.kind is EntryKind.FILE:
                yield from self._content(entry, chunks)
        yield END

    def _content(self, entry: Entry, chunks: Chunks) -> Iterable[Chunk]:
        size = entry.stored_size
        written = 0
        for chunk in chunks:
            written += len(chunk)
            if written > size:
                break
            yield chunk
            self._count(len(chunk))
        if written != size:
            problem = f"{entry.path} has not the {size} bytes of content that it announced"
            raise ValueError(problem)
        self.content_size += size
        if padding := -size % RECORD:
            yield bytes(padding)


def headers(entry: Entry, table_size: int = 0) -> bytes:
    """Return all that stands before the content of an entry, without the map of a sparse file."""
    name = os.fsencode(entry.path)
    records: list[tuple[bytes, bytes]] = []
    if entry.extents is not None and entry.kind is EntryKind.FILE:
        records += [
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % entry.size),
        ]
        name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2][: LONGEST_NAME - 16]
    elif entry.kind is EntryKind.FOLDER:
        name += b"/"
    size = entry.stored_size + table_size
    seconds, fraction = divmod(entry.mtime_ns, SECOND)
    fields = (
        _text(records, b"path", name, LONGEST_NAME),
        entry.mode & 0o7777,
        _number(records, b"uid", entry.uid, MOST_OCTAL_7),
        _number(records, b"gid", entry.gid, MOST_OCTAL_7),
        _number(records, b"size", size, MOST_OCTAL_11),
        _time(records, seconds, fraction),
        TYPES[entry.kind],
        _text(records, b"linkpath", os.fsencode(entry.target), LONGEST_NAME),
        _text(records, b"uname", os.fsencode(entry.owner), LONGEST_OWNER),
        _text(records, b"gname", os.fsencode(entry.group), LONGEST_OWNER),
    )
    for key, value in entry.xattrs.items():
        records.append((XATTR + _quoted(os.fsencode(key)), value))
    return (_extended(name, records) if records else b"") + _header(*fields)


def sparse_map(entry: Entry) -> bytes:
    """Return the map that precedes the data of a sparse file; nothing for any other entry.

    The map ends with an empty range where the file ends in a hole: GNU tar takes the size from it.
    """
    if entry.extents is None or entry.kind is not EntryKind.FILE:
        return b""
    extents = list(entry.extents)
    if not extents or sum(extents[-1]) < entry.size:
        extents.append((entry.size, 0))
    lines = [b"%d\n" % len(extents), *(b"%d\n%d\n" % extent for extent in extents)]
    table = b"".join(lines)
    return table + bytes(-len(table) % RECORD)


def _text(records: list[tuple[bytes, bytes]], key: bytes, value: bytes, room: int) -> bytes:
    if len(value) <= room:
        return value
    records.append((key, value))
    return value[:room]


def _number(records: list[tuple[bytes, bytes]], key: bytes, value: int, most: int) -> int:
    if value <= most:
        return value
    records.append((key, b"%d" % value))
    return 0


def _time(records: list[tuple[bytes, bytes]], seconds: int, fraction: int) -> int:
    """Return whole seconds for the header, and add a record for what they cannot express."""
    if fraction or not 0 <= seconds <= MOST_OCTAL_11:
        total = seconds * SECOND + fraction
        whole, rest = divmod(abs(total), SECOND)
        text = b"%s%d.%09d" % (b"-" if total < 0 else b"", whole, rest)
        records.append((b"mtime", text))
    return min(max(seconds, 0), MOST_OCTAL_11)


def _quoted(key: bytes) -> bytes:
    """Return the name of an attribute as GNU tar writes it in a record's key."""
    return key.replace(b"%", b"%25").replace(b"=", b"%3D")


def _extended(name: bytes, records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join([_record(key, value) for key, value in records])
    if len(body) > LONGEST_HEADER:
        problem = f"{os.fsdecode(name[:LONGEST_NAME])} needs a header of {len(body)} bytes"
        raise ValueError(problem)
    own = b"PaxHeaders/" + name.rstrip(b"/").rpartition(b"/")[2]
    header = _header(own[:LONGEST_NAME], 0o644, 0, 0, len(body), 0, _EXTENDED, b"", b"", b"")
    return header + body + bytes(-len(body) % RECORD)


def _record(key: bytes, value: bytes) -> bytes:
    """Return ``length key=value``, where the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _header(  # noqa: PLR0913, PLR0917 - the fields of a tar header, in their order
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes,
    owner: bytes,
    group: bytes,
) -> bytes:
    start = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"),
        mode,
        uid,
        gid,
        size,
        mtime,
    )
    end = b"%s%sustar\x0000%s%s%s" % (
        kind,
        link.ljust(100, b"\0"),
        owner.ljust(32, b"\0"),
        group.ljust(32, b"\0"),
        _TAIL,
    )
    checksum = sum(start) + sum(end) + 8 * 0x20  # the sum is taken with blanks in its own place
    return b"%s%06o\0 %s" % (start, checksum, end)


_TAIL = b"0000000\0" * 2 + bytes(155 + 12)
