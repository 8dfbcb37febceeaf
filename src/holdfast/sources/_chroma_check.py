"""Whether a copy of a Chroma folder is whole and of one instant, found without Chroma's code.

An index and the rows beside it are written at different times and meet only through the queue. So
the copy is right if, for each collection,

- the files of the index fit each other: every label that lives in ``data_level0.bin`` is in
  ``index_metadata.pickle`` and the reverse, all rows are there, no link leads nowhere;
- the ids of the index, once the rest of the queue is applied, are the ids of the rows;
- applying the queue gives what it gave before, also where the index is ahead of what is recorded.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._chroma_database import (
    ADD,
    CACHE_KIB,
    DELETE,
    UPDATE,
    UPSERT,
    Collection,
    NotChroma,
    collections,
    reading,
    uri,
)
from ._chroma_files import (
    FILES,
    Header,
    IndexDamaged,
    check_upper_levels,
    live_labels,
    read_header,
    vectors,
)
from ._chroma_holder import DATABASE
from ._chroma_pickle import PickleRefused, read_index_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PICKLE = "index_metadata.pickle"
MOST_SHOWN = 3
CLOSE = 1e-5  # how far a vector may be from another and still count as the same one
_HASHED = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: in which segment's files, empty for the database, and what it is."""

    segment: str
    text: str


def check_database(folder: Path) -> list[Problem]:
    """Let SQLite check every page of the database. Takes a while."""
    try:
        with reading(folder / DATABASE, still=True) as connection:
            rows = connection.execute(f"PRAGMA integrity_check({MOST_SHOWN})").fetchall()
    except sqlite3.DatabaseError as error:
        return [Problem("", f"{DATABASE}: {error}")]
    lines = [str(line) for (line,) in rows]
    return [] if lines == ["ok"] else [Problem("", f"{DATABASE}: {line}") for line in lines]


def check_indexes(folder: Path, scratch: Path) -> list[Problem]:
    """Check every index of a copy against its rows; ``scratch`` is where a file may be made."""
    try:
        with reading(folder / DATABASE, still=True) as connection:
            found = collections(connection)
        with _workbench(folder, scratch) as bench:
            return [
                Problem(each.vector_segment, f"collection {each.title}: {text}")
                for each in found
                for text in _Check(folder, each, bench).problems()
            ]
    except (sqlite3.DatabaseError, NotChroma) as error:
        return [Problem("", f"{DATABASE}: {error}")]


@contextmanager
def _workbench(folder: Path, scratch: Path) -> Iterator[sqlite3.Connection]:
    """Open an empty database with the copy's beside it: sets of ids are compared on disk."""
    scratch.unlink(missing_ok=True)
    try:
        with closing(
            sqlite3.connect(f"file:{uri_path(scratch)}", uri=True, isolation_level=None)
        ) as bench:
            for pragma in ("journal_mode=OFF", "synchronous=OFF", "temp_store=FILE"):
                bench.execute(f"PRAGMA {pragma}")
            bench.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            bench.execute("ATTACH ? AS store", (uri(folder / DATABASE, still=True),))
            bench.execute(f"PRAGMA store.cache_size=-{CACHE_KIB}")
            for ahead in ("vector_ahead", "row_ahead"):
                columns = "id TEXT PRIMARY KEY, there INTEGER"
                bench.execute(f"CREATE TABLE {ahead} ({columns}) WITHOUT ROWID")
            yield bench
    finally:
        scratch.unlink(missing_ok=True)


def uri_path(path: Path) -> str:
    """Return a path as it stands in the address of a database."""
    from urllib.parse import quote

    return quote(str(path))


