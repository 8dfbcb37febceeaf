"""What a restore of a bucket will do and has begun: a small database in the restore's workspace.

It is written before the bucket is touched, and every step of the restore follows from it, so that
another process can undo them. Only the thread that opened it uses it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from holdfast.s3.xml import Listed

FILE = "plan.db"
TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- What is to be there. Its content is staged under its number, unless it is there already (0);
-- where only what describes it differed, that is a copy of what is there (2).
CREATE TABLE wanted (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL, staged INTEGER NOT NULL DEFAULT 0);
-- What keys were once, in order. Those of keys that have a history of their own are not staged.
CREATE TABLE versions (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL, size INTEGER NOT NULL,
    deleted INTEGER NOT NULL, staged INTEGER NOT NULL DEFAULT 0);
CREATE TABLE history (key BLOB PRIMARY KEY) WITHOUT ROWID;
-- What was there when the restore was filled, when it was switched, and when it is put back.
CREATE TABLE filled (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, etag, size, changed);
CREATE TABLE before (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, etag, size, changed);
CREATE TABLE now (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, etag, size, changed);
"""
SAME = "a.etag IS b.etag AND a.size IS b.size AND a.changed IS b.changed"
REPLACED = """
SELECT b.number, b.key, b.size, b.etag FROM before b LEFT JOIN wanted w ON w.key = b.key
WHERE w.staged > 0 OR (w.key IS NULL AND :remove_extra)
"""


class State(StrEnum):
    """How far a restore is."""

    FILLING = "filling"
    FILLED = "filled"
    KEEPING = "keeping"  # what will be replaced is being copied aside; nothing live was touched
    SWITCHING = "switching"  # live objects are being overwritten and removed
    SWITCHED = "switched"
    REVERTED = "reverted"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class Step:
    """One object that something is done to."""

    number: int
    key: str
    size: int
    etag: str = ""
    deleted: bool = False


