"""SQLite's own locks on a database file, taken and looked at without SQLite.

Only for the process that does nothing else with the file: POSIX locks belong to a process, and
closing any descriptor of a file drops all that its process holds on it. What is opened here is
therefore never closed; the process ends soon.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from ._sqlite_format import ATTENDANCE_BYTE, PENDING_BYTE, RESERVED_BYTE, SHARED_FIRST, SHARED_SIZE

_FLOCK = "hhqqi0q"  # struct flock of Linux
PAUSE = 0.02  # seconds between two tries


def share(file: int, timeout: float) -> bool:
    """Take the lock of a reader as SQLite does, giving way to a waiting writer; False: no luck."""
    deadline = time.monotonic() + timeout
    while not _share(file):
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)
    return True


def _share(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, PENDING_BYTE)
    except (BlockingIOError, PermissionError):
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, SHARED_SIZE, SHARED_FIRST)
    except (BlockingIOError, PermissionError):
        return False
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, PENDING_BYTE)
    return True


def let_go(file: int) -> None:
    """Give the reader's lock back."""
    fcntl.lockf(file, fcntl.LOCK_UN, SHARED_SIZE, SHARED_FIRST)


def attended(index_file: int) -> bool:
    """Tell whether another process has the index of a write-ahead log in use."""
    return _holder(index_file, ATTENDANCE_BYTE, 1) != 0


def reserved(file: int) -> bool:
    """Tell whether another process is about to write."""
    return _holder(file, RESERVED_BYTE, 1) != 0


def lockers(file: int, index_file: int | None) -> list[int]:
    """Return the processes that hold any lock on a database, one for each kind of lock."""
    found = {_holder(file, PENDING_BYTE, 2 + SHARED_SIZE)}
    if index_file is not None:
        found.add(_holder(index_file, 0, ATTENDANCE_BYTE + 1))
    return sorted(found - {0})


def _holder(file: int, start: int, length: int) -> int:
    """Return which other process would stand in the way of an exclusive lock; 0: none."""
    question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _whence, _start, _length, process = struct.unpack(
        _FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question)
    )
    return 0 if kind == fcntl.F_UNLCK else process or -1
