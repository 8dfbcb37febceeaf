"""Filling large files: several threads at once, and past the system's cache where that is known.

What goes through the cache is copied into fresh memory first, which on a busy or a virtual machine
takes longer than to decrypt it, and what other programs had there is thrown out for it. Straight
to the disk (``O_DIRECT``, open(2)) goes what begins and ends with a block of the file, in memory
and on the disk; a block that two stretches have parts of is put together first.
"""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holdfast.model.artifact import Chunk, Stretch

from ._sync import begin_writing

BLOCK = 4096  # bytes; a multiple of what almost every disk and file system asks for
_ROOM = 4 << 20  # bytes that most stretches take


class LargeFile:
    """A file that threads give its content, each a stretch at a time."""

    def __init__(self, fd: int, straight: int | None, rooms: Rooms) -> None:
        """Fill ``fd``; ``straight``, which is the same file opened so, goes past the cache."""
        self.fd = fd
        self._straight = straight
        self._rooms = rooms
        self._lock = threading.Lock()
        self._blocks: dict[int, _Block] = {}  # by their numbers; as many as stretches are begun

    def take(self, stretch: Stretch) -> None:
        """Write a stretch. Raises ``OSError``, and whatever reading it raises."""
        shift = stretch.offset % BLOCK  # so that blocks lie in memory as they do in the file
        with self._rooms.lent(BLOCK + shift + stretch.size) as room:
            data = room[BLOCK + shift : BLOCK + shift + stretch.size]
            stretch.fill(data)
            if self._straight is None:
                write_at(self.fd, data, stretch.offset)
                begin_writing(self.fd)
            else:
                self._write_blocks(self._straight, data, stretch.offset, room[:BLOCK])

    def _write_blocks(
        self, straight: int, data: memoryview, offset: int, block: memoryview
    ) -> None:
        """Write the blocks that lie in ``data``, and with memory for one those it completes."""
        begin = min(-offset % BLOCK, len(data))
        end = begin + (len(data) - begin) // BLOCK * BLOCK
        self._write_straight(straight, data[begin:end], offset + begin)
        for part, at in ((data[:begin], offset), (data[end:], offset + end)):
            if part and self._completes(part, at, block):
                self._write_straight(straight, block, at // BLOCK * BLOCK)

    def _completes(self, part: memoryview, at: int, whole: memoryview) -> bool:
        """Keep a part of a block until the others have come; the last one makes it ``whole``.

        To write each where it belongs would lock the file, against everybody who writes straight.
        """
        with self._lock:
            block = self._blocks.setdefault(at // BLOCK, _Block())
            block.data[at % BLOCK : at % BLOCK + len(part)] = part
            block.filled += len(part)
            if block.filled < BLOCK:
                return False
            del self._blocks[at // BLOCK]
            whole[:] = block.data
            return True

    def _write_straight(self, straight: int, data: memoryview, offset: int) -> None:
        try:
            write_at(straight, data, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Its blocks are larger than we know of, or a write was cut short within one.
            write_at(self.fd, data, offset)

    def finish(self) -> None:
        """Write the block that the file ends in."""
        for number, block in self._blocks.items():
            write_at(self.fd, memoryview(block.data)[: block.filled], number * BLOCK)

    def close(self) -> None:
        """Close it."""
        if self._straight is not None:
            os.close(self._straight)
        os.close(self.fd)


class _Block:
    """A block of which the parts come one after the other."""

    def __init__(self) -> None:
        self.data = bytearray(BLOCK)
        self.filled = 0  # bytes


class Rooms:
    """Memory for stretches, used again. All begins with a page, as disks ask for."""

    def __init__(self) -> None:
        self._idle: list[memoryview] = []

    @contextmanager
    def lent(self, size: int) -> Iterator[memoryview]:
        """Give memory of at least this size, for one thread."""
        room = self._idle.pop() if self._idle else memoryview(b"")
        if len(room) < size:
            room = memoryview(mmap.mmap(-1, max(size, _ROOM + 2 * BLOCK)))
        yield room
        self._idle.append(room)


def open_straight(name: str, folder: int, *, size: int) -> int | None:
    """Open a file that was just created, to be written past the cache; None: it cannot be.

    The file gets its ``size`` and its room on the disk at once: threads would wait for each other
    where each write adds to it.
    """
    with suppress(OSError):
        flags = os.O_WRONLY | os.O_DIRECT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=folder)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.close(fd)
            raise
        return fd
    return None


def write_at(fd: int, data: Chunk, offset: int) -> None:
    """Write all of the data. Raises ``OSError``."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
