"""Chroma's database as rows and queue: which collections there are, and which ids they have.

Chroma answers from two places: the tables that it applied the queue to, and what is still in the
queue. Everything here looks at both.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from holdfast.model.facts import Facts, Json

TABLES = ("collections", "databases", "embeddings", "embeddings_queue", "max_seq_id", "segments")
ADD, UPDATE, UPSERT, DELETE = range(4)  # operations, as the queue numbers them
DEFAULT_TENANT, DEFAULT_DATABASE = "default_tenant", "default_database"
DEFAULT_TOPIC = "persistent://default/default/"
CACHE_KIB = 16 << 10


class NotChroma(ValueError):
    """A database that does not have Chroma's tables."""


@dataclass(frozen=True, slots=True)
class Collection:
    """One collection, with its two segments and how far each has applied the queue."""

    id: str
    name: str
    tenant: str
    database: str
    topic: str
    vector_segment: str
    row_segment: str
    vector_seq: int
    row_seq: int
    dimension: int | None
    space: str | None
    sync_threshold: int | None

    @property
    def title(self) -> str:
        """The name, with tenant and database unless they are the default ones."""
        if (self.tenant, self.database) == (DEFAULT_TENANT, DEFAULT_DATABASE):
            return self.name
        return f"{self.tenant}/{self.database}/{self.name}"

    @property
    def details(self) -> dict[str, Json]:
        """What describes it, as far as it is known."""
        known = {
            "dimension": self.dimension,
            "metric": self.space,
            "sync_threshold": self.sync_threshold,
        }
        return {name: value for name, value in known.items() if value is not None}


@contextmanager
def reading(
    path: Path, *, still: bool = False, seconds: float = 60.0
) -> Iterator[sqlite3.Connection]:
    """Open a database for reading alone; what is read within one such context is one instant.

    ``still`` says that nobody else can have it open: a copy of ours is then read without a lock and
    without any file beside it. Raises the errors of ``sqlite3``.
    """
    connection = sqlite3.connect(
        uri(path, still=still), uri=True, timeout=seconds, isolation_level=None
    )
    try:
        connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
        connection.execute("PRAGMA temp_store=FILE")
        connection.execute("BEGIN")
        yield connection
    finally:
        connection.close()


def uri(path: Path, *, still: bool) -> str:
    """Return the address under which SQLite opens a database for reading alone."""
    return f"file:{quote(str(path))}?mode=ro" + ("&immutable=1" if still else "")


def collections(connection: sqlite3.Connection) -> list[Collection]:
    """Return every collection, by title.

    Raises:
        NotChroma: tables of Chroma's are missing.

    """
    tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if missing := sorted(set(TABLES) - tables):
        raise NotChroma(f"its database has no table {missing[0]}")
    topics = _topics(connection)
    settings = _legacy_settings(connection, tables)
    cursor = connection.execute(
        "SELECT c.*, d.name AS database, d.tenant_id AS tenant"
        " FROM collections c JOIN databases d ON d.id = c.database_id"
    )
    names = [column[0] for column in cursor.description]
    found = [dict(zip(names, row, strict=True)) for row in cursor]
    made = [_collection(connection, row, topics, settings.get(row["id"], {})) for row in found]
    return sorted(made, key=lambda collection: collection.title)


def count_ids(connection: sqlite3.Connection, collection: Collection) -> int:
    """Return how many ids a collection has."""
    applied = _one(
        connection,
        "SELECT count(*) FROM embeddings WHERE segment_id = ?",
        (collection.row_segment,),
    )
    waiting = (collection.topic, collection.row_seq)
    if not _one(
        connection,
        "SELECT EXISTS (SELECT 1 FROM embeddings_queue WHERE topic = ? AND seq_id > ?)",
        waiting,
    ):
        return applied
    return _one(connection, _COUNT_IDS, (*waiting, collection.row_segment))


