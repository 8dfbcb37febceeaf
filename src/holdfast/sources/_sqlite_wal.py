"""Reading the content of one snapshot from a database file and its write-ahead log.

While a read transaction is held, a checkpoint may copy frames of our snapshot, and only those, into
the database file, and the log is not started over. So the file with the newest committed frame of
each page laid over it is exactly the snapshot, however torn the pages beneath are: a page that may
be changing is never read from the file.

One case is different. A snapshot taken when the log was wholly in the file already does not need
the log; another program may then start it over, but nobody may write to the file. Frames of another
generation (told by their salt) therefore mean that the file alone is the snapshot.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ._sqlite_format import (
    FRAME_HEADER_SIZE,
    INDEX_SIZE,
    PENDING_BYTE,
    WAL_HEADER_SIZE,
    Frame,
    Index,
    frame_checksum,
    parse_frame,
    parse_index,
    wal_byte_order,
    wal_header_checksum,
)

STEP = 1 << 20


class Damaged(Exception):
    """The log or the file is not as its writer left it."""


class Restarted(Exception):
    """The log was started over: everything our snapshot needs is in the file."""


class Log:
    """The committed frames of one snapshot in a write-ahead log."""

    def __init__(self, log: int, index_file: int, index: Index) -> None:
        """Take descriptors of the log and its index, and the index header of the snapshot."""
        self._log = log
        self._index_file = index_file
        self._index = index
        self._frame_size = FRAME_HEADER_SIZE + index.page_size

    def pages(self) -> dict[int, int]:
        """Return the newest committed frame of each page, as page → frame, both from 1."""
        newest: dict[int, int] = {}
        frame = None
        for number in range(1, self._index.frames + 1):
            frame = self._frame(number)
            newest[frame.page] = number
        if frame is not None and (frame.checksum, frame.pages) != (
            self._index.checksum,
            self._index.pages,
        ):
            raise self._judged(f"frame {self._index.frames} of the log is not the one committed")
        return newest

    def content(self, number: int) -> bytes:
        """Return the page in a frame, after checking it against the frame's checksum."""
        data = os.pread(self._log, self._frame_size, self._offset(number))
        if len(data) < self._frame_size:
            raise self._judged(f"the log ends within frame {number}")
        header, page = data[:FRAME_HEADER_SIZE], data[FRAME_HEADER_SIZE:]
        order, before = self._before(number)
        found = frame_checksum(header, page, before, order)
        if found != parse_frame(header).checksum or header[8:16] != self._index.salt:
            raise self._judged(f"frame {number} of the log does not have its checksum")
        return page

    def _before(self, number: int) -> tuple[str, tuple[int, int]]:
        header = os.pread(self._log, WAL_HEADER_SIZE, 0)
        order = wal_byte_order(header)
        if order is None:
            raise self._judged("the log's header is not one")
        if number == 1:
            return order, wal_header_checksum(header)
        return order, self._frame(number - 1).checksum

    def _frame(self, number: int) -> Frame:
        data = os.pread(self._log, FRAME_HEADER_SIZE, self._offset(number))
        if len(data) < FRAME_HEADER_SIZE:
            raise self._judged(f"the log ends before frame {number}")
        frame = parse_frame(data)
        if frame.salt != self._index.salt:
            raise self._judged(f"frame {number} of the log belongs to another time")
        return frame

    def _offset(self, number: int) -> int:
        return WAL_HEADER_SIZE + (number - 1) * self._frame_size

    def _judged(self, reason: str) -> Exception:
        """Tell a log that was started over, as its index says first, from a damaged one."""
        now = read_index(self._index_file)
        if now is None or now.salt != self._index.salt:
            return Restarted()
        return Damaged(reason)


class Snapshot(NamedTuple):
    """Where the bytes of a snapshot are."""

    file: int  # descriptor of the database file
    size: int  # bytes
    page_size: int
    log: Log | None
    overlay: Sequence[tuple[int, int]]  # page and frame, in the order of pages


def take_snapshot(file: int, file_size: int, log: int, index_file: int, index: Index) -> Snapshot:
    """Find out which pages of the snapshot that ``index`` describes are in the log."""
    size = index.pages * index.page_size or file_size - file_size % index.page_size
    if index.frames == 0:
        return Snapshot(file, size, index.page_size, None, ())
    frames = Log(log, index_file, index)
    try:
        newest = frames.pages()
    except Restarted:
        return Snapshot(file, size, index.page_size, None, ())
    overlay = sorted(item for item in newest.items() if item[0] <= index.pages)
    return Snapshot(file, size, index.page_size, frames, overlay)


def read_index(index_file: int) -> Index | None:
    """Return the index header as it is now; None if it never stands still for a moment."""
    for _attempt in range(1000):
        if index := parse_index(os.pread(index_file, INDEX_SIZE, 0)):
            return index
    return None


def send(snapshot: Snapshot, out: int) -> None:
    """Write the whole snapshot to a pipe.

    Raises:
        Damaged: a page cannot be given; what was written so far is then too short.

    """
    position = 0
    for page, frame in snapshot.overlay:
        start = (page - 1) * snapshot.page_size
        send_range(snapshot, out, position, start)
        position = start + snapshot.page_size
        try:
            content = snapshot.log.content(frame) if snapshot.log else b""
        except Restarted:
            send_range(snapshot, out, start, position)
        else:
            write_all(out, content)
    send_range(snapshot, out, position, snapshot.size)


def send_range(snapshot: Snapshot, out: int, position: int, end: int) -> None:
    """Write a range of the database file to a pipe, without copying it where the kernel can."""
    move: Callable[[int, int, int, int], int] = _splice
    while position < end:
        try:
            moved = move(snapshot.file, out, min(end - position, STEP), position)
        except OSError as error:
            if move is _copy or error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                raise
            move = _copy
            continue
        if moved == 0:
            moved = _beyond_the_end(snapshot, out, position, end)
        position += moved


def _splice(file: int, out: int, count: int, position: int) -> int:
    return os.splice(file, out, count, offset_src=position)


def _copy(file: int, out: int, count: int, position: int) -> int:
    data = os.pread(file, count, position)
    write_all(out, data)
    return len(data)


def _beyond_the_end(snapshot: Snapshot, out: int, position: int, end: int) -> int:
    """Give the page that SQLite locks on, the only one that need not exist, as zeros."""
    start = PENDING_BYTE - PENDING_BYTE % snapshot.page_size
    if not start <= position < start + snapshot.page_size:
        raise Damaged(f"the file ends before page {position // snapshot.page_size + 1}")
    count = min(start + snapshot.page_size, end) - position
    write_all(out, bytes(count))
    return count


def write_all(out: int, data: bytes | memoryview) -> None:
    """Write all of ``data``, in as many parts as it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(out, view) :]
