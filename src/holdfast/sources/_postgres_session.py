"""Sessions with a PostgreSQL server, and small questions to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, LiteralString

from ._postgres_address import Address
from ._postgres_errors import Border

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed

    Connection = psycopg.Connection[tuple[Any, ...]]

# What a server or a role may have set, and what must not cut a session of ours short.
PATIENT = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "default_transaction_read_only": "off",
    "client_encoding": "UTF8",
}


@contextmanager
def session(address: Address, border: Border, *, own_path: bool = False) -> Iterator[Connection]:
    """Give a session that commits each statement. What fails is raised as rows of the table.

    It waits for locks as long as ``border`` says. Names without a schema are PostgreSQL's own,
    whatever else bears them; with ``own_path`` they are those that an application would see.
    """
    import psycopg

    with border.translating():
        connection = psycopg.connect(**address.connecting(), autocommit=True)
        try:
            path = {} if own_path else {"search_path": "pg_catalog"}
            wait = {"lock_timeout": f"{border.lock_timeout * 1000:.0f}ms"}
            settings = {**PATIENT, **wait, **path}
            connection.execute(_SET.encode(), [list(settings), list(settings.values())])
            yield connection
        finally:
            connection.close()


# Settings that this server knows. What is committed lasts, whatever a role or database has set.
_SET = """
SELECT set_config(known.name, new, false)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, new)
JOIN pg_settings AS known ON known.name = wanted.name
UNION ALL
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
"""


def rows(connection: Connection, sql: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Return all rows of a small question."""
    return connection.execute(sql.encode(), arguments or None).fetchall()


def values(connection: Connection, sql: str, *arguments: object) -> list[Any]:
    """Return the first column of a small question."""
    return [row[0] for row in rows(connection, sql, *arguments)]


def value(connection: Connection, sql: str, *arguments: object) -> Any:
    """Return the only value of a small question; None where there is no row."""
    return next(iter(values(connection, sql, *arguments)), None)


def composed(template: LiteralString, *names: str) -> Composed:
    """Return a statement with the names quoted where ``{}`` stands."""
    from psycopg.sql import SQL, Identifier

    return SQL(template).format(*map(Identifier, names))


def major(version: int) -> int:
    """Return the major version of a number such as 170010."""
    return version // 10000
