"""Restoring into a live database itself, for servers on which no other can be made.

What was backed up waits as files until the switch. Then the live content is dumped into files too,
and in a single transaction of the server everything is replaced: applications wait for its locks
from its beginning to its end, and see all or nothing of it. The transaction also marks the database
with the restore's tag, so whether it has happened is known wherever a crash falls.

The database itself stays: its owner, its settings, the rights to it, and its extensions.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.model.artifact import Artifact, Stream
from holdfast.ports import Source, Token

from . import _postgres_roles as roles
from ._command import Environment, Running, printed
from ._laid_out import LaidOut
from ._postgres_address import ENGLISH
from ._postgres_backup import Dumped, backup_of
from ._postgres_count import Selection
from ._postgres_freeze import Freezer
from ._postgres_load import is_about_database, run
from ._postgres_names import mark, unmarked
from ._postgres_preflight import Live, chosen, demand_fit, make_roles
from ._postgres_script import Statement, statements
from ._postgres_session import composed, rows, session, value
from ._postgres_spool import opener, spool
from ._postgres_switch import comment_on

if TYPE_CHECKING:
    from ._postgres_session import Connection

_COMMENT = """
SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
WHERE datname = current_database()
"""
# All that holds rows and all that is made of such, but what an extension has made for itself.
_RELATIONS = """
SELECT CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                    WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
       n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