class _Check:
    """The check of one collection."""

    def __init__(self, folder: Path, collection: Collection, bench: sqlite3.Connection) -> None:
        self._folder = folder / collection.vector_segment
        self._collection = collection
        self._bench = bench

    def problems(self) -> Iterator[str]:
        self._bench.execute("DROP TABLE IF EXISTS indexed")
        self._bench.execute("CREATE TABLE indexed (id TEXT, label INTEGER)")
        try:
            header = self._index()
        except (IndexDamaged, PickleRefused, FileNotFoundError, sqlite3.IntegrityError) as error:
            yield _said(error)
            return
        self._read_queue()
        yield from self._found("has no vector", _ROWS_WITHOUT_VECTOR)
        yield from self._found("has a vector, but no row", _VECTORS_WITHOUT_ROW)
        if header is not None:
            yield from self._not_repeatable(header)

    # --- the files -------------------------------------------------------------------------------

    def _index(self) -> Header | None:
        """Check the files of the index against each other, and list its ids; None: no index yet."""
        if not (self._folder / PICKLE).exists():
            self._check_unwritten()
            return None
        header = read_header(self._folder)
        dimension = self._collection.dimension
        if dimension is not None and dimension != header.dimension:
            raise IndexDamaged(f"its index has dimension {header.dimension}, not {dimension}")
        live = live_labels(self._folder, header, header.elements)
        check_upper_levels(self._folder, header)
        self._read_pickle(header, live)
        return header

    def _check_unwritten(self) -> None:
        """An index that was never written has everything in the queue."""
        if self._collection.vector_seq:
            raise IndexDamaged(f"{PICKLE} is missing")
        if (self._folder / FILES[0]).exists() and read_header(self._folder).elements:
            raise IndexDamaged(f"its index has elements, but {PICKLE} is missing")

    def _read_pickle(self, header: Header, live: NDArray[np.bool_]) -> None:
        """Compare the pickle's maps with each other and with the labels that live in the index."""
        maps = _Maps(live)
        self._bench.execute("BEGIN")
        try:
            self._bench.executemany(
                "INSERT INTO indexed VALUES (?, ?)", maps.pairs(self._folder / PICKLE)
            )
            # Sorted afterwards: for millions of ids much faster than keeping them sorted.
            self._bench.execute("CREATE UNIQUE INDEX indexed_id ON indexed (id)")
        finally:
            self._bench.execute("COMMIT")
        if maps.total != header.elements:
            raise IndexDamaged(
                f"its index has {header.elements} elements, but {PICKLE} counts {maps.total}"
            )
        if maps.forward != maps.backward:
            raise IndexDamaged(f"{PICKLE} contradicts itself about labels")
        if left := int(live.sum()):
            raise IndexDamaged(f"{left} vectors of its index are not in {PICKLE}")

    # --- the queue -------------------------------------------------------------------------------

    def _read_queue(self) -> None:
        """Remember what the index and the rows will gain or lose when the queue is applied."""
        collection = self._collection
        for table, sql, seq in (
            ("vector_ahead", _VECTOR_AHEAD, collection.vector_seq),
            ("row_ahead", _ROW_AHEAD, collection.row_seq),
        ):
            self._bench.execute(f"DELETE FROM {table}")  # noqa: S608 - named above
            self._bench.execute(sql, (collection.topic, seq))

    def _found(self, what: str, sql: str) -> Iterator[str]:
        rows = self._bench.execute(
            sql, {"segment": self._collection.row_segment, "most": MOST_SHOWN}
        )
        for (name,) in rows:
            yield f"id {name!r} {what}"

    def _not_repeatable(self, header: Header) -> Iterator[str]:
        """Look for ids that come out differently if the queue is applied to an index that had it.

        Applying an operation twice changes nothing, with one exception: an update of an id that did
        not exist yet did nothing, and would now change what was added later. The index is ahead for
        such an id if it has the vector of that addition already.
        """
        suspects = self._bench.execute(
            _UPDATED_THEN_ADDED, (self._collection.topic, self._collection.vector_seq)
        ).fetchall()
        if not suspects:
            return
        there = vectors(self._folder, header, [label for _name, label, *_vectors in suspects])
        for name, label, updated, added in suspects:
            if _same(there[label], added) and not _same(there[label], updated):
                yield f"the queue would be applied twice to id {name!r}"


