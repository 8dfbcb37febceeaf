"""The export of a Chroma server: lines of JSON. Described in ``docs/formats/chroma-export.md``.

The first line says what it is; then each collection begins, has its records, and ends with their
number; the last line says that this is all. A file that was cut off anywhere lacks that line.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from holdfast.model.artifact import Chunks

from ._chroma_server_api import Collection, Page, Place

FORMAT = "holdfast-chroma-export"
VERSION = 1
LONGEST_LINE = 64 << 20  # bytes; a server takes no larger record
BATCH_BYTES = 4 << 20
BATCH = 1000
FLOAT = 4  # bytes
FIELDS = ("id", "embedding", "document", "metadata", "uri")


class FlawError(ValueError):
    """What is wrong with an export, and in which line."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an export."""

    places: tuple[Place, ...]
    server: str


@dataclass(frozen=True, slots=True)
class Begin:
    """The beginning of a collection; it has no id, because a restored one gets another."""

    collection: Collection
    title: str


@dataclass(slots=True)
class Records:
    """Some records of the collection that began last, as lines of text would have them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    vectors: list[bytes] = field(default_factory=list)  # float32, little-endian
    size: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """The end of a collection."""

    count: int


Item = Head | Begin | Records | End

# --- writing -------------------------------------------------------------------------------------


def head_line(places: Sequence[Place], server: str, began: datetime) -> bytes:
    """Return the first line."""
    databases = [{"tenant": place.tenant, "database": place.database} for place in places]
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "server": server,
            "began": began.isoformat(timespec="milliseconds"),
            "databases": databases,
        }
    )


def begin_line(collection: Collection, title: str) -> bytes:
    """Return the line that a collection begins with."""
    return _line(
        {
            "collection": {
                "tenant": collection.place.tenant,
                "database": collection.place.database,
                "name": collection.name,
                "title": title,
                "dimension": collection.dimension,
                "metadata": collection.metadata,
                "configuration": collection.configuration,
                "schema": collection.schema,
            }
        }
    )


def record_lines(page: Page) -> list[bytes]:
    """Return a line for each record.

    Raises ``ValueError`` where a vector is missing, has another length, or is not of numbers.
    """
    import numpy as np

    columns = page.columns
    try:
        vectors = np.asarray(columns["embeddings"], "<f4")
    except (TypeError, ValueError):
        vectors = np.zeros(0, "<f4")
    if columns["ids"] and (vectors.ndim != 2 or not vectors.size):  # noqa: PLR2004 - a table
        raise ValueError("a vector is missing, or has another length than others")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector has a number that is not finite")
    texts = (base64.b64encode(vector).decode() for vector in vectors)
    rows = zip(
        columns["ids"],
        texts,
        columns["documents"],
        columns["metadatas"],
        columns["uris"],
        strict=True,
    )
    return [_line(dict(zip(FIELDS, row, strict=True))) for row in rows]


def end_line(count: int) -> bytes:
    """Return the line that a collection ends with."""
    return _line({"records": count})


def last_line(collections: int, records: int, ended: datetime) -> bytes:
    """Return the last line."""
    when = ended.isoformat(timespec="milliseconds")
    return _line({"end": {"collections": collections, "records": records, "ended": when}})


def _line(value: Mapping[str, Any]) -> bytes:
    return to_json(value) + b"\n"


# --- reading -------------------------------------------------------------------------------------


def items(chunks: Chunks) -> Iterator[Item]:
    """Give what an export holds, in its order; records in batches that are small in memory.

    Raises:
        FlawError: it is not such an export, or not whole.

    """
    yield from _Reader().items(chunks)


class _Reader:
    """What was read so far, as far as the next line depends on it."""

    def __init__(self) -> None:
        self.number = 0
        self.collections = 0
        self.total = 0
        self.count: int | None = None  # records of the collection that began; None: none did
        self.width = 0  # bytes of its vectors
        self.ended = False

    def items(self, chunks: Chunks) -> Iterator[Item]:
        batch = Records()
        for line in _lines(chunks):
            self.number += 1
            size = len(line)
            value = self._value(line)
            del line  # whoever takes what we give may need the room
            if "id" in value:
                self._record(value, batch)
                batch.size += size
                if batch.size >= BATCH_BYTES or len(batch.rows) >= BATCH:
                    del value
                    full, batch = batch, Records()
                    yield full
                    del full
                continue
            if batch.rows:
                yield batch
                batch = Records()
            item = self._other(value)
            if item is not None:
                yield item
        if not self.ended:
            raise self._flaw("it is not whole: its last line is missing")

    def _value(self, line: bytes) -> dict[str, Any]:
        if self.ended:
            raise self._flaw("it goes on after its end")
        try:
            value = from_json(line, allow_inf_nan=False)
        except ValueError as error:
            raise self._flaw(f"it is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise self._flaw("it is no JSON object")
        if (self.number == 1) != ("format" in value):
            raise self._flaw(f"it is no {FORMAT}")
        return value

    def _record(self, value: dict[str, Any], batch: Records) -> None:
        if self.count is None:
            raise self._flaw("a record stands outside of any collection")
        if value.keys() != set(FIELDS) or not isinstance(value["id"], str):
            raise self._flaw(f"a record has other fields than {', '.join(FIELDS)}")
        try:
            vector = base64.b64decode(value["embedding"], validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise self._flaw("a vector is no base64") from error
        if not vector or len(vector) % FLOAT or len(vector) != (self.width or len(vector)):
            raise self._flaw(f"a vector has {len(vector)} bytes, not {self.width or 'any'}")
        self.width = len(vector)
        self.count += 1
        batch.rows.append(value)
        batch.vectors.append(vector)

    def _other(self, value: dict[str, Any]) -> Item | None:
        try:
            if "format" in value:
                return self._head(value)
            if "collection" in value:
                return self._begin(value["collection"])
            if "records" in value:
                return self._end(value["records"])
            if "end" in value:
                self._last(value["end"])
                return None
        except (KeyError, TypeError, AttributeError) as error:
            raise self._flaw(f"a field is missing or of another kind: {error}") from error
        raise self._flaw("it says nothing that is known")

    def _head(self, value: dict[str, Any]) -> Head:
        if value["format"] != FORMAT:
            raise self._flaw(f"it is no {FORMAT}")
        if value["version"] != VERSION:
            raise self._flaw(f"its version is {value['version']}; this program reads {VERSION}")
        places = tuple(Place(str(d["tenant"]), str(d["database"])) for d in value["databases"])
        return Head(places, str(value["server"]))

    def _begin(self, said: dict[str, Any]) -> Begin:
        if self.count is not None:
            raise self._flaw("a collection begins inside of another")
        self.collections += 1
        self.count = 0
        dimension = said["dimension"]
        self.width = FLOAT * dimension if dimension else 0
        collection = Collection(
            place=Place(str(said["tenant"]), str(said["database"])),
            id="",
            name=str(said["name"]),
            dimension=dimension,
            metadata=said["metadata"],
            configuration=said["configuration"],
            schema=said["schema"],
        )
        return Begin(collection, str(said["title"]))

    def _end(self, records: int) -> End:
        if self.count is None or records != self.count:
            raise self._flaw(f"a collection has {self.count} records, not {records}")
        self.total += records
        self.count = None
        return End(records)

    def _last(self, said: dict[str, Any]) -> None:
        found = (self.collections, self.total)
        if self.count is not None or (said["collections"], said["records"]) != found:
            raise self._flaw(f"it has {found[0]} collections with {found[1]} records")
        self.ended = True

    def _flaw(self, problem: str) -> FlawError:
        return FlawError(f"line {self.number}: {problem}")


def _lines(chunks: Chunks) -> Iterator[bytes]:
    """Give lines without their ends; a last one that does not end counts as one."""
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        *whole, rest = bytes(chunk).split(b"\n")
        for line in whole:
            parts.append(line)
            yield _joined(parts)
            size = 0
        parts.append(rest)
        size += len(rest)
        if size > LONGEST_LINE:
            raise FlawError(f"a line is longer than {LONGEST_LINE >> 20} MiB")
    if size:
        yield _joined(parts)


def _joined(parts: list[bytes]) -> bytes:
    line = b"".join(parts)
    parts.clear()
    return line
