"""Reading an export of a Chroma server as a restore would, and counting what is in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from holdfast.model.artifact import Chunks
from holdfast.model.facts import Facts, Inspection

from ._chroma_server_api import Collection
from ._chroma_server_format import FLOAT, Begin, End, FlawError, Item, Records, items
from ._chroma_server_scope import counted

NAMES = "inspected.db"  # in the workspace
MOST_PROBLEMS = 20


def inspect_export(chunks: Chunks, workspace: Path) -> Inspection:
    """Check structure, ids and numbers of an export, and count it as the server was counted."""
    names = workspace / NAMES
    with closing(sqlite3.connect(names, isolation_level=None)) as connection:
        for setting in ("journal_mode=OFF", "synchronous=OFF"):
            connection.execute(f"PRAGMA {setting}")
        inspector = _Inspector(connection)
        try:
            for item in items(chunks):
                inspector.see(item)
        except FlawError as error:
            inspector.problems.append(str(error))
    names.unlink()
    return Inspection(inspector.facts(), tuple(inspector.problems[:MOST_PROBLEMS]))


class _Inspector:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.problems: list[str] = []
        self._connection = connection
        self._counted: dict[str, tuple[Collection, int]] = {}
        self._open: tuple[Collection, str] | None = None

    def see(self, item: Item) -> None:
        if isinstance(item, Begin):
            self._begin(item)
        elif isinstance(item, Records):
            self._records(item)
        elif isinstance(item, End) and self._open is not None:
            one, title = self._open
            self._counted[title] = (one, item.count)
            self._open = None

    def facts(self) -> Facts:
        """Return what was read to its end."""
        return counted(self._counted)

    def _begin(self, begin: Begin) -> None:
        if begin.title in self._counted:
            self.problems.append(f"collection {begin.title} is in it twice")
        self._open = (begin.collection, begin.title)
        self._connection.execute("DROP TABLE IF EXISTS ids")
        self._connection.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def _records(self, records: Records) -> None:
        if self._open is None:
            return
        one, title = self._open
        if one.dimension is None:  # an old server may not say it
            self._open = (replace(one, dimension=len(records.vectors[0]) // FLOAT), title)
        self.problems += self._strange(title, records)

    def _strange(self, title: str, records: Records) -> Iterator[str]:
        import numpy as np

        vectors = np.frombuffer(b"".join(records.vectors), "<f4")
        if not np.isfinite(vectors).all():
            yield f"collection {title}: a vector has a number that is not finite"
        rows = [(row["id"],) for row in records.rows]
        self._connection.execute("BEGIN")
        done = self._connection.executemany("INSERT OR IGNORE INTO ids VALUES (?)", rows)
        self._connection.execute("COMMIT")
        if done.rowcount != len(rows):
            yield f"collection {title}: {len(rows) - done.rowcount} ids are in it twice"
        for row in records.rows:
            if not _well_formed(row):
                yield f"collection {title}: record {row['id']} has fields of another kind"


def _well_formed(row: dict[str, object]) -> bool:
    texts = all(isinstance(row[name], str | None) for name in ("document", "uri"))
    return texts and isinstance(row["metadata"], dict | None)