# The last thing that the queue says of each id. Of the rows of an id SQLite takes ``operation``
# from the one that has the maximum.
_AHEAD = f"""
SELECT id, operation <> {DELETE} FROM (
    SELECT id, operation, max(seq_id) FROM store.embeddings_queue
    WHERE topic = ? AND seq_id > ? AND operation IN ({ADD}, {UPSERT}, {DELETE}) GROUP BY id
)"""  # noqa: S608 - made of constants
_VECTOR_AHEAD = f"INSERT INTO vector_ahead {_AHEAD}"
_ROW_AHEAD = f"INSERT INTO row_ahead {_AHEAD}"
# What is true of an id once the queue is applied: it has a vector; it has a row.
_HAS_VECTOR = """coalesce(
    (SELECT there FROM vector_ahead WHERE vector_ahead.id = one.id),
    EXISTS (SELECT 1 FROM indexed WHERE indexed.id = one.id)
)"""
_HAS_ROW = """coalesce(
    (SELECT there FROM row_ahead WHERE row_ahead.id = one.id),
    EXISTS (SELECT 1 FROM store.embeddings WHERE segment_id = :segment AND embedding_id = one.id)
)"""
_ROWS_WITHOUT_VECTOR = f"""
SELECT one.id FROM (
    SELECT embedding_id AS id FROM store.embeddings WHERE segment_id = :segment
    UNION ALL SELECT id FROM row_ahead
) AS one WHERE {_HAS_ROW} AND NOT {_HAS_VECTOR} LIMIT :most
"""  # noqa: S608 - made of constants
_VECTORS_WITHOUT_ROW = f"""
SELECT one.id FROM (SELECT id FROM indexed UNION ALL SELECT id FROM vector_ahead) AS one
WHERE {_HAS_VECTOR} AND NOT {_HAS_ROW} LIMIT :most
"""  # noqa: S608 - made of constants
# Ids of the index that the queue updates, with a vector, before it adds them and without deleting
# or replacing them in between; with the vectors of the last such update and of the addition.
_UPDATED_THEN_ADDED = f"""
WITH part AS (
    SELECT seq_id, id, operation, vector FROM store.embeddings_queue
    WHERE topic = ? AND seq_id > ?
), first AS (
    SELECT id, operation, min(seq_id) AS seq FROM part
    WHERE operation IN ({ADD}, {UPSERT}, {DELETE}) GROUP BY id
)
SELECT indexed.id, indexed.label, earlier.vector, addition.vector
FROM first
JOIN main.indexed ON indexed.id = first.id
JOIN part AS addition ON addition.seq_id = first.seq
JOIN part AS earlier ON earlier.seq_id = (
    SELECT max(seq_id) FROM part
    WHERE id = first.id AND operation = {UPDATE} AND vector IS NOT NULL AND seq_id < first.seq
)
WHERE first.operation = {ADD}
"""  # noqa: S608 - made of constants


class _Maps:
    """The two maps of the pickle, seen once in passing."""

    def __init__(self, live: NDArray[np.bool_]) -> None:
        self.total: object = None
        self.forward = 0  # sums that do not depend on the order, the same for the same pairs
        self.backward = 0
        self._live = live

    def pairs(self, path: Path) -> Iterator[tuple[str, int]]:
        """Give each id with its label; strike the label out among the live ones."""
        live, most = self._live, len(self._live)
        for name, key, value in read_index_metadata(path):
            if name == "id_to_label":
                if not isinstance(key, str) or not isinstance(value, int):
                    raise PickleRefused(f"it maps {key!r} to {value!r}")
                if not 0 < value < most or not live[value]:
                    raise IndexDamaged(f"id {key!r} has label {value}, which its index has not")
                live[value] = False
                self.forward = (self.forward + hash((key, value))) & _HASHED
                yield key, value
            elif name == "label_to_id":
                self.backward = (self.backward + hash((value, key))) & _HASHED
            elif (name, key) == ("", "total_elements_added"):
                self.total = value


def _same(one: NDArray[np.float32], blob: bytes) -> bool:
    """Tell whether a stored vector is the one in the queue, where cosine keeps it normalised."""
    import numpy as np

    other = np.frombuffer(blob, dtype="<f4")
    if one.shape != other.shape:
        return False
    length = float(np.linalg.norm(other))
    normal = other / length if length else other
    return any(np.allclose(one, each, rtol=CLOSE, atol=CLOSE) for each in (other, normal))


def _said(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(error.filename).name} is missing"
    if isinstance(error, sqlite3.IntegrityError):
        return f"{PICKLE} has an id twice"
    return f"{PICKLE}: {error}" if isinstance(error, PickleRefused) else str(error)
