"""Roles that a restored database needs: made from what was backed up of them, if they are missing.

Roles that exist are left as they are: they serve other databases too, and a restore of one must not
bring an old password back. A role that a restore made carries its tag in its comment, until the
restore is settled; putting back drops it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ._postgres_names import mark, unmarked
from ._postgres_script import Statement, plain, statements
from ._postgres_session import composed, rows, values

if TYPE_CHECKING:
    from holdfast.model.artifact import Chunks

    from ._postgres_session import Connection

_ROLES = "SELECT rolname FROM pg_roles"
_MARKED = """
SELECT rolname, shobj_description(oid, 'pg_authid') FROM pg_roles
WHERE starts_with(coalesce(shobj_description(oid, 'pg_authid'), ''), %s)
"""
# What creates roles has hashes of their passwords in it, which no log is to keep.
_SILENT = "SET LOCAL log_statement = none; SET LOCAL log_min_error_statement = panic"


def missing(connection: Connection, wanted: Iterable[str]) -> list[str]:
    """Return the roles that there are none of."""
    return sorted(set(wanted) - set(values(connection, _ROLES)))


def make(connection: Connection, wanted: Sequence[str], script: Chunks, tag: str) -> list[str]:
    """Make the missing ones of the roles that are wanted, and those that they are members of.

    ``script`` is what `pg_dumpall` wrote of roles. Returns those that it does not know either.
    """
    existing = set(values(connection, _ROLES))
    known = list(statements(script))
    created = {
        _name(s, 2): s
        for s in known
        if s.begins("CREATE", "ROLE") and len(s.tokens) > 2  # noqa: PLR2004
    }
    wanted_all = _with_parents(set(wanted) - existing, known) - existing
    new = wanted_all & set(created)
    superuser = connection.info.parameter_status("is_superuser") == "on"
    with connection.transaction():
        if new and superuser:
            connection.execute(_SILENT)
        for statement in known:
            _apply(connection, statement, new, existing | new, tag)
    return sorted(set(wanted) - existing - new)


def _with_parents(wanted: set[str], known: Sequence[Statement]) -> set[str]:
    found = set(wanted)
    grants = [pair for s in known if (pair := _membership(s))]
    while more := {parent for parent, member in grants if member in found} - found:
        found |= more
    return found


def _apply(
    connection: Connection,
    statement: Statement,
    new: Collection[str],
    all_: Collection[str],
    tag: str,
) -> None:
    """Run a statement if it is about a new role."""
    if statement.begins("CREATE", "ROLE"):
        if _name(statement, 2) in new:
            connection.execute(statement.text)
            _comment(connection, _name(statement, 2), mark(tag))
    elif statement.begins("ALTER", "ROLE"):
        if _name(statement, 2) in new and not _is_of_database(statement):
            connection.execute(statement.text)
    elif statement.begins("COMMENT", "ON", "ROLE"):
        if _name(statement, 3) in new:
            connection.execute(_with_mark(statement, tag))
    elif pair := _membership(statement):
        parent, member = pair
        if member in new and parent in all_:
            connection.execute(_without_grantor(statement))


def _name(statement: Statement, place: int) -> str:
    return plain(statement.tokens[place].text)


def _is_of_database(statement: Statement) -> bool:
    return any(token.says("DATABASE") for token in statement.tokens[3:5])


def _membership(statement: Statement) -> tuple[str, str] | None:
    """Return (role, member) of a statement ``GRANT role TO member …``."""
    tokens = statement.tokens
    if statement.begins("GRANT") and len(tokens) > 3 and tokens[2].says("TO"):  # noqa: PLR2004
        return _name(statement, 1), _name(statement, 3)
    return None


def _without_grantor(statement: Statement) -> bytes:
    """Return a grant in our own name: whoever granted it then may not be there."""
    end = next((t.begin for t in statement.tokens if t.says("GRANTED")), len(statement.text))
    return statement.text[:end]


def _with_mark(statement: Statement, tag: str) -> bytes:
    """Return a comment with the tag before what it says."""
    said = next(t for t in statement.tokens if t.kind in {"string", "escaped"})
    begin = mark(tag).replace("'", "''").encode()
    at = said.begin + said.text.index(b"'") + 1
    return statement.text[:at] + begin + statement.text[at:]


def unmake(connection: Connection, tag: str) -> None:
    """Drop the roles that a restore made, but those that have come to own something since."""
    import psycopg

    left = [name for name, _comment in rows(connection, _MARKED, mark(tag))]
    while left:
        before = len(left)
        for name in list(left):
            with suppress(psycopg.errors.DependentObjectsStillExist):
                connection.execute(composed("DROP ROLE {}", name))
                left.remove(name)
        if len(left) == before:
            return


def settle(connection: Connection, tag: str) -> None:
    """Let the roles that a restore made be like any others."""
    for name, comment in rows(connection, _MARKED, mark(tag)):
        _comment(connection, name, unmarked(comment, tag) or "")


def _comment(connection: Connection, name: str, text: str) -> None:
    from psycopg.sql import SQL, Identifier, Literal

    comment = Literal(text) if text else SQL("NULL")
    connection.execute(SQL("COMMENT ON ROLE {} IS {}").format(Identifier(name), comment))
