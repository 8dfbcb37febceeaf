"""Holding a live database still without changing it. Runs in a process of its own.

Three ways, by what is found:

* someone has its write-ahead log in use: a read transaction keeps the snapshot, and its bytes are
  given from the file and the log (`_sqlite_wal`) while writers go on;
* it uses a rollback journal: it is copied under a reader's lock, and writers wait only for that;
* nobody has it open, but it has a log or needs one, or a crash left a journal: SQLite would create
  or change files beside it. So it is copied with its log or journal, and the copy is recovered.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from typing import NamedTuple

from . import _sqlite_locks as locks
from ._sqlite_format import HEADER_SIZE, INDEX, JOURNAL, WAL, Header, parse_header
from ._sqlite_open import (
    Refused,
    connect,
    copy_file,
    open_regular,
    open_still,
    recover,
    size_of,
)
from ._sqlite_wal import Snapshot, read_index, take_snapshot

LARGEST_LOG = 16384  # frames to lay over the file one by one; SQLite copies what has more
SNAPSHOT_TRIES = 500
SETTLED = 0.05  # seconds; file systems tell times apart only this well


class Moved(Exception):
    """The database changed in a way that calls for another way to hold it."""


class Held(NamedTuple):
    """A database that is held still, or the copy of one."""

    connection: sqlite3.Connection  # reads exactly the state that is held
    uses_wal: bool
    instant: float  # seconds since 1970
    copy: str  # path of the whole content in the workspace; empty: it is to be streamed
    snapshot: Snapshot | None = None
    untouched: Marks | None = None  # what must not have changed when the reader is done


class Marks(NamedTuple):
    """What tells whether a database was changed by anyone."""

    files: tuple[tuple[int, int, int, int] | None, ...]
    attended: bool


class Database:
    """A live database: descriptors of its files, never closed, and ways to hold it."""

    def __init__(self, path: str, workspace: str, timeout: float) -> None:
        """Open the file without locking it; ``workspace`` is where copies may be made.

        Raises:
            Refused: there is none, it cannot be read, or it is no database.

        """
        self.path = path
        self.workspace = workspace
        self.timeout = timeout
        self._deadline = time.monotonic() + timeout
        self.file = open_regular(path)
        self._opened: dict[str, int] = {}

    def hold(self, *, copying: bool) -> Held:
        """Hold the database still; ``copying`` in such a way that its bytes can be had."""
        while True:
            try:
                return self._hold(copying=copying)
            except Moved as moved:
                # A lock kept over the next try would make a writer wait for us who makes us wait.
                locks.let_go(self.file)
                if time.monotonic() > self._deadline:
                    raise Refused("unstable", str(moved)) from moved
                time.sleep(locks.PAUSE)

    def _hold(self, *, copying: bool) -> Held:
        header = self.header()
        if header is None:
            return self._hold_journal(copying=copying)
        if not (header.uses_wal or size_of(self.path + WAL)):
            return self._hold_journal(copying=copying)
        # With a reader's lock in our hands nobody can be the last to leave and remove the log.
        if not locks.share(self.file, self._left()):
            raise Refused("locked", "")
        index_file = self._companion(INDEX)
        if index_file is not None and locks.attended(index_file):
            return self._hold_log(copying=copying)
        return self._hold_idle(WAL, copying=copying)

    def header(self) -> Header | None:
        """Return what the header says; None for a database that is still empty.

        Raises:
            Refused: it is no database.

        """
        data = os.pread(self.file, HEADER_SIZE, 0)
        header = parse_header(data)
        if header is None and data:
            raise Refused("unfit", "it does not begin as one; it may be encrypted")
        return header

    def lockers(self) -> list[int]:
        """Return the processes that hold locks on it."""
        return locks.lockers(self.file, self._companion(INDEX))

    def unchanged(self, held: Held) -> bool:
        """Tell whether what was read from ``held`` can be trusted, now that it was read."""
        if held.untouched is not None:
            return held.untouched == self._marks(WAL)
        return bool(held.copy) or held.connection.in_transaction or held.snapshot is None

    # --- a log in use ---

    def _hold_log(self, *, copying: bool) -> Held:
        connection = connect(self.path, "mode=ro", self._left())
        if not copying:
            self._read(connection)
            return Held(connection, uses_wal=True, instant=time.time(), copy="")
        try:
            snapshot, instant = self._log_snapshot(connection)
        except Moved:
            connection.close()
            raise
        if snapshot is not None:
            return Held(connection, uses_wal=True, instant=instant, copy="", snapshot=snapshot)
        copy = self._back_up(connection)
        connection.close()
        return Held(open_still(copy), uses_wal=True, instant=instant, copy=copy)

    def _log_snapshot(self, connection: sqlite3.Connection) -> tuple[Snapshot | None, float]:
        """Begin to read, and find out at which commit. None: SQLite must make the copy."""
        self._read(connection)
        log, index_file = self._companion(WAL), self._companion(INDEX)
        for _try in range(SNAPSHOT_TRIES):
            index = None if index_file is None else read_index(index_file)
            instant = time.time()
            connection.execute("BEGIN")
            self._read(connection)
            if log is None or index_file is None or not self._same_files():
                raise Moved("its log was replaced")
            if index is not None and read_index(index_file) == index:
                break
            connection.execute("ROLLBACK")
        else:
            # Commits come faster than we can look: hold any of them, and have SQLite read it.
            connection.execute("BEGIN")
            self._read(connection)
            return None, time.time()
        if index.frames > LARGEST_LOG:
            return None, instant
        if index.page_size == 0:  # nothing was written since the log was opened
            header = self.header()
            index = index._replace(page_size=header.page_size if header else 512)
        size = os.fstat(self.file).st_size
        return take_snapshot(self.file, size, log, index_file, index), instant

    def _read(self, connection: sqlite3.Connection) -> None:
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()

    def _same_files(self) -> bool:
        """Tell whether the names still lead to the files that we have open."""
        opened = {"": self.file, **self._opened}
        for suffix, descriptor in opened.items():
            try:
                named = os.stat(self.path + suffix)  # noqa: PTH116 - a plain string
            except FileNotFoundError:
                return False
            if not os.path.samestat(named, os.fstat(descriptor)):
                return False
        return True

    def _back_up(self, connection: sqlite3.Connection) -> str:
        """Have SQLite copy what the transaction of ``connection`` sees."""
        copy = self._copy_path()
        target = sqlite3.connect(copy, isolation_level=None)
        try:
            target.execute("PRAGMA journal_mode = OFF")
            target.execute("PRAGMA synchronous = OFF")
            connection.backup(target, pages=-1)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}:
                raise Refused("full", str(error), copy) from error
            raise
        finally:
            target.close()
        for suffix in (WAL, INDEX, JOURNAL):
            with suppress(FileNotFoundError):
                os.unlink(copy + suffix)  # noqa: PTH108 - a plain string
        return copy

    # --- a rollback journal ---

    def _hold_journal(self, *, copying: bool) -> Held:
        connection = connect(self.path, "mode=ro", self._left())
        try:
            connection.execute("BEGIN")
            self._read(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            if _needs_recovery(error) and size_of(self.path + JOURNAL):
                return self._hold_idle(JOURNAL, copying=copying)
            raise
        instant = time.time()
        header = self.header()
        if (header and header.uses_wal) or not self._same_files():
            connection.close()
            raise Moved("its journal mode was changed")
        if not copying:
            connection.execute("ROLLBACK")
            return Held(connection, uses_wal=False, instant=instant, copy="")
        copy = self._copy_path()
        copy_file(self.file, copy)
        connection.close()
        return Held(open_still(copy), uses_wal=False, instant=instant, copy=copy)

    # --- nobody at home ---

    def _hold_idle(self, companion: str, *, copying: bool) -> Held:
        """Hold a database that nobody has open. ``companion`` is what a crash may have left."""
        if not locks.share(self.file, self._left()):
            raise Refused("locked", "")
        before = self._settled_marks(companion)
        if before.attended or not self._same_files():
            raise Moved("it was opened just now")
        instant = time.time()
        left = size_of(self.path + companion)
        if companion == JOURNAL and not left:
            raise Moved("its journal is gone")
        if not copying and not left:
            # The lock keeps the file, `untouched` proves it, and there is no log to be missed.
            still = open_still(self.path)
            return Held(still, uses_wal=True, instant=instant, copy="", untouched=before)
        copy = self._copy_path()
        copy_file(self.file, copy)
        if left:
            copy_file(open_regular(self.path + companion), copy + companion)
        if self._marks(companion) != before:
            for suffix in ("", companion):
                with suppress(FileNotFoundError):
                    os.unlink(copy + suffix)  # noqa: PTH108 - a plain string
            raise Moved("it was written to while it was copied")
        locks.let_go(self.file)
        if left:
            recover(copy)
        return Held(open_still(copy), uses_wal=companion == WAL, instant=instant, copy=copy)

    def _settled_marks(self, companion: str) -> Marks:
        """Return the marks once the file's times are old enough to show a further change."""
        marks = self._marks(companion)
        newest = max((mark[3] for mark in marks.files if mark), default=0)
        wait = newest / 1e9 + SETTLED - time.time()
        if 0 < wait <= SETTLED:
            time.sleep(wait)
            marks = self._marks(companion)
        return marks

    def _marks(self, companion: str) -> Marks:
        files = tuple(_mark(self.path + suffix) for suffix in ("", companion))
        index_file = self._companion(INDEX) if companion == WAL else None
        busy = index_file is not None and locks.attended(index_file)
        return Marks(files, busy or locks.reserved(self.file))

    # --- means ---

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _companion(self, suffix: str) -> int | None:
        """Return a descriptor of a file beside the database; a new one if it was replaced."""
        try:
            named = os.stat(self.path + suffix)  # noqa: PTH116 - a plain string
        except FileNotFoundError:
            return None
        known = self._opened.get(suffix)
        if known is None or not os.path.samestat(named, os.fstat(known)):
            self._opened[suffix] = open_regular(self.path + suffix)
        return self._opened[suffix]

    def _copy_path(self) -> str:
        return os.path.join(self.workspace, "database")  # noqa: PTH118 - a plain string


def _needs_recovery(error: sqlite3.Error) -> bool:
    primary = error.sqlite_errorcode & 0xFF
    return primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


def _mark(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a plain string
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
