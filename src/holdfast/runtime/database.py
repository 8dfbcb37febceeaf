"""The catalog's file: opened by many processes at once, migrated by one, safe against kill -9.

Statements have names and live in ``catalog.sql``; the schema grows by the numbered files of
``migrations/``. One connection serves all threads, one at a time: statements take microseconds.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import CatalogUnusable, NoSpace
from .files import FILE_MODE, lock_file, private_folder, sync_folder, writing

FILE_NAME = "catalog.db"
REBUILT = "catalog.rebuilt.db"  # a new catalog, complete, that is to take the place of the other
APPLICATION = 0x486F6C64  # "Hold", in the file's header: that it is ours
PATIENCE = 10.0  # seconds to wait for another process's transaction
_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)

Values = Mapping[str, str | int | float | bytes | None]


@cache
def statements() -> Mapping[str, str]:
    """Return the statements of ``catalog.sql`` by their names."""
    text = resources.files(__package__).joinpath("catalog.sql").read_text("utf-8")
    parts = _NAME.split(text)[1:]
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}


@cache
def migrations() -> tuple[str, ...]:
    """Return the migrations in order; the schema's version is how many of them were applied."""
    folder = resources.files(__package__).joinpath("migrations")
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return tuple(folder.joinpath(name).read_text("utf-8") for name in names)


class Database:
    """A catalog file, open. Usable from several threads."""

    def __init__(self, path: Path, scripts: Sequence[str] | None = None) -> None:
        """Open the catalog at ``path``, making it or bringing it up to date where needed.

        Raises:
            CatalogUnusable: it is damaged, not a catalog, or of a later version.
            StateUnwritable: its folder does not let us.

        """
        self.path = path
        self._scripts = migrations() if scripts is None else scripts
        self._lock = threading.RLock()
        private_folder(path.parent)
        self._connection = self._open()
        self._identity = self._identify()

    def close(self) -> None:
        """Let the file go. May be called twice."""
        with self._lock, self._translated():
            self._connection.close()

    def rows(self, name: str, values: Values | None = None) -> list[dict[str, Any]]:
        """Return every row that a reading statement gives."""
        with self._lock, self._translated():
            return self._current().execute(statements()[name], values or {}).fetchall()

    def change(self, name: str, values: Values) -> int:
        """Run a changing statement within `transaction`; returns how many rows it changed."""
        with self._translated():
            return self._connection.execute(statements()[name], values).rowcount

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Make one change: all of it or nothing, and nobody else's in between.

        Every change survives the death of the process. Only a ``durable`` one is sure to survive
        the death of the machine as well: that costs a sync of the disk, and what manifests and
        journals would tell anyway is not worth it.
        """
        with self._lock, self._translated():
            connection = self._current()
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                with suppress(
                    sqlite3.Error
                ):  # a full disk has rolled it back; the first error tells
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

    def fold(self) -> None:
        """Write everything into the one file, durably, before that is moved."""
        with self._lock, self._translated():
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def problems(self) -> list[str]:
        """Read the whole file, and return what SQLite finds wrong with it, one line each."""
        with self._lock, self._translated():
            found = [str(*row.values()) for row in self._connection.execute("PRAGMA quick_check")]
        return [] if found == ["ok"] else found

    def _current(self) -> sqlite3.Connection:
        """Return the connection; a new one if another process has put a rebuilt catalog here."""
        if not self._connection.in_transaction and self._identify() != self._identity:
            self._connection.close()
            self._connection = self._open()
            self._identity = self._identify()
        return self._connection

    def _identify(self) -> tuple[int, int]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return (0, 0)
        return status.st_dev, status.st_ino

    def _open(self) -> sqlite3.Connection:
        put_in_place(self.path)
        if not self.path.exists():
            self._prepare()
        connection = self._connect()
        try:
            with self._translated():
                if self._version(connection) == len(self._scripts):
                    return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        self._prepare()
        return self._connect()

    def _connect(self) -> sqlite3.Connection:
        with self._translated():
            connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        connection.row_factory = _as_map
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the schema's version; raises unless the file is a catalog that we can read."""
        application, version, objects = _header(connection)
        if objects and application != APPLICATION:
            raise CatalogUnusable(path=self.path, reason="it is the database of another program")
        if version > len(self._scripts):
            reason = f"its schema is {version}; this version of Holdfast knows {len(self._scripts)}"
            raise CatalogUnusable(path=self.path, reason=reason)
        return version

    def _prepare(self) -> None:
        """Make the catalog, or migrate it: one process at a time, the others wait and find it done.

        A lock of our own is needed: SQLite does not wait when two connections turn the same new
        file to write-ahead logging.
        """
        with lock_file(self.path.with_name("catalog.lock")):
            # Only where there is none: closing a second handle of a file that SQLite has open in
            # this process would take SQLite's locks away.
            if not self.path.exists():
                with writing(self.path):
                    self.path.touch(FILE_MODE)
            with closing(self._connect()) as connection, self._translated():
                version = self._version(connection)
                connection.execute("PRAGMA journal_mode = WAL")
                for number, script in enumerate(self._scripts[version:], version + 1):
                    _apply(connection, number, script)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a bug of ours, and reported as one
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
                raise NoSpace(path=self.path) from error
            raise CatalogUnusable(path=self.path, reason=_reason(error)) from error


def put_in_place(path: Path) -> None:
    """Finish what `rebuild` began, if it had come so far: the rebuilt catalog becomes the catalog.

    Whatever was here is kept aside already; the log of the old one must not be taken for the new's.
    """
    rebuilt = path.with_name(REBUILT)
    if path.name != FILE_NAME or not rebuilt.exists():
        return
    with lock_file(path.with_name("catalog.lock")), writing(path):
        if rebuilt.exists():
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            rebuilt.replace(path)
            sync_folder(path.parent)


def _header(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return whose the file is, its schema's version and how many objects that has.

    In one transaction: another process may be migrating the file this very moment.
    """
    connection.execute("BEGIN")
    try:
        application = connection.execute("PRAGMA application_id").fetchone()["application_id"]
        version = connection.execute("PRAGMA user_version").fetchone()["user_version"]
        objects = connection.execute("SELECT count(*) AS n FROM sqlite_master").fetchone()["n"]
    finally:
        connection.execute("ROLLBACK")
    return application, version, objects


def _apply(connection: sqlite3.Connection, number: int, script: str) -> None:
    """Apply one migration, whole or not at all, even under kill -9."""
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}\n; PRAGMA application_id = {APPLICATION};"
            f"PRAGMA user_version = {number}; COMMIT;"
        )
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _reason(error: sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return f"it stayed locked for {PATIENCE:g} s"
    return str(error)


def _as_map(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}
