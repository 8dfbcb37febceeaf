"""What to remember of each id while a server is read: in a file, there may be millions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

CACHE_KIB = 16 << 10
_TABLE = """
CREATE TABLE ids (
    place INTEGER PRIMARY KEY,         -- the order in which they were first listed
    collection TEXT NOT NULL,
    id TEXT NOT NULL,
    turn INTEGER NOT NULL,             -- the last turn that listed it
    chances INTEGER NOT NULL DEFAULT 1, -- in how many turns it was listed
    taken INTEGER NOT NULL DEFAULT 0,  -- the turn that took its record; 0: none did
    digest BLOB,
    UNIQUE (collection, id)
)
"""
_OPEN = "collection = ? AND turn = ? AND taken = 0"


class IdBook:
    """The ids of the collections of one export, one collection at a time. Close it.

    A *turn* is one listing of all ids of a collection, and what follows from it; turns only grow.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
            self._connection.execute(f"PRAGMA {setting}")
        self._connection.execute(_TABLE)
        self._collection = ""

    def close(self) -> None:
        """Close the file; whoever named it removes it."""
        self._connection.close()

    def open(self, collection: str) -> None:
        """Begin with a collection, or go on with it."""
        self._collection = collection

    def list(self, ids: Sequence[str], turn: int) -> None:
        """Note that these ids were listed in a turn; noting it twice is noting it once."""
        self._many(
            "INSERT INTO ids (collection, id, turn) VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
            " SET chances = chances + (turn <> excluded.turn), turn = excluded.turn",
            [(self._collection, name, turn) for name in ids],
        )

    def missing(self, turn: int) -> int:
        """Return how many ids of a turn have no record yet."""
        return self._count(_OPEN, turn)

    def withheld(self, turn: int, chances: int) -> int:
        """Return how many of these were listed in more than so many turns."""
        return self._count(f"{_OPEN} AND chances > {int(chances)}", turn)

    def listed(self, turn: int, after: int, most: int, *, taken: bool = False) -> dict[str, int]:
        """Return ids of a turn with their places, those after one place; those without a record.

        ``taken`` gives those with a record instead.
        """
        rows = self._connection.execute(
            "SELECT id, place FROM ids WHERE collection = ? AND turn = ? AND (taken > 0) = ?"
            " AND place > ? ORDER BY place LIMIT ?",
            (self._collection, turn, taken, after, most),
        )
        return dict(rows)

    def all(self) -> Iterator[str]:
        """Give all ids of the collection."""
        query = "SELECT id FROM ids WHERE collection = ?"
        for (name,) in self._connection.execute(query, (self._collection,)):
            yield str(name)

    def take(self, ids: Sequence[str], turn: int, digests: Sequence[bytes] | None = None) -> None:
        """Note that these records were taken."""
        self._many(
            "UPDATE ids SET taken = ?, digest = ? WHERE collection = ? AND id = ?",
            [
                (turn, digests[number] if digests else None, self._collection, name)
                for number, name in enumerate(ids)
            ],
        )

    def came(self) -> int:
        """Return how many ids were first listed after the first turn."""
        return self._count("collection = ? AND taken > ? ", 1)

    def went(self, turn: int) -> int:
        """Return how many ids a turn did not list any more."""
        return self._count("collection = ? AND turn < ?", turn)

    def differ(self, ids: Sequence[str], digests: Sequence[bytes]) -> bool:
        """Tell whether one of these records has another digest than when it was taken."""
        query = "SELECT digest FROM ids WHERE collection = ? AND id = ?"
        found = (self._connection.execute(query, (self._collection, name)) for name in ids)
        pairs = zip((row.fetchone()[0] for row in found), digests, strict=True)
        return any(before != now for before, now in pairs)

    def _count(self, condition: str, turn: int) -> int:
        query = f"SELECT count(*) FROM ids WHERE {condition}"  # noqa: S608 - made of constants
        row = self._connection.execute(query, (self._collection, turn)).fetchone()
        return cast("int", row[0])

    def _many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(statement, rows)
        self._connection.execute("COMMIT")
