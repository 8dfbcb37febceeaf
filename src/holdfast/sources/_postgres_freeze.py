"""A backup of PostgreSQL: snapshots of databases, and the dumps that are taken of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.artifact import Stream
from holdfast.model.facts import Facts
from holdfast.ports import Frozen

from ._command import answer
from ._postgres_address import Address
from ._postgres_count import Selection, together
from ._postgres_dump import (
    DATABASE,
    GLOBALS,
    SERVER,
    TOOL,
    Dump,
    dump_arguments,
    labels,
    part_arguments,
)
from ._postgres_errors import Border
from ._postgres_options import PostgresOptions
from ._postgres_snapshot import Snapshot, held, parted
from ._postgres_spool import opener
from ._postgres_tools import Toolbox, Tools

MOST_PARTS = 8  # tables with a dump of their own: each takes a connection while it waits
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Freezer:
    """Holds the databases of one component still."""

    options: PostgresOptions
    toolbox: Toolbox
    border: Border
    selection: Selection

    @contextmanager
    def frozen(
        self, addresses: Mapping[str, Address], maintenance: Address, workspace: Path
    ) -> Iterator[Frozen]:
        """Give dumps of all databases, each from one snapshot; one moment lies between them."""
        with ExitStack() as everything:
            snapshots = {
                name: everything.enter_context(held(address, self.selection, self.border))
                for name, address in addresses.items()
            }
            first = next(iter(snapshots.values()))
            tools = self.toolbox.for_server((first.server // 10000, first.server % 10000))
            begun: list[Dump] = []
            everything.callback(_close_all, begun)
            artifacts = [
                stream
                for name, snapshot in snapshots.items()
                for stream in self._dumps(name, snapshot, tools, begun)
            ]
            for dump in begun:
                dump.await_locks()
            if self.options.globals:
                artifacts.append(self._globals(tools, first, maintenance, workspace))
            yield Frozen(
                artifacts=artifacts,
                instant=min(snapshot.instant for snapshot in snapshots.values()),
                facts=lambda: self._facts(snapshots),
                version=first.version,
                tools={"pg_dump": tools.shown},
            )
            for snapshot in snapshots.values():
                snapshot.release(self.border)

    def _globals(
        self, tools: Tools, snapshot: Snapshot, maintenance: Address, workspace: Path
    ) -> Stream:
        """Return roles and tablespaces of the server, which no dump of a database has."""
        hidden = [] if snapshot.superuser else ["--no-role-passwords"]
        argv = [
            *(tools["pg_dumpall"], "--no-password", "--globals-only", *hidden),
            *(f"--database={maintenance.database}", f"--dbname={maintenance.argument()}"),
        ]
        with self.border.translating():
            text = answer(argv, maintenance.environment(), patience=self.options.silence)
        path = workspace / f"{GLOBALS}.sql"
        path.touch(mode=0o600)  # there may be hashes of passwords in it
        path.write_bytes(text)
        return Stream(
            name=path.name,
            open=opener(path),
            size_hint=len(text),
            part=GLOBALS,
            labels={DATABASE: GLOBALS, SERVER: snapshot.version, TOOL: tools.shown},
            path=path,
            disposable=True,
        )

    def _facts(self, snapshots: Mapping[str, Snapshot]) -> Facts:
        several = len(snapshots) > 1
        return together(
            {
                name: snapshot.facts(self.selection, f"{name}/" if several else "", self.border)
                for name, snapshot in snapshots.items()
            }
        )

    def _dumps(
        self, name: str, snapshot: Snapshot, tools: Tools, begun: list[Dump]
    ) -> Iterator[Stream]:
        """Start all dumps of a database, so that none of them waits for a lock later."""
        wait = self.options.lock_timeout
        parts = parted(snapshot, self.selection, self.options.split * MB, MOST_PARTS)
        kept = self.selection.counted(snapshot.tables)
        several = bool(self.options.databases)
        main = self._started(
            dump_arguments(tools, snapshot, self.selection, parts, wait), snapshot, begun
        )
        yield Stream(
            name=f"{_file_name(name)}.dump",
            open=main.open,
            size_hint=sum(table.size for table in kept) - sum(table.size for table in parts),
            part=_file_name(name) if several else "",
            labels=labels(name, tools, snapshot, self.selection),
            compressible=True,
        )
        for number, table in enumerate(parts, 1):
            part = self._started(part_arguments(tools, snapshot, table, wait), snapshot, begun)
            yield Stream(
                name=f"{_file_name(name)}-{number}.dump",
                open=part.open,
                size_hint=table.size,
                part=f"{_file_name(name)}-{number}" if several else f"{number}",
                labels=labels(name, tools, snapshot, self.selection, table),
                compressible=True,
            )

    def _started(self, argv: list[str], snapshot: Snapshot, begun: list[Dump]) -> Dump:
        dump = Dump(argv, snapshot.address, snapshot.instant, self.border, self.options.silence)
        begun.append(dump)
        return dump


def _close_all(dumps: list[Dump]) -> None:
    for dump in dumps:
        dump.close()


def _file_name(name: str) -> str:
    """Return a name without what has no place in a file's name."""
    cleaned = "".join(c if c.isprintable() and c not in "/\\ " else "_" for c in name)
    return f"_{cleaned}" if cleaned.startswith((".", "-")) else cleaned
