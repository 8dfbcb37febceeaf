"""Counting and checking a database with SQLite's own means. Runs in the process that holds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

LINES = 20  # of problems, enough to see what is wrong
CHECKS = {"quick": "quick_check", "full": "integrity_check"}

# Where applications write down which version of their schema a database has: a table, the columns
# it must have, and the question to ask. The first that answers is taken.
_VERSION_TABLES = (
    ("meta", {"key", "value"}, "SELECT value FROM meta WHERE key = 'schema_version'"),
    ("meta", {"name", "value"}, "SELECT value FROM meta WHERE name = 'schema_version'"),
    ("meta", {"schema_version"}, "SELECT schema_version FROM meta LIMIT 1"),
    ("metadata", {"key", "value"}, "SELECT value FROM metadata WHERE key = 'schema_version'"),
    ("settings", {"key", "value"}, "SELECT value FROM settings WHERE key = 'schema_version'"),
    ("alembic_version", {"version_num"}, "SELECT version_num FROM alembic_version LIMIT 1"),
    ("schema_version", {"version"}, "SELECT max(version) FROM schema_version"),
    ("schema_migrations", {"version"}, "SELECT max(version) FROM schema_migrations"),
)


class Counts:
    """What was counted, noted and found wrong."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.details: dict[str, Any] = {}
        self.notes: list[str] = []
        self.problems: list[str] = []

    def document(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return vars(self)


def survey(
    connection: sqlite3.Connection, check: str, *, uses_wal: bool, foreign_keys: bool = False
) -> Counts:
    """Check a database as thoroughly as ``check`` says, then count it; damage is a problem line."""
    found = Counts()
    try:
        if check in CHECKS:
            _check(connection, CHECKS[check], found)
        if foreign_keys:
            _check_foreign_keys(connection, found)
        _describe(connection, found, uses_wal=uses_wal)
        _count(connection, found)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        found.problems.append(str(error))
    return found


def is_damage(error: sqlite3.Error) -> bool:
    """Tell whether an error means that the database is damaged."""
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _check(connection: sqlite3.Connection, pragma: str, found: Counts) -> None:
    try:
        found.problems += _lines(connection, f"PRAGMA {pragma}({LINES})")
    except sqlite3.OperationalError as error:
        if not _is_missing_part(error):
            raise
        # A function or collation of the application is not known here: leave out what needs it.
        for table in _tables(connection):
            _check_table(connection, pragma, table, found)


def _check_table(connection: sqlite3.Connection, pragma: str, table: str, found: Counts) -> None:
    try:
        found.problems += _lines(connection, f"PRAGMA {pragma}({_quoted(table)})")
    except sqlite3.OperationalError as error:
        if not _is_missing_part(error):
            raise
        found.notes.append(f"table {table} could not be checked: {error}")


def _lines(connection: sqlite3.Connection, pragma: str) -> Iterator[str]:
    for (line,) in connection.execute(pragma):
        if line != "ok":
            yield line


def _check_foreign_keys(connection: sqlite3.Connection, found: Counts) -> None:
    try:
        broken: dict[tuple[str, str], int] = {}
        for table, _row, parent, _key in connection.execute("PRAGMA foreign_key_check"):
            broken[table, parent] = broken.get((table, parent), 0) + 1
    except sqlite3.OperationalError as error:
        if is_damage(error):
            raise
        found.notes.append(f"foreign keys could not be checked: {error}")
        return
    for (table, parent), number in sorted(broken.items()):
        found.problems.append(
            f"{number} rows of {table} refer to rows of {parent} that do not exist"
        )


def _describe(connection: sqlite3.Connection, found: Counts, *, uses_wal: bool) -> None:
    details = found.details
    for name in ("user_version", "application_id", "page_size", "encoding"):
        (details[name],) = connection.execute(f"PRAGMA {name}").fetchone()
    details["journal_mode"] = "wal" if uses_wal else "rollback"
    version = _schema_version(connection)
    if version is not None:
        details["schema_version"] = version


def _schema_version(connection: sqlite3.Connection) -> str | int | float | None:
    for table, needed, question in _VERSION_TABLES:
        columns = {
            row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        }
        if not needed <= columns:
            continue
        row = connection.execute(question).fetchone()
        if row and isinstance(row[0], str | int | float):
            return row[0]
    return None


def _tables(connection: sqlite3.Connection) -> list[str]:
    """Return the tables that hold the application's rows: not SQLite's own, nor shadows."""
    names = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')"
        " AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"
    )
    return [name for (name,) in names]


def _count(connection: sqlite3.Connection, found: Counts) -> None:
    tables = _tables(connection)
    found.details["tables"] = len(tables)
    for table in tables:
        try:
            question = f"SELECT count(*) FROM {_quoted(table)}"  # noqa: S608 - quoted
            (found.counts[f"rows/{table}"],) = connection.execute(question).fetchone()
        except sqlite3.OperationalError as error:
            if not _is_missing_part(error):
                raise
            found.notes.append(f"table {table} was not counted: {error}")
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            found.problems.append(f"table {table}: {error}")
            found.notes.append(f"table {table} was not counted: {error}")


def _is_missing_part(error: sqlite3.Error) -> bool:
    """Tell whether the schema needs a module, function or collation that is not loaded here."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