def ids(connection: sqlite3.Connection, collection: Collection) -> Iterator[str]:
    """Give every id of a collection, those still in the queue included.

    They are set aside at once, and the database is let go: writers do not wait for the reader.
    """
    parameters = (collection.topic, collection.row_seq, collection.row_segment)
    connection.execute(f"CREATE TEMP TABLE found AS {_IDS}", parameters)
    return _set_aside(connection)


def _set_aside(connection: sqlite3.Connection) -> Iterator[str]:
    connection.execute("COMMIT")
    for (value,) in connection.execute("SELECT * FROM temp.found"):
        yield str(value)


# The last thing that the queue says of each id, and what the table says of the others. Of an id's
# rows in the queue SQLite takes ``operation`` from the one that has the maximum.
_IDS = f"""
WITH waiting AS (
    SELECT id, operation, max(seq_id) FROM embeddings_queue
    WHERE topic = ? AND seq_id > ? AND operation IN ({ADD}, {UPSERT}, {DELETE}) GROUP BY id
)
SELECT embedding_id FROM embeddings
WHERE segment_id = ? AND embedding_id NOT IN (SELECT id FROM waiting)
UNION ALL SELECT id FROM waiting WHERE operation <> {DELETE}
"""  # noqa: S608 - made of constants
_COUNT_IDS = f"SELECT count(*) FROM ({_IDS})"  # noqa: S608 - the same


def facts(connection: sqlite3.Connection) -> Facts:
    """Count what Chroma would count."""
    found = collections(connection)
    counts = {f"vectors/{each.title}": count_ids(connection, each) for each in found}
    counts["collections"] = len(found)
    details: dict[str, Json] = {each.title: each.details for each in found}
    return Facts(counts, {"collections": details})


def values(connection: sqlite3.Connection, collection: Collection, key: str) -> Iterator[str]:
    """Give one metadata value of every id that has it, as text; waiting changes included.

    They are set aside as `ids` does it.
    """
    changed = _changed_values(connection, collection, key)
    connection.execute("CREATE TEMP TABLE changed (id TEXT PRIMARY KEY, value TEXT)")
    connection.executemany("INSERT INTO temp.changed VALUES (?, ?)", changed.items())
    connection.execute(
        "CREATE TEMP TABLE found AS"
        " SELECT coalesce(m.string_value, m.int_value, m.float_value, m.bool_value)"
        " FROM embeddings e JOIN embedding_metadata m ON m.id = e.id"
        " WHERE e.segment_id = ? AND m.key = ?"
        " AND e.embedding_id NOT IN (SELECT id FROM temp.changed)"
        " UNION ALL SELECT value FROM temp.changed WHERE value IS NOT NULL",
        (collection.row_segment, key),
    )
    return _set_aside(connection)


def _changed_values(
    connection: sqlite3.Connection, collection: Collection, key: str
) -> dict[str, str | None]:
    """Apply what waits in the queue to one metadata value; None: the id has it no longer."""
    changed: dict[str, str | None] = {}
    present: dict[str, bool] = {}
    waiting = connection.execute(
        "SELECT id, operation, metadata FROM embeddings_queue"
        " WHERE topic = ? AND seq_id > ? ORDER BY seq_id",
        (collection.topic, collection.row_seq),
    )
    for name, operation, metadata in waiting:
        if name not in present:
            present[name], changed[name] = _applied_value(connection, collection, name, key)
        if operation == DELETE:
            present[name], changed[name] = False, None
        elif (operation == ADD and present[name]) or (operation == UPDATE and not present[name]):
            continue
        elif operation in {ADD, UPDATE, UPSERT}:
            present[name] = True
            given = json.loads(metadata or "{}")
            if key in given:
                changed[name] = _text([given[key]]) if given[key] is not None else None
    return changed


