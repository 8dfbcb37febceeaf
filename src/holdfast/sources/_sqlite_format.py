"""What is known of the file format of SQLite: header, write-ahead log, its index, lock bytes.

From https://www.sqlite.org/fileformat2.html and https://www.sqlite.org/walformat.html. Pure: it
takes bytes and gives values, and opens nothing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"SQLite format 3\0"
HEADER_SIZE = 100

WAL = "-wal"
INDEX = "-shm"
JOURNAL = "-journal"
COMPANIONS = (WAL, INDEX, JOURNAL)

# Bytes of the database file that SQLite puts its locks on; nothing is ever stored on this page.
PENDING_BYTE = 0x40000000
RESERVED_BYTE = PENDING_BYTE + 1
SHARED_FIRST = PENDING_BYTE + 2
SHARED_SIZE = 510

# The byte of the index that everyone who has it open holds a lock on.
ATTENDANCE_BYTE = 128

WAL_HEADER_SIZE = 32
FRAME_HEADER_SIZE = 24
INDEX_SIZE = 96  # the header twice
_WAL_MAGIC = 0x377F0682  # its last bit says that checksums are big-endian
_INDEX_VERSION = 3007000
_MASK = 0xFFFFFFFF


class Header(NamedTuple):
    """What the first bytes of a database file say."""

    page_size: int
    uses_wal: bool


class Index(NamedTuple):
    """The header of a write-ahead log's index: the state after the newest commit."""

    change: int
    frames: int  # committed ones in the log
    pages: int  # of the database after the commit; 0: as many as the file has
    page_size: int
    checksum: tuple[int, int]  # of the last committed frame
    salt: bytes


class Frame(NamedTuple):
    """The header of one frame of a write-ahead log."""

    page: int
    pages: int  # of the database after the commit that this frame ends; 0: it ends none
    salt: bytes
    checksum: tuple[int, int]


def parse_header(data: bytes) -> Header | None:
    """Return what the first bytes say, or None if they are not those of a database."""
    if len(data) < HEADER_SIZE or data[:16] != MAGIC:
        return None
    size = int.from_bytes(data[16:18], "big")
    size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1):  # noqa: PLR2004 - the format's least page size
        return None
    return Header(size, data[18] == 2 or data[19] == 2)  # noqa: PLR2004 - 2 means a log


def parse_index(data: bytes) -> Index | None:
    """Return the index header, or None while it is being changed or cannot be understood."""
    first, second = data[:48], data[48:INDEX_SIZE]
    if len(data) < INDEX_SIZE or first != second:
        return None
    version, _unused, change, ready, _big, page_size, frames, pages = struct.unpack_from(
        "=IIIBBHII", first
    )
    checksum = struct.unpack_from("=II", first, 24)
    if version != _INDEX_VERSION or ready != 1:
        return None
    if struct.unpack_from("=II", first, 40) != add_checksum(first[:40], (0, 0), _NATIVE):
        return None
    size = (page_size & 0xFE00) + ((page_size & 1) << 16)
    return Index(change, frames, pages, size, checksum, first[32:40])


def wal_byte_order(header: bytes) -> str | None:
    """Return the byte order of a log's checksums, or None if this is no such log."""
    if len(header) < WAL_HEADER_SIZE:
        return None
    magic = int.from_bytes(header[:4], "big")
    if magic & ~1 != _WAL_MAGIC:
        return None
    return ">" if magic & 1 else "<"


def wal_header_checksum(header: bytes) -> tuple[int, int]:
    """Return the checksum that a log's header carries, which the first frame's goes on from."""
    return struct.unpack_from(">II", header, 24)


def parse_frame(data: bytes) -> Frame:
    """Return the header of a frame."""
    page, pages = struct.unpack_from(">II", data)
    return Frame(page, pages, data[8:16], struct.unpack_from(">II", data, 16))


def frame_checksum(
    header: bytes, content: bytes, before: tuple[int, int], order: str
) -> tuple[int, int]:
    """Return the checksum of a frame that follows one with the checksum ``before``."""
    return add_checksum(content, add_checksum(header[:8], before, order), order)


def add_checksum(data: bytes, before: tuple[int, int], order: str) -> tuple[int, int]:
    """Go on with a checksum over ``data``, whose length is a multiple of eight."""
    first, second = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for odd, even in zip(words, words, strict=True):
        first = (first + odd + second) & _MASK
        second = (second + even + first) & _MASK
    return first, second


_NATIVE = "<" if struct.pack("=H", 1) == b"\1\0" else ">"
