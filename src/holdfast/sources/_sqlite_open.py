"""Opening, copying and recovering database files, as the process that holds one does it."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat

from ._sqlite_format import JOURNAL, WAL
from ._sqlite_wal import write_all

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Refused(Exception):
    """The database cannot be held. ``kind`` says which row of the error table this is."""

    def __init__(self, kind: str, reason: str, path: str = "") -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.path = path


def open_regular(path: str) -> int:
    """Open a file for reading; it is never closed (see `_sqlite_locks`).

    Raises:
        Refused: it is not there, or is no file.

    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Refused("missing", str(error), path) from error
    except OSError as error:
        raise Refused("unreadable", error.strerror or str(error), path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise Refused("unfit", "it is not a file", path)
    return descriptor


def connect(path: str, how: str, timeout: float) -> sqlite3.Connection:
    """Open a database by its URI, for reading only, without transactions of Python's own making."""
    connection = sqlite3.connect(
        f"file:%{os.fsencode(path).hex('%')}?{how}",  # each byte as a URI may have any
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def open_still(path: str) -> sqlite3.Connection:
    """Open a file that nobody changes, leaving nothing beside it."""
    return connect(path, "mode=ro&immutable=1", 0)


def recover(path: str) -> None:
    """Have SQLite apply the log or journal beside a copy, as the application would have done."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.close()
    for suffix in (WAL, JOURNAL):
        if size_of(path + suffix):
            left = os.path.basename(path + suffix)  # noqa: PTH119 - a plain string
            raise Refused("corrupt", f"what the crash left in {left} is in the way")


def copy_file(source: int, target: str) -> None:
    """Copy a whole file as fast as it goes: plain reads and writes of 1 MiB."""
    try:
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(_kind_of_write(error), error.strerror or str(error), target) from error
    buffer = bytearray(1 << 20)
    position = 0
    try:
        while count := os.preadv(source, [buffer], position):
            position += count
            try:
                write_all(out, memoryview(buffer)[:count])
            except OSError as error:
                raise Refused(_kind_of_write(error), error.strerror or "", target) from error
    finally:
        os.close(out)


def _kind_of_write(error: OSError) -> str:
    return "full" if error.errno in FULL else "unwritable"


def size_of(path: str) -> int:
    """Return the size of a file; 0 if there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - a plain string
    except FileNotFoundError:
        return 0
