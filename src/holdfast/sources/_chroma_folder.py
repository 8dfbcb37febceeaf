"""Chroma folders (``chromadb.PersistentClient``, ``chroma run``): copied exactly while written to.

See `_chroma_fence` for how; the live folder is never opened by Chroma, and nothing in it changes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import ClassVar

from holdfast.errors import (
    HoldfastError,
    SourceCorrupt,
    SourceLocked,
    SourceMissing,
    SourceUnfit,
    SourceUnreadable,
    UnknownName,
    UsageInvalid,
)
from holdfast.model.artifact import Artifact
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Options
from holdfast.ports import Frozen, Role, Token

from ._chroma_check import Problem, check_database, check_indexes
from ._chroma_database import (
    Collection,
    NotChroma,
    collections,
    count_ids,
    facts,
    ids,
    reading,
    values,
)
from ._chroma_fence import Budget, Copied, Fence, unfit
from ._chroma_holder import DATABASE
from ._chroma_open import ask_chroma, require
from ._chroma_options import ChromaOptions
from ._chroma_staged import EVIDENCE, ChromaStaged, only_tree
from ._elsewhere import local_path
from ._guide import unpacking
from ._mounts import shared_file_system
from ._occupants import open_by
from ._sqlite_names import unique_names
from ._survey import Survey
from ._swap import Swap
from ._tree import tree_of, write_tree

COPY = "copy"  # the names in the workspace
SCRATCH = "check.db"
SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "lost+found"}
DEEPEST = 6


class ChromaFolder:
    """One Chroma folder. See `holdfast.ports.Source`."""

    kind: ClassVar[str] = "chroma"
    role: ClassVar[Role] = Role.VECTORS
    options_model: ClassVar[type[Options]] = ChromaOptions

    def __init__(self, name: str, options: Options) -> None:
        """Touch nothing."""
        if not isinstance(options, ChromaOptions) or options.path is None:
            raise TypeError(f"{type(options).__name__} are not options of a Chroma folder")
        self.name = name
        self.options = options
        self.path = options.path  # where the live folder is, or will be

    @property
    def where(self) -> str:
        """Say where the live folder is."""
        return str(self.path)

    @property
    def _real(self) -> Path:
        return Path(os.path.realpath(self.path))

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find folders below ``folder`` that hold a database with Chroma's tables."""
        found = [path for path in _candidates(folder) if _is_chroma(path)]
        for name, path in zip(unique_names(found), found, strict=True):
            yield Discovery(name, cls.kind, {"path": str(path.relative_to(folder))})

    def probe(self) -> Probe:
        """Look whether there is a Chroma folder that can be held still."""
        tools = _tools()
        try:
            self._refuse_unfit()
            with self._reading() as connection:
                collections(connection)
        except HoldfastError as error:
            return Probe(reachable=False, tools=tools, problems=(str(error),))
        return Probe(
            reachable=True, version=tools.get("chromadb", ""), size=_size(self._real), tools=tools
        )

    def facts(self) -> Facts:
        """Count the live collections, what is still in the queue included; empty without a folder.

        Raises:
            SourceUnfit, SourceCorrupt, SourceLocked, SourceUnreadable: it cannot be counted.

        """
        if not (self.path / DATABASE).exists():
            return Facts()
        with self._reading() as connection:
            return facts(connection)

    # --- freezing ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Copy the folder into ``workspace`` as of one instant. Writers wait for the copying alone.

        Raises:
            SourceMissing, SourceUnfit, SourceUnreadable, SourceLocked: it cannot be copied.
            SourceUnstable: it never came to rest.
            SourceCorrupt: it is damaged; from ``facts`` of what is given, if that finds it.

        """
        require("numpy", "copying a Chroma folder")
        self._refuse_unfit()
        copy = workspace / COPY
        copy.mkdir()

        def check() -> list[Problem]:
            return check_indexes(copy, workspace / SCRATCH)

        copied = self._fence(copy).copy(check, evidence=evidence)
        problems = [*copied.problems, *(check_database(copy) if evidence else ())]
        yield self._frozen(copy, copied, problems, evidence=bool(problems))

    def _fence(self, copy: Path) -> Fence:
        options = self.options
        budget = Budget(options.lock_timeout, options.pause_limit, options.attempts)
        return Fence(self.name, self._real, copy, budget)

    def _frozen(
        self, copy: Path, copied: Copied, problems: Sequence[Problem], *, evidence: bool
    ) -> Frozen:
        survey = Survey()
        labels = {EVIDENCE: problems[0].text} if evidence else {}
        tree = tree_of(copy, self._real.name or self.name, survey=survey)
        tree = replace(tree, labels=labels, size_hint=_size(copy))

        def counted() -> Facts:
            if evidence:
                return self._facts_of_evidence(copy, problems)
            return self._facts_of_copy(copy, copied)

        tools = _tools()
        return Frozen(
            artifacts=[tree],
            instant=copied.instant,
            facts=counted,
            exact=not evidence,
            evidence=evidence,
            version=tools.get("chromadb", ""),
            tools=tools,
        )

    def _facts_of_copy(self, copy: Path, copied: Copied) -> Facts:
        if problems := check_database(copy):
            raise SourceCorrupt(component=self.name, path=self.path, reason=problems[0].text)
        with reading(copy / DATABASE, still=True) as connection:
            counted = facts(connection)
        pause = {"writers_held_seconds": round(max(copied.held), 3), "attempts": copied.attempts}
        return replace(counted, details={**counted.details, **pause})

    def _facts_of_evidence(self, copy: Path, problems: Sequence[Problem]) -> Facts:
        notes = tuple(problem.text for problem in problems)
        try:
            with reading(copy / DATABASE, still=True) as connection:
                return replace(facts(connection), notes=notes)
        except (sqlite3.DatabaseError, NotChroma):  # the notes say why it cannot be counted
            return Facts({"bytes": _size(copy)}, notes=notes)

    def _refuse_unfit(self) -> None:
        """Raise unless there is a Chroma folder here, on a disk whose locks hold."""
        if not self.path.exists():
            raise SourceMissing(component=self.name, path=self.path)
        if not (self.path / DATABASE).is_file():
            raise unfit(self.name, self.path, f"it has no {DATABASE}")
        if kind := shared_file_system(self.path):
            raise SourceUnfit(
                component=self.name,
                path=self.path,
                expected="on a local disk",
                reason=f"locks on {kind} do not keep writers on other machines out",
            )

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Check the structure of a stored folder, then let Chroma itself open it, count and query.

        Chroma loads whole indexes into memory, in a process of its own.

        Raises:
            ExtraMissing: Chroma is not installed.

        """
        require("chromadb", "opening a Chroma backup")
        tree = only_tree(artifacts)
        if tree is None:
            return Inspection(Facts(), ("the backup does not hold one Chroma folder",))
        copy = workspace / COPY
        write_tree(tree, copy, component=self.name)
        problems = check_database(copy) or check_indexes(copy, workspace / SCRATCH)
        lines = [problem.text for problem in problems]
        try:
            with reading(copy / DATABASE, still=True) as connection:
                counted = facts(connection)
                counts = [(each, count_ids(connection, each)) for each in collections(connection)]
        except (sqlite3.DatabaseError, NotChroma) as error:
            return Inspection(Facts(), tuple(lines) or (f"{DATABASE}: {error}",))
        if not lines:  # what is damaged already may crash it, or be changed by opening
            lines += ask_chroma(copy, counts, workspace, self.options.open_timeout)
        return Inspection(counted, tuple(lines))

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> ChromaStaged:
        """Return the place beside the live folder."""
        del workspace  # everything is staged beside the live folder
        return ChromaStaged(self, Swap(self.name, [self.path], tag), self._look)

    def reopen(self, token: Token) -> ChromaStaged:
        """Return a staging by its token."""
        return ChromaStaged(self, Swap.reopened(self.name, token), self._look)

    def at(self, folder: Path) -> ChromaFolder:
        """Return the source whose Chroma folder is ``folder`` itself."""
        return self._look(folder)

    def elsewhere(self, url: str) -> ChromaFolder:
        """Return the source whose Chroma folder is ``url``."""
        return self._look(local_path(url, self.name))

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[ChromaFolder]:
        """Give a Chroma folder in the workspace."""
        yield self.at(workspace / "twin")

    def _look(self, folder: Path) -> ChromaFolder:
        return ChromaFolder(self.name, self.options.at_path(folder))

    def occupants(self) -> Sequence[str]:
        """Name the programs that have a file of the live folder open."""
        return open_by([self.path]) if self.path.exists() else []

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Unpack the archive, or copy the folder, into the target folder."""
        return [unpacking(path) for path in paths.values()]

    # --- keys ---

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the ids of ``collection``, or with ``metadata`` that value of each id that has it.

        Raises:
            UsageInvalid: other options than these, or no ``collection``.
            UnknownName: there is no such collection.

        """
        if "collection" not in options or set(options) - {"collection", "metadata"}:
            problem = (
                "keys of a Chroma folder are chosen by `collection` and, if wanted, `metadata`"
            )
            raise UsageInvalid(problem=f"{self.name}: {problem}")
        with self._reading() as connection:
            chosen = self._chosen(connection, options["collection"])
            key = options.get("metadata")
            yield ids(connection, chosen) if key is None else values(connection, chosen, key)

    def _chosen(self, connection: sqlite3.Connection, title: str) -> Collection:
        known = {each.title: each for each in collections(connection)}
        if title not in known:
            listed = ", ".join(known) or "none"
            raise UnknownName(what="collection", name=title, known=listed)
        return known[title]

    # --- the live database ---

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Read the live database as of one instant; translates what SQLite raises."""
        path = self._real / DATABASE
        if not path.exists():
            raise SourceMissing(component=self.name, path=path)
        try:
            with reading(path, seconds=self.options.lock_timeout) as connection:
                yield connection
        except NotChroma as error:
            raise unfit(self.name, self.path, str(error)) from error
        except sqlite3.DatabaseError as error:
            raise self._translated(error, path) from error

    def _translated(self, error: sqlite3.DatabaseError, path: Path) -> HoldfastError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            seconds = round(self.options.lock_timeout)
            return SourceLocked(component=self.name, path=path, seconds=seconds)
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return SourceCorrupt(component=self.name, path=path, reason=str(error))
        return SourceUnreadable(component=self.name, path=path, reason=str(error))


def _candidates(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, followlinks=False):
        place = Path(root)
        if DATABASE in files:
            yield place
            folders.clear()
        depth = len(place.relative_to(folder).parts)
        folders[:] = sorted(
            name
            for name in folders
            if depth < DEEPEST and not name.startswith(".") and name not in SKIPPED
        )


def _is_chroma(folder: Path) -> bool:
    try:
        with reading(folder / DATABASE, seconds=1.0) as connection:
            collections(connection)
    except (sqlite3.DatabaseError, NotChroma):
        return False
    return True


def _size(folder: Path) -> int:
    total = 0
    for root, _folders, files in os.walk(folder):
        for name in files:
            path = Path(root, name)
            if path.is_file():
                total += path.stat().st_size
    return total


def _tools() -> dict[str, str]:
    tools = {"sqlite": sqlite3.sqlite_version}
    with suppress(PackageNotFoundError):  # only native verification needs it
        tools["chromadb"] = version("chromadb")
    return tools
