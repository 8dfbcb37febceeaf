"""Where a sparse file has data, and where holes."""

from __future__ import annotations

import errno
import os

MOST_EXTENTS = 1 << 16  # the rest of a file with more is taken as data: the map stays small


def data_extents(fd: int, size: int) -> tuple[tuple[int, int], ...] | None:
    """Return the ranges (offset, length) with data; None where no hole is told of."""
    extents: list[tuple[int, int]] = []
    offset = 0
    while offset < size:
        start = _seek(fd, offset, os.SEEK_DATA, size)
        if start >= size:
            break
        end = size if len(extents) == MOST_EXTENTS - 1 else _seek(fd, start, os.SEEK_HOLE, size)
        extents.append((start, min(end, size) - start))
        offset = end
    return None if extents == [(0, size)] else tuple(extents)


def _seek(fd: int, offset: int, whence: int, size: int) -> int:
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data from here to the end
            return size
        if error.errno == errno.EINVAL:  # this file system does not tell: all of it is data
            return offset if whence == os.SEEK_DATA else size
        raise