def _applied_value(
    connection: sqlite3.Connection, collection: Collection, name: str, key: str
) -> tuple[bool, str | None]:
    row = connection.execute(
        "SELECT m.string_value, m.int_value, m.float_value, m.bool_value, m.key IS NOT NULL"
        " FROM embeddings e LEFT JOIN embedding_metadata m ON m.id = e.id AND m.key = ?"
        " WHERE e.segment_id = ? AND e.embedding_id = ?",
        (key, collection.row_segment, name),
    ).fetchone()
    if row is None:
        return False, None
    *candidates, has_it = row
    return True, _text(candidates) if has_it else None


def _text(candidates: list[Any]) -> str:
    value = next((each for each in candidates if each is not None), "")
    return str(int(value)) if isinstance(value, bool) else str(value)


def _collection(
    connection: sqlite3.Connection,
    row: dict[str, Any],
    topics: dict[str, str],
    legacy: dict[str, Any],
) -> Collection:
    segments = dict(
        connection.execute("SELECT scope, id FROM segments WHERE collection = ?", (row["id"],))
    )
    if missing := {"VECTOR", "METADATA"} - set(segments):
        raise NotChroma(f"collection {row['name']} has no {min(missing)} segment")
    settings = _settings(row, legacy)
    return Collection(
        id=str(row["id"]),
        name=str(row["name"]),
        tenant=str(row["tenant"]),
        database=str(row["database"]),
        topic=topics.get(row["id"], DEFAULT_TOPIC + row["id"]),
        vector_segment=str(segments["VECTOR"]),
        row_segment=str(segments["METADATA"]),
        vector_seq=_applied(connection, segments["VECTOR"]),
        row_seq=_applied(connection, segments["METADATA"]),
        dimension=row["dimension"],
        space=settings.get("space"),
        sync_threshold=settings.get("sync_threshold"),
    )


def _applied(connection: sqlite3.Connection, segment: str) -> int:
    row = connection.execute(
        "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", (segment,)
    ).fetchone()
    if row is None or row[0] is None:
        return 0
    # Old databases hold the number as bytes.
    return int.from_bytes(row[0], "big") if isinstance(row[0], bytes) else int(row[0])


def _topics(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the topic of each collection that has anything in the queue, by collection id."""
    rows = connection.execute("SELECT DISTINCT topic FROM embeddings_queue")
    return {str(topic).rpartition("/")[2]: str(topic) for (topic,) in rows}


def _legacy_settings(connection: sqlite3.Connection, tables: set[str]) -> dict[str, dict[str, Any]]:
    """Return what older versions kept as metadata of a collection: ``hnsw:space`` and the like."""
    settings: dict[str, dict[str, Any]] = {}
    if "collection_metadata" in tables:
        rows = connection.execute(
            "SELECT collection_id, key, coalesce(str_value, int_value) FROM collection_metadata"
            " WHERE key IN ('hnsw:space', 'hnsw:sync_threshold')"
        )
        for collection, key, value in rows:
            settings.setdefault(collection, {})[key.removeprefix("hnsw:")] = value
    return settings


def _settings(row: dict[str, Any], legacy: dict[str, Any]) -> dict[str, Any]:
    """Return space and sync threshold of a collection, from wherever its version keeps them."""
    schema = _parsed(row.get("schema_str"))
    vector = _inside(schema, "keys", "#embedding", "float_list", "vector_index", "config")
    older = _parsed(row.get("config_json_str"))
    hnsw = _inside(older, "hnsw") or _inside(older, "hnsw_configuration")
    found = {**legacy, **hnsw, **_inside(vector, "hnsw")}
    if "space" in vector:
        found["space"] = vector["space"]
    return found


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _inside(value: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        inner = value.get(name)
        if not isinstance(inner, dict):
            return {}
        value = inner
    return value


def _one(connection: sqlite3.Connection, sql: str, parameters: tuple[object, ...]) -> int:
    return cast("int", connection.execute(sql, parameters).fetchone()[0])
