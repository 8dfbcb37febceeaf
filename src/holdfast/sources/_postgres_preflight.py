"""What is looked at before a restore makes anything, so that it does not fail half-way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from holdfast.errors import TargetUnfit
from holdfast.ports import Source

from . import _postgres_roles as roles
from ._postgres_address import Address
from ._postgres_backup import Backup, Dumped
from ._postgres_count import Selection
from ._postgres_errors import Border
from ._postgres_options import PostgresOptions
from ._postgres_session import major, values
from ._postgres_tools import Toolbox, written

if TYPE_CHECKING:
    from ._postgres_session import Connection

_AVAILABLE = "SELECT name FROM pg_available_extensions"


class Live(Source, Protocol):
    """What a staging needs to know of the live databases."""

    options: PostgresOptions

    @property
    def border(self) -> Border: ...

    @property
    def toolbox(self) -> Toolbox: ...

    def address_of(self, database: str) -> Address: ...

    def maintenance(self) -> Address: ...

    def looking_at(
        self, databases: Mapping[str, str], selections: Mapping[str, Selection]
    ) -> Source: ...


def chosen(backup: Backup, names: Sequence[str], border: Border) -> dict[str, Dumped]:
    """Return the dump for each database. One alone goes to one alone, whatever they are called.

    Raises:
        TargetUnfit: the backup is of other databases.

    """
    if len(names) == len(backup.dumps) == 1:
        return {names[0]: backup.dumps[0]}
    held = {dumped.database: dumped for dumped in backup.dumps}
    if set(held) != set(names):
        there = ", ".join(sorted(held))
        reason = f"the backup holds {there}; the configuration names {', '.join(sorted(names))}"
        raise unfit(border, reason)
    return {name: held[name] for name in names}


def demand_fit(connection: Connection, dumps: Iterable[Dumped], border: Border) -> int:
    """Return the server's major version.

    Raises:
        TargetUnfit: it is older than the one a dump comes from, or lacks an extension.

    """
    server = major(connection.info.server_version)
    available = set(values(connection, _AVAILABLE))
    for dumped in dumps:
        if dumped.server[0] > server:
            own = connection.info.parameter_status("server_version")
            version = written(dumped.server)
            raise unfit(border, f"the backup is of PostgreSQL {version}, this server is {own}")
        if lacking := sorted(set(dumped.needs.extensions) - available):
            raise unfit(border, f"the server lacks the extension {', '.join(lacking)}")
    return server


def make_roles(
    connection: Connection, backup: Backup, tag: str, options: PostgresOptions, border: Border
) -> None:
    """Make the roles that are needed and missing. What is stored of roles is read to its end.

    Raises:
        TargetUnfit: the backup does not have them either.

    """
    needed = {role for dumped in backup.dumps for role in dumped.needs.roles}
    lacking = roles.missing(connection, needed) if options.owners else []
    if backup.roles is not None:
        with backup.roles.open() as script:
            lacking = roles.make(connection, lacking, script, tag)
    if lacking:
        names = ", ".join(lacking)
        raise unfit(border, f"the roles {names} are missing; see the option `owners`")


def unfit(border: Border, reason: str) -> TargetUnfit:
    """Return the error for a server that cannot take a backup."""
    return TargetUnfit(component=border.component, path=border.where, reason=reason)
