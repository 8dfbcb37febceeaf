"""What can be said of a server before anything is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import HoldfastError
from holdfast.model.facts import Probe

from ._postgres_address import Address
from ._postgres_count import Selection, tables
from ._postgres_errors import Border
from ._postgres_session import rows, session, value, values
from ._postgres_tools import Toolbox

_RIGHTS = "SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = current_user"
_SIZE = "SELECT pg_database_size(current_database())"
_UNREADABLE = """
SELECT name FROM unnest(%s::text[]) AS name WHERE NOT has_table_privilege(name, 'SELECT')
"""
_SHOWN = 5


def probe(
    addresses: Sequence[Address], toolbox: Toolbox, border: Border, selection: Selection
) -> Probe:
    """Look at each database; raises what keeps it from being reached."""
    size, version, number = 0, "", 0
    unreadable: list[str] = []
    rights = ""
    for address in addresses:
        with session(address, border) as connection:
            size += int(value(connection, _SIZE))
            version = connection.info.parameter_status("server_version") or ""
            number = connection.info.server_version
            found = tables(connection)
            excluded = set(selection.excluded(found))
            wanted = {table.quoted: table.shown for table in found if table not in excluded}
            unreadable += [wanted[one] for one in values(connection, _UNREADABLE, list(wanted))]
            ((superuser, creates),) = rows(connection, _RIGHTS)
            rights = _rights(superuser=superuser, creates=creates, unreadable=bool(unreadable))
    problems = []
    if unreadable:
        more = ", …" if len(unreadable) > _SHOWN else ""
        names = ", ".join(unreadable[:_SHOWN]) + more
        problems.append(f"{border.component}: the account may not read {names}")
    found_tools: dict[str, str] = {}
    try:
        tools = toolbox.for_server((number // 10000, number % 10000))
        found_tools = {"pg_dump": tools.shown}
    except HoldfastError as error:
        problems.append(str(error))
    return Probe(
        reachable=True,
        version=version,
        size=size,
        tools=found_tools,
        rights=rights,
        problems=tuple(problems),
    )


def _rights(*, superuser: bool, creates: bool, unreadable: bool) -> str:
    if superuser:
        return "superuser"
    reads = "reads some tables only" if unreadable else "reads everything"
    return f"{reads}, {'creates databases' if creates else 'may not create databases'}"
