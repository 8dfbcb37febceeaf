"""SQLite databases: copied exactly while they are written to, never changed by it.

Everything that opens the live file happens in a process of its own (`_sqlite_server`); this module
asks it. See `_sqlite_hold` for how a database is held still.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from holdfast.errors import (
    HoldfastError,
    SourceCorrupt,
    SourceMissing,
    SourceUnfit,
    SourceUnreadable,
    SourceUnstable,
    UsageInvalid,
)
from holdfast.model.artifact import CHUNK, Artifact, Chunks, Stream
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Field, LocalPath, Options
from holdfast.ports import Frozen, Role, Token

from ._elsewhere import local_path
from ._occupants import open_by
from ._sqlite_format import COMPANIONS
from ._sqlite_holder import Holder
from ._sqlite_inspect import Inspector, counted, facts_of_evidence
from ._sqlite_names import unique_names
from ._sqlite_staged import EVIDENCE, SqliteStaged, companions
from ._swap import Swap

SHOWN = 3  # problems in an error message; the inspection lists them all


class SqliteOptions(Options):
    """Options of a component of kind ``sqlite``."""

    path: LocalPath = Field(description="The database file. A symbolic link is followed.")
    check: Literal["quick", "full", "none"] = Field(
        default="quick",
        description="How a copy is checked while it is made: `quick` is SQLite's quick_check,"
        " `full` its integrity_check, which also compares indexes with their tables.",
    )
    lock_timeout: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="Seconds to wait for a database that another program locks.",
    )
    foreign_keys: bool = Field(
        default=True,
        description="Whether verifying a backup counts rows that refer to missing rows as a"
        " problem. Turn it off for an application that lives with such rows.",
    )


class SqliteSource:
    """One SQLite database file. See `holdfast.ports.Source`."""

    kind: ClassVar[str] = "sqlite"
    role: ClassVar[Role] = Role.ROWS
    options_model: ClassVar[type[Options]] = SqliteOptions

    def __init__(self, name: str, options: Options) -> None:
        """Touch nothing."""
        if not isinstance(options, SqliteOptions):
            raise TypeError(f"{type(options).__name__} are not options of an SQLite database")
        self.name = name
        self.options = options

    @property
    def path(self) -> Path:
        """Where the live file is, or will be."""
        return self.options.path

    @property
    def where(self) -> str:
        """Say where the live file is."""
        return str(self.path)

    @property
    def _real(self) -> Path:
        # SQLite puts log and journal beside the file itself, not beside a link to it.
        return Path(os.path.realpath(self.path))

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find database files below ``folder`` by how they begin, whatever they are called."""
        with Holder("discover", folder, 0) as holder:
            paths = [Path(path) for path in holder.ask("find", folder=str(folder))["paths"]]
        for name, path in zip(unique_names(paths), paths, strict=True):
            yield Discovery(name, cls.kind, {"path": str(path.relative_to(folder))})

    def probe(self) -> Probe:
        """Look whether there is a database that can be read."""
        import sqlite3

        tools = {"sqlite": sqlite3.sqlite_version}
        try:
            with self._holder() as holder:
                holder.ask("look", path=str(self._real))
        except HoldfastError as error:
            return Probe(reachable=False, tools=tools, problems=(str(error),))
        members = [self._real, *companions(self._real)[:1]]
        size = sum(member.stat().st_size for member in members if member.exists())
        return Probe(reachable=True, version=sqlite3.sqlite_version, size=size, tools=tools)

    def facts(self) -> Facts:
        """Count the live database; empty if there is none.

        Raises:
            SourceCorrupt: it is damaged.

        """
        try:
            with self._reading() as holder:
                return self._survey(holder, "none")
        except SourceMissing:
            return Facts()

    # --- freezing ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Hold the database still: an exact snapshot, which writers do not wait for in WAL mode.

        Raises:
            SourceMissing, SourceUnreadable, SourceUnfit, SourceLocked: it cannot be held.
            SourceCorrupt: it is damaged; from ``facts`` of what is given, if that finds it.
            SourceUnstable: the hold was lost on the way; what was read must not be kept.

        """
        with self._holder() as holder:
            try:
                held = self._hold(holder, workspace, copying=True)
                if evidence:
                    self._survey(holder, "quick")
            except (SourceCorrupt, SourceUnfit) as error:
                if not evidence:
                    raise
                damage = str(error)
            else:
                damage = ""
                yield self._frozen(holder, held)
                self._release(holder)
        if damage:
            yield self._evidence(workspace, damage)

    def _hold(self, holder: Holder, workspace: Path, *, copying: bool) -> dict[str, Any]:
        return holder.ask(
            "hold",
            path=str(self._real),
            workspace=str(workspace),
            timeout=self.options.lock_timeout,
            copying=copying,
        )

    def _frozen(self, holder: Holder, held: Mapping[str, Any]) -> Frozen:
        if held["copy"]:
            artifact = _of_file(Path(held["copy"]), self.path.name)
        else:
            size: int = held["size"]

            @contextmanager
            def opened() -> Iterator[Chunks]:
                yield holder.chunks(size)

            artifact = Stream(self.path.name, opened, size)
        return self._as_frozen(
            [artifact],
            datetime.fromtimestamp(held["instant"], UTC),
            partial(self._survey, holder, self.options.check),
        )

    def _as_frozen(
        self,
        artifacts: Sequence[Artifact],
        instant: datetime,
        facts: Any,
        *,
        evidence: bool = False,
    ) -> Frozen:
        import sqlite3

        return Frozen(
            artifacts=artifacts,
            instant=instant,
            facts=facts,
            exact=not evidence,
            evidence=evidence,
            version=sqlite3.sqlite_version,
            tools={"sqlite": sqlite3.sqlite_version},
        )

    def _survey(self, holder: Holder, check: str) -> Facts:
        """Count what is held; raise if it is damaged."""
        facts, problems = counted(holder, check)
        if problems:
            reason = _shown(problems)
            raise SourceCorrupt(component=self.name, path=self.path, reason=reason)
        return facts

    def _release(self, holder: Holder) -> None:
        if not holder.ask("release")["trusted"]:
            raise SourceUnstable(
                component=self.name, path=self.path, reason="it was changed while it was read"
            )

    def _evidence(self, workspace: Path, damage: str) -> Frozen:
        """Copy the files as they are, for whoever wants to find out what happened."""
        instant = datetime.now(UTC)
        with self._holder() as holder:
            path, folder = str(self._real), str(workspace)
            suffixes = holder.ask("copy_raw", path=path, workspace=folder)["suffixes"]
        copies = [workspace / f"raw{suffix}" for suffix in suffixes]
        artifacts = [
            _of_file(copy, self.path.name + suffix, suffix[1:], {EVIDENCE: damage})
            for copy, suffix in zip(copies, suffixes, strict=True)
        ]
        facts = facts_of_evidence(sum(copy.stat().st_size for copy in copies), damage)
        return self._as_frozen(artifacts, instant, lambda: facts, evidence=True)

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Check the stored database, its indexes and its references, and count it."""
        return Inspector(self.name, foreign_keys=self.options.foreign_keys).inspect(
            artifacts, workspace
        )

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> SqliteStaged:
        """Return the place beside the live file where a restore puts the new one."""
        del workspace  # everything is staged beside the live file
        return self._staged(Swap(self.name, [self.path], tag, companions))

    def reopen(self, token: Token) -> SqliteStaged:
        """Return a staging by its token."""
        return self._staged(Swap.reopened(self.name, token, companions))

    def _staged(self, swap: Swap) -> SqliteStaged:
        return SqliteStaged(self, swap, lambda path: StillSource(self.name, self._options(path)))

    def at(self, folder: Path) -> SqliteSource:
        """Return a database of the same file name in ``folder``."""
        return SqliteSource(self.name, self._options(folder / self.path.name))

    def elsewhere(self, url: str) -> SqliteSource:
        """Return a database that is the file ``url``."""
        return SqliteSource(self.name, self._options(local_path(url, self.name)))

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[SqliteSource]:
        """Give a database in the workspace."""
        yield self.at(workspace)

    def _options(self, path: Path) -> SqliteOptions:
        return self.options.model_copy(update={"path": path})

    def occupants(self) -> Sequence[str]:
        """Name the programs that have the database or its log open, or hold a lock on it."""
        members = [self._real, *companions(self._real)]
        if users := open_by(members):
            return users
        try:
            with self._holder() as holder:
                processes = holder.ask("lockers", path=str(self._real))["processes"]
        except (SourceMissing, SourceUnfit, SourceUnreadable):
            return []
        return [
            f"a program (pid {process})" if process > 0 else "a program on another system"
            for process in processes
        ]

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return the lines that set the old file aside, copy the backup there and check it."""
        name = self.path.name
        lines = ['mkdir -p "$TARGET"']
        members = " ".join(shlex.quote(name + suffix) for suffix in ("", *COMPANIONS))
        lines.append(
            f'for old in {members}; do if [ -e "$TARGET/$old" ]; then '
            'mv "$TARGET/$old" "$TARGET/$old.before-$(date +%Y%m%d%H%M%S)"; fi; done'
        )
        for part, path in paths.items():
            own = f"{name}-{part}" if part else name
            lines.append(f'cp {path} "$TARGET"/{shlex.quote(own)}')
        lines.append(f'sqlite3 "$TARGET"/{shlex.quote(name)} "PRAGMA integrity_check"')
        return lines

    # --- asking ---

    @contextmanager
    def query(self, sql: str) -> Iterator[Iterator[tuple[object, ...]]]:
        """Run one reading statement on the live database; rows come as they are read.

        Raises:
            UsageInvalid: it is no statement, or one that would write.

        """
        with self._reading() as holder, closing(holder.rows(sql)) as rows:
            yield rows

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the first column of the rows of ``options["sql"]`` as text, without empty ones."""
        if set(options) != {"sql"}:
            raise UsageInvalid(problem=f"{self.name}: keys of a database are selected by `sql`")
        with self.query(options["sql"]) as rows:
            yield (_text(row[0]) for row in rows if row[0] is not None)

    @contextmanager
    def _reading(self) -> Iterator[Holder]:
        """Give the live database for reading; raise at the end if it changed under the reader."""
        with tempfile.TemporaryDirectory(prefix="holdfast-") as workspace, self._holder() as holder:
            self._hold(holder, Path(workspace), copying=False)
            yield holder
            self._release(holder)

    def _holder(self) -> Holder:
        return Holder(self.name, self.path, self.options.lock_timeout)


class StillSource(SqliteSource):
    """A database file that nobody changes: staged content."""

    def facts(self) -> Facts:
        """Count what can be counted, and note what cannot: restored evidence may be damaged."""
        with self._reading() as holder:
            return counted(holder, "none")[0]

    @contextmanager
    def _reading(self) -> Iterator[Holder]:
        with self._holder() as holder:
            holder.ask("still", path=str(self.path), recovering=False)
            yield holder


def _of_file(
    path: Path, name: str, part: str = "", labels: Mapping[str, str] | None = None
) -> Stream:
    """Return the artifact of a file in the workspace, which the vault may take."""

    @contextmanager
    def opened() -> Iterator[Chunks]:
        with path.open("rb", buffering=0) as file:
            yield iter(lambda: file.read(CHUNK), b"")

    size = path.stat().st_size
    return Stream(name, opened, size, part, labels or {}, path=path, disposable=True)


def _shown(problems: Sequence[str]) -> str:
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(line.replace("\n", " ") for line in problems[:SHOWN]) + more


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