class Plan:
    """The plan of one restore. Used as a context, which leaves the file."""

    def __init__(self, folder: Path) -> None:
        """Open the plan that `begin` made in the folder."""
        self._database = sqlite3.connect(folder / FILE, isolation_level=None)
        self._database.execute("PRAGMA synchronous = FULL")

    @classmethod
    def begin(cls, folder: Path, facts: dict[str, str]) -> Plan:
        """Make an empty plan in place of any that is there; durable when this returns."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = folder / f"{FILE}.new"
        for path in (folder / FILE, folder / f"{FILE}-journal", new):
            path.unlink(missing_ok=True)
        database = sqlite3.connect(new, isolation_level=None)
        try:
            database.executescript(f"BEGIN; {TABLES}")
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            database.execute("COMMIT")
        finally:
            database.close()
        new.rename(folder / FILE)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return cls(folder)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Tell whether a plan was begun there."""
        return (folder / FILE).exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Make all the changes inside durable on leaving, or none of them."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    # --- facts ---

    @property
    def state(self) -> State:
        """How far the restore is."""
        return State(self.fact("state"))

    @state.setter
    def state(self, state: State) -> None:
        self.note("state", state)

    def fact(self, name: str) -> str:
        """Return one fact; empty where it was never noted."""
        row = self._row("SELECT value FROM facts WHERE name = ?", name)
        return str(row[0]) if row else ""

    def note(self, name: str, value: str) -> None:
        """Write down one fact."""
        self._database.execute("REPLACE INTO facts VALUES (?, ?)", (name, value))

    # --- filling ---

    def write_list(self, table: str, items: Iterable[Listed]) -> None:
        """Write down what is there, in `filled`, `before` or `now`, in place of an older list."""
        with self.changing():
            self._database.execute(f"DELETE FROM {table}")  # noqa: S608 - one of three names
            self._database.executemany(
                f"INSERT OR REPLACE INTO {table} (key, etag, size, changed)"  # noqa: S608
                " VALUES (?, ?, ?, ?)",
                ((_data(one.key), one.etag, one.size, one.changed) for one in items),
            )

    def remember(self, keys: Iterable[str]) -> None:
        """Write down which keys have a history of their own in the bucket."""
        with self.changing():
            self._database.executemany(
                "INSERT OR IGNORE INTO history VALUES (?)", ((_data(key),) for key in keys)
            )

    def has_history(self, key: str) -> bool:
        """Tell whether a key has, or had, anything in the bucket."""
        return self._row("SELECT 1 FROM history WHERE key = ?", _data(key)) is not None

    def there(self, key: str) -> Listed | None:
        """Return what is there under a key while the restore is filled."""
        row = self._row("SELECT etag, size, changed FROM filled WHERE key = ?", _data(key))
        return Listed(key, etag=row[0], size=row[1], changed=row[2]) if row else None

    def want(self, key: str, size: int) -> int | None:
        """Say that an object is to be there; returns its number, or None if it comes twice."""
        added = self._database.execute(
            "INSERT OR IGNORE INTO wanted (key, size) VALUES (?, ?)", (_data(key), size)
        )
        return added.lastrowid if added.rowcount else None

    def want_version(self, key: str, size: int, *, deleted: bool) -> int:
        """Say that a key had this content once; returns the number of the version."""
        added = self._database.execute(
            "INSERT INTO versions (key, size, deleted) VALUES (?, ?, ?)",
            (_data(key), size, deleted),
        )
        return int(added.lastrowid or 0)

    def staged(self, table: str, number: int, *, dressed: bool = False) -> None:
        """Say that a number of `wanted` or `versions` is staged.

        ``dressed`` says that its content is that of the live object: their entity tags are equal.
        """
        self._database.execute(
            f"UPDATE {table} SET staged = ? WHERE number = ?",  # noqa: S608 - one of two names
            (2 if dressed else 1, number),
        )

    # --- what follows ---

    def counts(self) -> dict[str, int]:
        """Return how much will be there: objects, bytes and versions."""
        objects, size = self._row("SELECT count(*), coalesce(sum(size), 0) FROM wanted") or (0, 0)
        (versions,) = self._row("SELECT count(*) FROM versions") or (0,)
        return {"objects": objects, "bytes": size, "versions": versions}

    def left_versions(self) -> int:
        """Return how many old versions will not be restored."""
        row = self._row("SELECT count(*) FROM versions WHERE staged = 0")
        return int(row[0]) if row else 0

    def keys(self) -> Iterator[str]:
        """Give the keys that will be there."""
        for (key,) in self._database.execute("SELECT key FROM wanted ORDER BY key"):
            yield _text(key)

    def disturbed(self) -> str | None:
        """Return a key whose content was there already, and is another one or gone by now."""
        row = self._row(
            "SELECT a.key FROM filled a JOIN wanted w ON w.key = a.key AND w.staged = 0"  # noqa: S608
            f" LEFT JOIN before b ON b.key = a.key WHERE NOT ({SAME}) LIMIT 1"
        )
        return _text(row[0]) if row else None

    def replaced(self, *, remove_extra: bool) -> Iterator[Step]:
        """Give what will be overwritten or removed."""
        yield from self._steps(REPLACED, remove_extra=remove_extra)

    def restored(self) -> Iterator[Step]:
        """Give what is copied from the staging to its place, but for keys with old versions."""
        yield from self._steps(
            "SELECT number, key, size, '' FROM wanted WHERE staged > 0"
            " AND key NOT IN (SELECT key FROM versions WHERE staged = 1)"
        )

    def extra(self) -> Iterator[str]:
        """Give the keys that were there before, and are not to be there."""
        rows = "SELECT key FROM before WHERE key NOT IN (SELECT key FROM wanted)"
        for (key,) in self._database.execute(rows):
            yield _text(key)

    def replayed(self) -> Iterator[str]:
        """Give the keys that had nothing before, and get their old versions."""
        rows = (
            "SELECT DISTINCT key FROM versions WHERE staged = 1"
            " AND key NOT IN (SELECT key FROM before)"
        )
        for (key,) in self._database.execute(rows):
            yield _text(key)

    def versions_of(self, key: str) -> list[Step]:
        """Return the old versions of a key, the oldest first."""
        rows = self._database.execute(
            "SELECT number, key, size, '', deleted FROM versions WHERE key = ? ORDER BY number",
            (_data(key),),
        )
        return [Step(n, _text(k), size, etag, bool(deleted)) for n, k, size, etag, deleted in rows]

    def current_of(self, key: str) -> Step | None:
        """Return what a key is to hold in the end, if anything."""
        rows = self._database.execute(
            "SELECT number, key, size FROM wanted WHERE key = ? AND staged > 0", (_data(key),)
        )
        return next((Step(number, _text(k), size) for number, k, size in rows), None)

    # --- the way back ---

    def to_put_back(self, *, remove_extra: bool) -> Iterator[Step]:
        """Give what was replaced, and is not what is there now."""
        yield from self._steps(
            f"SELECT a.number, a.key, a.size, a.etag FROM ({REPLACED}) r"  # noqa: S608
            " JOIN before a ON a.key = r.key LEFT JOIN now b ON b.key = a.key"
            " LEFT JOIN wanted w ON w.key = a.key"
            f" WHERE w.staged = 2 OR NOT ({SAME})",
            remove_extra=remove_extra,
        )

    def to_take_away(self) -> Iterator[str]:
        """Give the keys that had nothing before, and have something now by our doing."""
        rows = (
            "SELECT n.key FROM now n JOIN wanted w ON w.key = n.key AND w.staged > 0"
            " WHERE n.key NOT IN (SELECT key FROM before)"
        )
        for (key,) in self._database.execute(rows):
            yield _text(key)

    def _steps(self, rows: str, **values: object) -> Iterator[Step]:
        for number, key, size, etag in self._database.execute(rows, values):
            yield Step(number, _text(key), size, etag)

    def _row(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
        return row


def _data(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogateescape")