"""
_UNLINK = "SELECT lo_unlink(oid) FROM pg_largeobject_metadata"
# What the transaction as a whole does, and what stays with the database.
_LEFT_OUT = (
    ("BEGIN",),
    ("COMMIT",),
    ("DROP", "EXTENSION"),
    ("COMMENT", "ON", "EXTENSION"),
    ("DROP", "SCHEMA"),
)
_NO_LIMIT = 1 << 40  # MB: no table gets a dump of its own
_OLD = "old"  # the folder of what was live, below the workspace
_NEW = "new"  # and of what was backed up


class InPlaceStaged:
    """See `holdfast.ports.Staged`. ``workspace`` holds the new content, and then the old."""

    def __init__(self, live: Live, tag: str, databases: Mapping[str, str], workspace: Path) -> None:
        """``databases`` maps the names of the configuration to those on the server."""
        self.token: Token = {
            "tag": tag,
            "databases": dict(databases),
            "workspace": str(workspace),
            "in_place": True,
        }
        self._live = live
        self._tag = tag
        self._databases = databases
        self._workspace = workspace
        self._border = live.border
        self._waiting: list[Artifact] = []

    @property
    def view(self) -> Source:
        """What waits in files, as a source to be counted: no server has it yet."""
        return LaidOut(self._live, self._workspace / _NEW, self._waiting, self._workspace)

    # --- filling ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write what was backed up into files, durable when this returns, and make missing roles.

        Raises:
            SourceMissing: there is no such database; this way none is made.
            TargetUnfit: the server lacks what the dump needs.
            NoSpace: there is no room for the files.

        """
        backup = backup_of(artifacts, self._live.name, self._border.where)
        dumps = chosen(backup, list(self._databases), self._border)
        for name, actual in self._databases.items():
            with session(self._live.address_of(actual), self._border) as connection:
                demand_fit(connection, [dumps[name]], self._border)
                make_roles(connection, backup, self._tag, self._live.options, self._border)
        folder = self._workspace / _NEW
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt
        self._waiting = [
            spool(stream, folder / f"{number}{stream.suffix}", self._live.name)
            for number, stream in enumerate(artifacts)
            if isinstance(stream, Stream)
        ]

    # --- the switch ---

    def activate(self) -> None:
        """Dump what is live, then replace it; doing it again does nothing where it is done."""
        backup = backup_of(self._waiting, self._live.name, self._border.where)
        dumps = chosen(backup, list(self._databases), self._border)
        for name, actual in self._databases.items():
            if self._before(actual) is None:
                self._keep(name, actual)
                self._replace(actual, dumps[name], mark(self._tag, self._comment(actual)))

    def _keep(self, name: str, actual: str) -> None:
        """Dump what is live, whole, whatever the backups leave out."""
        folder = self._workspace / _OLD
        everything = {"exclude": (), "exclude_data": (), "globals": False, "split": _NO_LIMIT}
        options = self._live.options.model_copy(update=everything)
        freezer = Freezer(options, self._live.toolbox, self._border, Selection())
        addresses = {name: self._live.address_of(actual)}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with freezer.frozen(addresses, self._live.maintenance(), folder) as frozen:
            for stream in frozen.artifacts:
                assert isinstance(stream, Stream)  # noqa: S101 - dumps are
                spool(stream, self._kept(name), self._live.name)

    def _kept(self, name: str) -> Path:
        number = list(self._databases).index(name)
        return self._workspace / _OLD / f"{number}.dump"

    def _replace(self, actual: str, dumped: Dumped, comment: str) -> None:
        """Replace what a database holds, and its comment, in one transaction."""
        address = self._live.address_of(actual)
        with session(address, self._border) as connection, connection.transaction():
            _drop_everything(connection)
            for statement in self._script(dumped):
                _run_inside(connection, statement)
            comment_on(connection, actual, comment)

    def _script(self, dumped: Dumped) -> Iterator[Statement]:
        """Give all statements of a dump in the order that they must be run in."""
        if dumped.is_script:
            with dumped.main.open() as chunks:
                yield from statements(chunks)
            return
        yield from self._section(dumped, dumped.main, "pre-data", "--clean", "--if-exists")
        for stream in (dumped.main, *dumped.parts):
            yield from self._section(dumped, stream, "data")
        yield from self._section(dumped, dumped.main, "post-data")

    def _section(
        self, dumped: Dumped, stream: Stream, section: str, *more: str
    ) -> Iterator[Statement]:
        tools = self._live.toolbox.for_archive(dumped.tool)
        rights = () if self._live.options.owners else ("--no-owner", "--no-privileges")
        argv = [tools["pg_restore"], f"--section={section}", "--file=-", *rights, *more]
        silence = self._live.options.silence
        with Running([*argv, str(stream.path)], Environment(ENGLISH), patience=silence) as program:
            yield from statements(printed(program))
            program.finish()

    # --- the way back, and the end ---

    def revert(self) -> None:
        """Put back what was live, if it was replaced."""
        for name, actual in self._databases.items():
            before = self._before(actual)
            if before is not None:
                path = self._kept(name)
                kept = Stream(path.name, opener(path), path=path)
                self._replace(actual, Dumped(name, kept), before)
        with session(self._live.maintenance(), self._border) as connection:
            roles.unmake(connection, self._tag)

    def settle(self, attic: Path | None) -> str | None:
        """Let the dumps of what was live go, or into the attic."""
        for actual in self._databases.values():
            before = self._before(actual)
            if before is not None:
                with session(self._live.address_of(actual), self._border) as connection:
                    comment_on(connection, actual, before)
        with session(self._live.maintenance(), self._border) as connection:
            roles.settle(connection, self._tag)
        old = self._workspace / _OLD
        if attic is None:
            shutil.rmtree(old, ignore_errors=True)
            return None
        if old.exists():
            attic.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.move(old, attic)
        return str(attic) if attic.exists() else None

    def _before(self, actual: str) -> str | None:
        """Return the comment that a database had, if this restore has replaced its content."""
        return unmarked(self._comment(actual), self._tag)

    def _comment(self, actual: str) -> str:
        with session(self._live.address_of(actual), self._border) as connection:
            return str(value(connection, _COMMENT))


def _drop_everything(connection: Connection) -> None:
    """Drop what holds rows: what the backup does not have would stay otherwise."""
    for kind, schema, name in rows(connection, _RELATIONS):
        connection.execute(composed(f"DROP {kind} IF EXISTS {{}}.{{}} CASCADE", schema, name))
    connection.execute(_UNLINK)


def _run_inside(connection: Connection, statement: Statement) -> None:
    """Run a statement of a dump in a transaction that holds the whole of it."""
    if is_about_database(statement) or any(statement.begins(*words) for words in _LEFT_OUT):
        return
    if statement.begins("CREATE", "SCHEMA"):
        at = statement.tokens[1].end
        text = statement.text
        connection.execute(text[:at] + b" IF NOT EXISTS" + text[at:])
        return
    run(connection, statement)
