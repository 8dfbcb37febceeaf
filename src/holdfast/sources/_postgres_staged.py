"""New databases beside live ones, until they take their place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.model.artifact import Artifact
from holdfast.ports import Source, Token

from ._postgres_backup import Backup, Dumped, backup_of
from ._postgres_count import Selection
from ._postgres_load import Head, How, Loader, database_token
from ._postgres_preflight import Live, chosen, demand_fit, make_roles, unfit
from ._postgres_script import Statement, plain
from ._postgres_session import composed, session, value, values
from ._postgres_switch import Switch

if TYPE_CHECKING:
    from ._postgres_session import Connection

_MAY_CREATE = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
_TABLESPACES = "SELECT spcname FROM pg_tablespace"
_ROLES = "SELECT rolname FROM pg_roles"
_LIKE = """
SELECT format('ENCODING %%L LC_COLLATE %%L LC_CTYPE %%L OWNER %%I', pg_encoding_to_char(encoding),
              datcollate, datctype, pg_get_userbyid(datdba))
FROM pg_database WHERE datname = %s
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What a restore has to know of where it goes: its major version, and its tablespaces."""

    version: int
    tablespaces: frozenset[str]


class PostgresStaged:
    """See `holdfast.ports.Staged`. Everything lies on the server, see `Switch`."""

    def __init__(self, live: Live, tag: str, databases: Mapping[str, str], workspace: Path) -> None:
        """``databases`` maps the names of the configuration to those on the server."""
        self.token: Token = {
            "tag": tag,
            "databases": dict(databases),
            "workspace": str(workspace),
            "in_place": False,
        }
        self._live = live
        self._tag = tag
        self._databases = databases
        self._workspace = workspace
        self._border = live.border
        self._selections: dict[str, Selection] = {}
        timeout = live.options.switch_timeout
        names = list(databases.values())
        self._switch = Switch(live.maintenance, live.border, tag, names, timeout)

    @property
    def view(self) -> Source:
        """The staged databases as a source to be counted and queried."""
        places = self._switch.places
        staged = {name: places[actual].staged for name, actual in self._databases.items()}
        return self._live.looking_at(staged, self._selections)

    # --- filling ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Restore into new databases; durable when this returns.

        Raises:
            TargetUnfit: the server lacks what the dump needs, or the backup is of other databases.
            ToolMissing, ToolTooOld: there is no program that reads the dump.
            ServerFailed, NoSpace, ConnectionLost: the server did not take it.

        """
        backup = backup_of(artifacts, self._live.name, self._border.where)
        dumps = chosen(backup, list(self._databases), self._border)
        self._workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        server = self._prepare(backup, dumps.values())
        for name, dumped in dumps.items():
            self._fill(self._databases[name], dumped, server)
            self._selections[name] = dumped.selection

    def _prepare(self, backup: Backup, dumps: Collection[Dumped]) -> Server:
        """Look whether it can succeed, and make the roles."""
        with session(self._live.maintenance(), self._border) as connection:
            if not value(connection, _MAY_CREATE):
                reason = "the account may not create databases; see the option `in_place`"
                raise unfit(self._border, reason)
            version = demand_fit(connection, dumps, self._border)
            make_roles(connection, backup, self._tag, self._live.options, self._border)
            return Server(version, frozenset(values(connection, _TABLESPACES)))

    def _fill(self, database: str, dumped: Dumped, server: Server) -> None:
        loader = self._loader(dumped, self._switch.places[database].staged, server)
        if dumped.is_script:
            self._switch.create(database, self._like_live(database))
            about = loader.script(dumped)
        else:
            about = self._load_archive(database, dumped, loader, server)
        loader.analyze()
        self._switch.complete(database, partial(self._describe, about))

    def _load_archive(
        self, database: str, dumped: Dumped, loader: Loader, server: Server
    ) -> list[Statement]:
        with self._border.translating(), dumped.main.open() as chunks:
            head = Head(chunks, self._workspace / "head")
            about = head.read(loader.tools, self._live.options.silence)
            self._switch.create(database, partial(self._as_dumped, about, server))
            loader.archive(dumped, head)
        return about

    def _loader(self, dumped: Dumped, staged: str, server: Server) -> Loader:
        options = self._live.options
        how = How(
            jobs=options.jobs,
            memory=options.work_memory,
            silence=options.silence,
            owners=options.owners,
            tablespaces=set(dumped.needs.tablespaces) <= server.tablespaces,
        )
        tools = None if dumped.is_script else self._live.toolbox.for_archive(dumped.tool)
        return Loader(self._live.address_of(staged), server.version, tools, how, self._border)

    # --- the databases themselves ---

    def _as_dumped(
        self, about: Sequence[Statement], server: Server, connection: Connection, name: str
    ) -> None:
        """Make a database with the encoding, locale and owner of the dumped one."""
        making = [statement for statement in about if statement.begins("CREATE", "DATABASE")]
        for statement in making:
            connection.execute(_without_missing_tablespace(statement, name, server.tablespaces))
        if not making:
            connection.execute(composed("CREATE DATABASE {} TEMPLATE template0", name))
        for statement in about:
            if _gives_away(statement) and self._live.options.owners:
                connection.execute(_about(statement, name))

    def _like_live(self, database: str) -> Callable[[Connection, str], None]:
        """Return what makes a database like the live one: a script does not say how it was."""

        def make(connection: Connection, name: str) -> None:
            like = value(connection, _LIKE, database) or "ENCODING 'UTF8'"
            begin = composed("CREATE DATABASE {} TEMPLATE template0 ", name).as_string(connection)
            connection.execute(f"{begin}{like}".encode())

        return make

    def _describe(self, about: Sequence[Statement], connection: Connection, staged: str) -> None:
        """Give the new database the settings, rights and comment of the dumped one.

        They come last: a setting may be one that would have disturbed the restore.
        """
        known = set(values(connection, _ROLES))
        for statement in about:
            if any(statement.begins(verb, "DATABASE") for verb in ("CREATE", "DROP")):
                continue
            if _gives_away(statement):
                continue  # done when it was made
            if statement.begins("ALTER", "ROLE") and plain(statement.tokens[2].text) not in known:
                continue
            rights = statement.begins("GRANT") or statement.begins("REVOKE")
            if not rights or self._live.options.owners:
                connection.execute(_about(statement, staged))

    # --- the switch ---

    def activate(self) -> None:
        """Switch to the new databases; doing it again does nothing. Connections are ended."""
        self._switch.activate()

    def revert(self) -> None:
        """Put the old databases back, and drop what was made."""
        self._switch.revert()

    def settle(self, attic: Path | None) -> str | None:
        """Drop the old databases, or keep them on the server under a name of their own."""
        kept = self._switch.settle(keep=attic is not None)
        return f"{self._border.where}: kept there as {', '.join(kept)}" if kept else None


def _gives_away(statement: Statement) -> bool:
    return statement.begins("ALTER", "DATABASE") and statement.tokens[3].says("OWNER")


def _about(statement: Statement, database: str) -> bytes:
    """Return a statement with another database in place of the one that it is about."""
    place = database_token(statement)
    assert place is not None  # noqa: S101 - it is how the statement was chosen
    return statement.renamed(statement.tokens[place], database)


def _without_missing_tablespace(
    statement: Statement, database: str, there: Collection[str]
) -> bytes:
    """Return a statement that creates a database, in the usual tablespace if its own is missing."""
    text = _about(statement, database)
    tokens = statement.tokens
    for i, token in enumerate(tokens):
        if token.says("TABLESPACE"):
            named = next(t for t in tokens[i + 1 :] if t.kind in {"word", "name"})
            if plain(named.text) not in there:
                clause = statement.text[token.begin : named.end]
                return text.replace(clause, b"", 1)
    return text
