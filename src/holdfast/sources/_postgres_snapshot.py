"""Holding one database still: a snapshot that every dump and every count of it sees.

First the tables are locked against being dropped, emptied or rewritten, which a snapshot does not
protect from; then the snapshot is taken, and offered to other sessions for as long as this one
lasts. Reading and writing rows goes on meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from holdfast.errors import SourceUnfit, SourceUnstable
from holdfast.model.facts import Facts

from ._postgres_address import Address
from ._postgres_count import Selection, Table, count, tables
from ._postgres_errors import Border
from ._postgres_session import session, value, values

if TYPE_CHECKING:
    from ._postgres_session import Connection

_ATTEMPTS = 5  # to find the same tables before and after locking them

# What cannot be restored without the tables that are left out, or without their rows.
_NEEDS_TABLE = """
SELECT DISTINCT 'view ' || v.oid::regclass FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
JOIN pg_class v ON v.oid = r.ev_class AND v.oid <> d.refobjid
WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = ANY (%(left_out)s::regclass[])
UNION SELECT 'partition or child ' || inhrelid::regclass FROM pg_inherits
WHERE inhparent = ANY (%(left_out)s::regclass[])
  AND NOT inhrelid = ANY (%(left_out)s::regclass[])
UNION SELECT 'table ' || conrelid::regclass FROM pg_constraint
WHERE contype = 'f' AND confrelid = ANY (%(left_out)s::regclass[])
  AND NOT conrelid = ANY (%(left_out)s::regclass[])
"""
_NEEDS_ROWS = """
SELECT DISTINCT 'table ' || conrelid::regclass FROM pg_constraint
WHERE contype = 'f' AND confrelid = ANY (%(left_out)s::regclass[])
  AND NOT conrelid = ANY (%(left_out)s::regclass[])
"""

# Roles by whose names a dump says who owns what and who may do what. The first role of all is not
# among the dependencies that are written down, since it cannot be dropped.
_ROLES = """
SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' AND (
  oid IN (SELECT d.refobjid FROM pg_shdepend d JOIN pg_database b ON b.datname = current_database()
          WHERE d.refclassid = 'pg_authid'::regclass
            AND (d.dbid = b.oid OR (d.classid = 'pg_database'::regclass AND d.objid = b.oid)))
  OR oid IN (SELECT datdba FROM pg_database WHERE datname = current_database())
  OR oid IN (SELECT relowner FROM pg_class WHERE oid >= 16384)
  OR oid IN (SELECT nspowner FROM pg_namespace WHERE oid >= 16384)
  OR oid IN (SELECT proowner FROM pg_proc WHERE oid >= 16384)
  OR oid IN (SELECT lomowner FROM pg_largeobject_metadata))
ORDER BY 1
"""
_EXTENSIONS = "SELECT extname FROM pg_extension ORDER BY 1"
_TABLESPACES = """
SELECT DISTINCT t.spcname FROM pg_tablespace t JOIN pg_class c ON c.reltablespace = t.oid
WHERE t.spcname !~ '^pg_'
UNION SELECT t.spcname FROM pg_tablespace t JOIN pg_database d ON d.dattablespace = t.oid
WHERE d.datname = current_database() AND t.spcname !~ '^pg_'
"""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a server must have before a dump can be restored there."""

    roles: Sequence[str] = ()
    extensions: Sequence[str] = ()
    tablespaces: Sequence[str] = ()


@dataclass(slots=True)
class Snapshot:
    """A database while it is held still. ``id`` is what other sessions see the same state by."""

    address: Address
    id: str
    instant: datetime
    tables: Sequence[Table]
    needs: Needs
    server: int  # as 170010
    version: str
    superuser: bool
    _connection: Connection
    _using: threading.Lock = field(default_factory=threading.Lock)

    def facts(self, selection: Selection, prefix: str, border: Border) -> Facts:
        """Count what the snapshot shows."""
        with self._using, border.translating():
            return count(self._connection, selection, prefix)

    def release(self, border: Border) -> None:
        """Let the database go. Raises `ConnectionLost` if it was not held all the time."""
        with self._using, border.translating():
            self._connection.execute("ROLLBACK")


@contextmanager
def held(address: Address, selection: Selection, border: Border) -> Iterator[Snapshot]:
    """Hold a database still while the context is open.

    Raises:
        SourceLocked: a table stayed locked by another program.
        SourceUnfit: what is left out is needed by what is not.
        SourceUnstable: tables came and went all the time.

    """
    with session(address, border) as connection:
        _demand_restorable(connection, selection, border)
        identifier, instant, found = _take(connection, selection, border)
        yield Snapshot(
            address=address,
            id=identifier,
            instant=instant,
            tables=found,
            needs=Needs(
                roles=values(connection, _ROLES),
                extensions=values(connection, _EXTENSIONS),
                tablespaces=values(connection, _TABLESPACES),
            ),
            server=connection.info.server_version,
            version=connection.info.parameter_status("server_version") or "",
            superuser=connection.info.parameter_status("is_superuser") == "on",
            _connection=connection,
        )


def _take(
    connection: Connection, selection: Selection, border: Border
) -> tuple[str, datetime, list[Table]]:
    for _attempt in range(_ATTEMPTS):
        before = _kept(tables(connection), selection)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if _lock(connection, before):
            # The first question of the transaction, and only it, decides what it sees.
            identifier = value(connection, "SELECT pg_export_snapshot()")
            instant = datetime.now(UTC)
            found = tables(connection)
            if _names(_kept(found, selection)) == _names(before):
                return identifier, instant, found
        connection.execute("ROLLBACK")
    reason = "its tables came and went"
    raise SourceUnstable(component=border.component, path=border.where, reason=reason)


def _kept(found: Sequence[Table], selection: Selection) -> list[Table]:
    excluded = set(selection.excluded(found))
    return [table for table in found if table not in excluded]


def _names(found: Sequence[Table]) -> set[tuple[str, str]]:
    return {(table.schema, table.name) for table in found}


def _lock(connection: Connection, found: Sequence[Table]) -> bool:
    """Lock tables; returns whether they were all still there."""
    import psycopg

    if not found:
        return True
    names = ", ".join(f"ONLY {table.quoted}" for table in found)
    try:
        connection.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE".encode())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return False
    return True


def _demand_restorable(connection: Connection, selection: Selection, border: Border) -> None:
    """Refuse to leave out what the rest cannot be restored without."""
    found = tables(connection)
    gone, emptied = selection.excluded(found), selection.emptied(found)
    for left_out, question, option in (
        (gone, _NEEDS_TABLE, "exclude"),
        ([*gone, *emptied], _NEEDS_ROWS, "exclude_data"),
    ):
        names: dict[str, Any] = {"left_out": [table.quoted for table in left_out]}
        needing = connection.execute(question.encode(), names).fetchall() if left_out else []
        if needing:
            who = ", ".join(sorted(row[0] for row in needing)[:5])
            raise SourceUnfit(
                component=border.component,
                path=border.where,
                expected="restorable without what is left out",
                reason=f"{who} needs what `{option}` leaves out; leave that out too",
            )


def parted(snapshot: Snapshot, selection: Selection, threshold: int, most: int) -> list[Table]:
    """Return the largest tables, of ``threshold`` bytes or more, that get a dump of their own."""
    large = [
        table
        for table in selection.counted(snapshot.tables)
        if table.size >= threshold and not table.condition
    ]
    return sorted(large, key=lambda table: (-table.size, table.schema, table.name))[:most]
