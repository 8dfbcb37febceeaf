"""Restoring by hand: the lines of ``RESTORE.md``, for PostgreSQL's own programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from ._guide import reading
from ._postgres_dump import GLOBALS

# Puts the name of the new database where statements about the dumped one have that one's.
_RENAMED = """sed -E 's/DATABASE ("([^"]|"")+"|[^ ;]+)/DATABASE "'"$DATABASE"'"/'"""
_RUN = "psql -X -q -v ON_ERROR_STOP=1 -d postgres"
# Statements about the database as a whole: those that make it, and what is to be set of it later.
_MAKING = "CREATE DATABASE|ALTER DATABASE [^\\n]* OWNER TO"
_SETTING = (
    "ALTER DATABASE [^\\n]* (SET|CONNECTION|IS_TEMPLATE)|ALTER ROLE [^\\n]* IN DATABASE"
    "|(GRANT|REVOKE) [^\\n]* ON DATABASE|COMMENT ON DATABASE"
)


def guide(paths: Mapping[str, str]) -> list[str]:
    """Return the lines; ``paths`` are of the artifacts by their parts, quoted for the shell."""
    lines = [
        "# PGHOST, PGPORT, PGUSER and PGPASSWORD say which server; new databases are made there.",
    ]
    if GLOBALS in paths:
        lines += [
            "# On a new server set ROLES=yes first: then roles come back, with their passwords.",
            f'if [ -n "${{ROLES:-}}" ]; then {reading(paths[GLOBALS])} | psql -X -d postgres; fi',
        ]
    for main, parts in _dumps([part for part in paths if part != GLOBALS]).items():
        lines += _database(paths[main], [paths[part] for part in parts])
    return lines


def _dumps(parts: Sequence[str]) -> dict[str, list[str]]:
    """Return the parts that hold the large tables of each dump: a dash and a number at the end."""
    numbered = {part: part.rpartition("-") for part in parts}
    mains: dict[str, list[str]] = {
        part: []
        for part, (main, _dash, number) in numbered.items()
        if not _is_number(main, number, parts)
    }
    for part, (main, _dash, number) in numbered.items():
        if _is_number(main, number, parts):
            mains[main].append(part)
    return mains


def _is_number(main: str, number: str, parts: Sequence[str]) -> bool:
    return number.isdigit() and main in parts


def _database(main: str, parts: Sequence[str]) -> list[str]:
    file = PurePosixPath(shlex.split(main)[0]).name
    name = shlex.quote(f"{file.partition('.')[0]}_restored")
    if ".sql" in file:
        return [
            f'DATABASE="${{DATABASE_NAME:-{name}}}"',
            'createdb -T template0 "$DATABASE"',
            f'{reading(main)} | psql -X -q -v ON_ERROR_STOP=1 -d "$DATABASE"',
        ]
    about = f"{reading(main)} | pg_restore --create --section=pre-data -f - | {_RENAMED}"
    lines = [
        f'DATABASE="${{DATABASE_NAME:-{name}}}"',
        f"{about} | {_only(_MAKING)} | {_RUN}",
    ]
    load = 'pg_restore --exit-on-error -d "$DATABASE"'
    if parts:
        lines.append(f"{reading(main)} | {load} --section=pre-data")
        lines += [f"{reading(path)} | {load} --section=data" for path in (main, *parts)]
        lines.append(f"{reading(main)} | {load} --section=post-data")
    else:
        lines.append(f"{reading(main)} | {load}")
    lines.append(f"{about} | {_only(_SETTING)} | {_RUN}")
    lines.append('psql -X -d "$DATABASE" -c ANALYZE')
    return lines


def _only(statements: str) -> str:
    """Return the command that lets only those statements of a script pass."""
    return f"""awk 'BEGIN {{ RS = ORS = ";\\n" }} /(^|\\n)({statements})/'"""
