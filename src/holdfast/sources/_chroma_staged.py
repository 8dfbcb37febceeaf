"""A new Chroma folder beside the live one, until it takes its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from holdfast.errors import SourceCorrupt, TargetInUse, TargetUnfit
from holdfast.model.artifact import Artifact, Tree
from holdfast.ports import Source, Token

from ._chroma_check import check_database, check_indexes
from ._chroma_holder import DATABASE
from ._chroma_open import require
from ._swap import Swap
from ._tree import write_tree

EVIDENCE = "evidence"  # the label of a copy that was made though the folder is damaged
SCRATCH = ".holdfast-check"  # inside the new folder: whatever ends us, it goes with the folder


class Live(Protocol):
    """What a staging needs to know of the live folder."""

    name: str

    @property
    def path(self) -> Path: ...

    def occupants(self) -> Sequence[str]: ...


def only_tree(artifacts: Sequence[Artifact]) -> Tree | None:
    """Return the one tree that a backup of a Chroma folder consists of; None: it does not."""
    if len(artifacts) == 1 and isinstance(artifacts[0], Tree):
        return artifacts[0]
    return None


class ChromaStaged:
    """See `holdfast.ports.Staged`."""

    def __init__(self, live: Live, swap: Swap, look: Callable[[Path], Source]) -> None:
        """``look`` makes a source of a folder that nobody changes."""
        self.token: Token = swap.token
        self._live = live
        self._swap = swap
        self._look = look
        self._new = swap.new(swap.targets[0])

    @property
    def view(self) -> Source:
        """The staged folder as a source to be counted, and asked for its ids."""
        return self._look(self._new)

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write the new folder, durable when this returns, and check its structure.

        Raises:
            NoSpace, TargetUnfit: it cannot be written.
            SourceCorrupt: what was written is not a whole store.

        """
        tree = only_tree(artifacts)
        if tree is None:
            reason = "the backup does not hold one Chroma folder"
            raise TargetUnfit(component=self._live.name, path=self._live.path, reason=reason)
        self._swap.prepare()
        write_tree(tree, self._new, component=self._live.name)
        if EVIDENCE not in tree.labels:
            self._check()

    def _check(self) -> None:
        require("numpy", "restoring a Chroma folder")
        problems = check_database(self._new) or check_indexes(self._new, self._new / SCRATCH)
        if problems:
            raise SourceCorrupt(component=self._live.name, path=self._new, reason=problems[0].text)

    def activate(self) -> None:
        """Switch to the new folder; doing it again does nothing.

        Raises:
            TargetInUse: another program has the live folder open; it would go on with the old one.

        """
        if self._new.exists() and (users := [*self._live.occupants(), *self._lockers()]):
            raise TargetInUse(
                component=self._live.name, path=self._live.path, users=", ".join(users)
            )
        self._swap.activate()

    def _lockers(self) -> Sequence[str]:
        """Ask SQLite whether anyone has a lock: also of those whom this user cannot see."""
        database = self._live.path / DATABASE
        if not database.exists():
            return []
        try:
            with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            # What cannot be opened as a database is not locked either; it may be replaced.
            busy = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in busy:
                return ["a program that holds a lock on its database"]
        return []

    def revert(self) -> None:
        """Put the old folder back."""
        self._swap.revert()

    def settle(self, attic: Path | None) -> str | None:
        """Let the old folder go, or into the attic."""
        return self._swap.settle(attic)
