"""PostgreSQL: databases of a server, dumped from one snapshot and restored beside the live ones.

The server's own programs write and read the dumps; a session of ours holds the snapshot that they
and the counts see (`_postgres_snapshot`). A restore fills new databases and then exchanges names
(`_postgres_staged`), or works in place where a server allows nothing else (`_postgres_in_place`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from holdfast.errors import ExtraMissing, HoldfastError, SourceMissing, UsageInvalid
from holdfast.model.artifact import Artifact
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Options
from holdfast.ports import Frozen, Role, Source, Staged, Token

from ._laid_out import LaidOut
from ._postgres_address import Address
from ._postgres_backup import backup_of
from ._postgres_count import Selection, count, together
from ._postgres_errors import Border
from ._postgres_freeze import Freezer
from ._postgres_guide import guide
from ._postgres_inspect import Inspector
from ._postgres_options import SCHEMES, PostgresOptions
from ._postgres_probe import probe
from ._postgres_session import session
from ._postgres_staged import PostgresStaged
from ._postgres_tools import Toolbox

__all__ = ["PostgresOptions", "PostgresSource"]

# SQLSTATEs of what is wrong with a statement itself, and of one that would write.
_NO_QUESTION = ("42", "25006", "0A000", "34000")
_NO_RIGHT = "42501"
BATCH = 500  # rows that a question brings at once


class PostgresSource:
    """Databases of one server. See `holdfast.ports.Source`."""

    kind: ClassVar[str] = "postgres"
    role: ClassVar[Role] = Role.ROWS
    options_model: ClassVar[type[Options]] = PostgresOptions

    def __init__(
        self,
        name: str,
        options: Options,
        databases: Mapping[str, str] | None = None,
        selections: Mapping[str, Selection] | None = None,
    ) -> None:
        """Touch nothing.

        ``databases`` maps the names of the configuration to those on the server, where they differ:
        in a view or a twin. ``selections`` say what is left out there, if that is known better.
        """
        if not isinstance(options, PostgresOptions):
            raise TypeError(f"{type(options).__name__} are not options of PostgreSQL")
        if find_spec("psycopg") is None:
            raise ExtraMissing(what=f"{name}, a database", package="psycopg", extra="postgres")
        self.name = name
        self.options = options
        self._given = databases
        self._selections = selections or {}

    # --- where it is ---

    @cached_property
    def _address(self) -> Address:
        options = self.options
        try:
            return Address.parsed(options.url, options.password, options.connect_timeout)
        except ValueError as error:
            raise UsageInvalid(problem=f"{self.name}: `url`: {error}") from None

    @property
    def databases(self) -> Mapping[str, str]:
        """The databases: their names in the configuration, and on the server."""
        if self._given is not None:
            return self._given
        return {name: name for name in self.options.databases or (self._address.database,)}

    @property
    def where(self) -> str:
        """Say which database it is, or which server's."""
        actual = list(self.databases.values())
        shown = self._address.of(actual[0]).where
        return shown if len(actual) == 1 else f"{shown} (and {', '.join(actual[1:])})"

    @property
    def border(self) -> Border:
        """Where the errors of what lies beneath become ours."""
        return Border(self.name, self.where, self.options.lock_timeout)

    @property
    def toolbox(self) -> Toolbox:
        """The programs on this machine."""
        return Toolbox(self.name, self.options.tools)

    def address_of(self, database: str) -> Address:
        """Return the address of a database on this server."""
        return self._address.of(database)

    def maintenance(self) -> Address:
        """Return the address of the database from which others are created and renamed."""
        name = self.options.maintenance
        return self._address.of("template1" if name in self.databases.values() else name)

    # --- looking ---

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find servers in compose files and ``.env``."""
        from ._postgres_find import find

        return find(folder, cls.kind)

    def probe(self) -> Probe:
        """Look whether the databases can be reached, dumped and restored."""
        try:
            addresses = [self.address_of(actual) for actual in self.databases.values()]
            return probe(addresses, self.toolbox, self.border, self._selection)
        except HoldfastError as error:
            return Probe(reachable=False, problems=(str(error),))

    def facts(self) -> Facts:
        """Count the live databases; empty if there is none of them.

        Raises:
            ServerUnreachable, AccessRefused, ServerFailed: they cannot be counted.

        """
        found = {}
        for name, actual in self.databases.items():
            try:
                with session(self.address_of(actual), self.border) as connection:
                    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    found[name] = count(connection, self._selected(name), self._prefix(name))
            except SourceMissing:
                continue
        return together(found) if found else Facts()

    @property
    def _selection(self) -> Selection:
        return Selection(self.options.exclude, self.options.exclude_data)

    def _selected(self, name: str) -> Selection:
        return self._selections.get(name, self._selection)

    def _prefix(self, name: str) -> str:
        return f"{name}/" if len(self.databases) > 1 else ""

    def occupants(self) -> Sequence[str]:
        """Name nobody: at the switch connections are ended, and programs connect again."""
        return ()

    # --- backing up ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Hold the databases still: one snapshot each, which writers do not notice.

        A server keeps no damaged state that a dump could show, so ``evidence`` changes nothing.

        Raises:
            SourceMissing, ServerUnreachable, AccessRefused: it cannot be held.
            SourceLocked, SourceUnstable, SourceUnfit: nor now, or not like this.
            ToolMissing, ToolTooOld: there is no program that may dump it.
            ServerFailed, ConnectionLost: a dump failed, even if only after its last byte.

        """
        del evidence
        addresses = {name: self.address_of(actual) for name, actual in self.databases.items()}
        freezer = Freezer(self.options, self.toolbox, self.border, self._selection)
        with freezer.frozen(addresses, self.maintenance(), workspace) as frozen:
            yield frozen

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read the dumps to their ends with `pg_restore`, and count their rows; needs no server."""
        del workspace
        backup = backup_of(artifacts, self.name, self.where)
        return Inspector(self.toolbox, self.options.silence).inspect(backup)

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> Staged:
        """Return the place on the server where a restore puts new databases."""
        return self._staged(tag, self.databases, workspace, in_place=self.options.in_place)

    def reopen(self, token: Token) -> Staged:
        """Return a staging by its token."""
        databases = token["databases"]
        assert isinstance(databases, dict)  # noqa: S101 - as `staging` wrote it
        return self._staged(
            str(token["tag"]),
            {name: str(actual) for name, actual in databases.items()},
            Path(str(token["workspace"])),
            in_place=bool(token["in_place"]),
        )

    def _staged(
        self, tag: str, databases: Mapping[str, str], workspace: Path, *, in_place: bool
    ) -> Staged:
        if in_place:
            from ._postgres_in_place import InPlaceStaged

            return InPlaceStaged(self, tag, databases, workspace)
        return PostgresStaged(self, tag, databases, workspace)

    def looking_at(
        self, databases: Mapping[str, str], selections: Mapping[str, Selection]
    ) -> PostgresSource:
        """Return a source of databases with other names on the same server."""
        return PostgresSource(self.name, self.options, databases, selections)

    def twin(self, options: PostgresOptions, databases: Mapping[str, str]) -> PostgresSource:
        """Return a source of the same name somewhere else."""
        return PostgresSource(self.name, options, databases)

    def at(self, folder: Path) -> Source:
        """Return a folder for the dumps themselves."""
        return LaidOut(self, folder)

    def elsewhere(self, url: str) -> PostgresSource:
        """Return the same databases on another server, or another one where that names it.

        Raises:
            UsageInvalid: it is no address of a PostgreSQL server.

        """
        if urlsplit(url).scheme not in SCHEMES:
            problem = f"{self.name} can be restored to postgresql://… or to a folder"
            raise UsageInvalid(problem=problem)
        options = PostgresOptions.model_validate(self.options.model_dump() | {"url": url})
        other = PostgresSource(self.name, options)
        if not urlsplit(url).path.strip("/") and not self.options.databases:
            return PostgresSource(self.name, options, self.databases)
        return other

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[Source]:
        """Give an empty twin: a server of its own where one can be run, or else new databases.

        Raises:
            NoScratch: neither is possible.

        """
        from ._postgres_scratch import scratch

        with scratch(self, workspace) as twin:
            yield twin

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return the lines that make new databases and load the dumps into them."""
        return guide(paths)

    # --- asking ---

    @contextmanager
    def query(self, sql: str) -> Iterator[Iterator[tuple[object, ...]]]:
        """Run one reading statement on the first database; rows come as they are read.

        Raises:
            UsageInvalid: it is no statement, or one that would write.

        """
        import psycopg

        address = self.address_of(next(iter(self.databases.values())))
        with session(address, self.border, own_path=True) as connection:
            connection.execute("BEGIN READ ONLY")
            try:
                with connection.cursor("holdfast") as cursor:
                    cursor.itersize = BATCH
                    cursor.execute(sql.encode())
                    yield iter(cursor)
            except psycopg.Error as error:
                state = error.sqlstate or ""
                if state == _NO_RIGHT or not state.startswith(_NO_QUESTION):
                    raise
                problem = f"{self.name}: {error.diag.message_primary}"
                raise UsageInvalid(problem=problem) from error

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the first column of the rows of ``options["sql"]`` as text, without empty ones."""
        if set(options) != {"sql"}:
            raise UsageInvalid(problem=f"{self.name}: keys of a database are selected by `sql`")
        with self.query(options["sql"]) as rows:
            yield (str(row[0]) for row in rows if row[0] is not None)
