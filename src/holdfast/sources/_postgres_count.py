"""Which tables a database has, and how many rows: as `pg_dump` sees it, so that both agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from holdfast.model.facts import Facts, Json

from ._postgres_session import composed, rows, value

if TYPE_CHECKING:
    from ._postgres_session import Connection

# Ordinary tables and partitions. Of an extension's own tables only those that it declares to hold
# the user's data are dumped, and only the rows that its condition names.
_TABLES = """
SELECT n.nspname, c.relname, ''::text, pg_table_size(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT n.nspname, c.relname, coalesce(e.condition, ''), pg_table_size(c.oid)
FROM (SELECT unnest(extconfig) AS relation, unnest(extcondition) AS condition
      FROM pg_extension) e
JOIN pg_class c ON c.oid = e.relation AND c.relkind = 'r'
JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY 1, 2
"""
_EXTENSIONS = "SELECT extname, extversion FROM pg_extension ORDER BY 1"
_SEQUENCES = """
SELECT schemaname, sequencename, last_value FROM pg_sequences
WHERE last_value IS NOT NULL ORDER BY 1, 2
"""
_DATABASE = """
SELECT pg_encoding_to_char(encoding), datcollate, datctype
FROM pg_database WHERE datname = current_database()
"""
_OBJECTS = "SELECT count(*) FROM pg_largeobject_metadata"

# Where applications write down which version of their schema a database has.
_VERSIONS = {
    "alembic_version": ("version_num", "SELECT max(version_num) FROM {}"),
    "schema_migrations": ("version", "SELECT max(version)::text FROM {}"),
    "schema_version": ("version", "SELECT max(version)::text FROM {}"),
    "flyway_schema_history": (
        "installed_rank",
        "SELECT version FROM {} ORDER BY installed_rank DESC LIMIT 1",
    ),
}
_HAS_COLUMN = """
SELECT true FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND a.attname = %s AND NOT a.attisdropped
"""
MOST_SEQUENCES = 1000  # whose values are worth keeping in a manifest


@dataclass(frozen=True, slots=True, order=True)
class Table:
    """A table whose rows are dumped; ``condition`` is a WHERE clause where not all are."""

    schema: str
    name: str
    condition: str = ""
    size: int = 0  # bytes on the server's disk, without indexes

    @property
    def shown(self) -> str:
        """The name as facts have it: without ``public``."""
        return shown(self.schema, self.name)

    @property
    def quoted(self) -> str:
        """The name as SQL and the patterns of `pg_dump` have it, taken literally."""
        return f"{_quoted(self.schema)}.{_quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is left out: patterns for tables, and for tables of which only the rows are left out."""

    exclude: Sequence[str] = ()
    exclude_data: Sequence[str] = ()

    def excluded(self, tables: Iterable[Table]) -> list[Table]:
        """Return the tables that are left out altogether."""
        return [table for table in tables if _matches(table, self.exclude)]

    def emptied(self, tables: Iterable[Table]) -> list[Table]:
        """Return the tables of which only the rows are left out."""
        return [
            table
            for table in tables
            if _matches(table, self.exclude_data) and not _matches(table, self.exclude)
        ]

    def counted(self, tables: Iterable[Table]) -> list[Table]:
        """Return the tables whose rows are kept."""
        return [
            table for table in tables if not _matches(table, (*self.exclude, *self.exclude_data))
        ]


def _matches(table: Table, patterns: Iterable[str]) -> bool:
    whole = f"{table.schema}.{table.name}"
    return any(fnmatchcase(whole if "." in p else table.name, p) for p in patterns)


def shown(schema: str, name: str) -> str:
    """Return the name of a table as facts have it."""
    parts = [name] if schema == "public" else [schema, name]
    return ".".join(_quoted(part) if set(part) & {".", '"'} else part for part in parts)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def tables(connection: Connection) -> list[Table]:
    """Return every table that a dump would have rows of."""
    return [Table(*row) for row in rows(connection, _TABLES)]


def count(connection: Connection, selection: Selection, prefix: str = "") -> Facts:
    """Count a database in the session's own transaction, or as it is now.

    ``prefix`` comes before the names of tables, where a component has several databases. The
    session must see all rows: where a policy would hide some, it fails.
    """
    connection.execute("SET row_security = off")
    found = tables(connection)
    counts = {
        f"rows/{prefix}{table.shown}": _rows(connection, table)
        for table in selection.counted(found)
    }
    counts[objects_unit(prefix)] = int(value(connection, _OBJECTS))
    return Facts(counts, _details(connection, found))


def objects_unit(prefix: str) -> str:
    """Return the name of the count of large objects."""
    return f"large_objects/{prefix[:-1]}" if prefix else "large_objects"


def _rows(connection: Connection, table: Table) -> int:
    question = f"SELECT count(*) FROM ONLY {table.quoted} {table.condition}"  # noqa: S608 - quoted
    return int(value(connection, question))


def _details(connection: Connection, found: Sequence[Table]) -> dict[str, Json]:
    (encoding, collation, ctype), *_ = rows(connection, _DATABASE)
    details: dict[str, Json] = {
        "server": connection.info.parameter_status("server_version"),
        "encoding": encoding,
        "collation": collation,
        "ctype": ctype,
        "tables": len(found),
        "extensions": dict(rows(connection, _EXTENSIONS)),
    }
    sequences = rows(connection, f"{_SEQUENCES} LIMIT {MOST_SEQUENCES}")
    details["sequences"] = {shown(schema, name): last for schema, name, last in sequences}
    version = _schema_version(connection, found)
    if version is not None:
        details["schema_version"] = version
    return details


def _schema_version(connection: Connection, found: Sequence[Table]) -> str | None:
    known = {table.name: table for table in sorted(found, key=lambda t: t.schema != "public")[::-1]}
    for name, (column, question) in _VERSIONS.items():
        table = known.get(name)
        if table and value(connection, _HAS_COLUMN, table.schema, name, column):
            answer = connection.execute(
                composed(question.replace("{}", "{}.{}"), table.schema, name)
            ).fetchone()
            return str(answer[0]) if answer and answer[0] is not None else None
    return None


def together(facts: Mapping[str, Facts]) -> Facts:
    """Return the facts of several databases as one; their details keep the databases' names."""
    if len(facts) == 1:
        return next(iter(facts.values()))
    counts = {name: number for one in facts.values() for name, number in one.counts.items()}
    details: dict[str, Json] = {name: dict(one.details) for name, one in facts.items()}
    notes = tuple(note for one in facts.values() for note in one.notes)
    return Facts(counts, details, notes)
