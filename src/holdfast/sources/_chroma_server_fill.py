"""Writing an export into collections of a server that nobody else knows of yet."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import to_json

from holdfast.errors import ServerFailed, TargetUnfit
from holdfast.model.artifact import Chunks

from ._chroma_server_api import Api, Collection, Gone, Place, TooMuch
from ._chroma_server_format import Begin, End, Head, Records, items
from ._chroma_server_plan import Plan, Staged
from ._chroma_server_scope import STAGED, Mark, Scope

PAUSES = (0.05, 0.2, 0.8)  # seconds between looks at what was written
SAMPLES = 8  # records of a collection that are read back and compared
MOST = 5000  # records at once, where the server does not say how many it takes
ROUNDING = 1e-4  # of the largest number; 3e-6 was measured
LEGACY = "hnsw:"  # begins metadata by which older clients configured an index
Saved = Callable[[Plan], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """A record that was written, to be compared with what the server has."""

    id: str
    vector: bytes
    digest: bytes  # of everything else, which may be large


@dataclass(slots=True)
class Open:
    """The collection that is being written."""

    begin: Begin
    made: Collection
    samples: list[Sample] = field(default_factory=list)


class Filler:
    """Writes one export. ``save`` keeps the plan durable before each thing it says is done."""

    def __init__(
        self, api: Api, component: str, scope: Scope, mark: Mark, *, batch_size: int
    ) -> None:
        self._api = api
        self._component = component
        self._scope = scope
        self._mark = mark
        self._batch_size = batch_size
        self._targets: dict[Place, Place] = {}  # database of the backup → of this server

    def run(self, chunks: Chunks, plan: Plan, save: Saved) -> None:
        """Write everything, count it, and compare samples.

        Raises:
            FlawError: what is read is not a whole export.
            TargetUnfit: the server cannot take this, or the options name other places.

        """
        current: Open | None = None
        for item in items(chunks):
            if isinstance(item, Head):
                self._prepare(item, plan, save)
            elif isinstance(item, Begin):
                current = Open(item, self._make(item))
            elif current is not None and isinstance(item, Records):
                self._write(current, item)
            elif current is not None and isinstance(item, End):
                self._prove(current, item.count)
                plan.staged.append(self._staged(current))
        save(plan)

    # --- places ---

    def _prepare(self, head: Head, plan: Plan, save: Saved) -> None:
        """Make the databases that are not there; a tenant once made stays, nothing removes it."""
        self._targets = self._mapped(head.places)
        plan.places = list(self._targets.values())
        plan.created = [place for place in plan.places if not self._api.has_database(place)]
        save(plan)
        for place in plan.created:
            if not self._api.has_tenant(place.tenant):
                self._api.create_tenant(place.tenant)
            self._api.create_database(place)

    def _mapped(self, places: Sequence[Place]) -> dict[Place, Place]:
        """Return where each database goes: to its own name, but a single one to a single one."""
        if self._scope.only and len(places) == 1:
            return {places[0]: self._scope.only}
        for place in places:
            if not self._scope.covers(place):
                raise self._unfit(f"the backup holds database {place}, which is not among its own")
        return {place: place for place in places}

    # --- collections ---

    def _make(self, begin: Begin) -> Collection:
        """Make a collection with the settings of the backup, under the name of a staged one."""
        one = begin.collection
        if one.place not in self._targets or not self._scope.wants(one.name):
            raise self._unfit(f"the backup holds collection {begin.title}, which is not its own")
        place = self._targets[one.place]
        name = self._mark.name(STAGED, one.name)
        alike: Mapping[str, Any] | None = None
        reason = ""
        for settings in _settings(one):
            made = self._api.create_collection(place, name=name, **settings)
            if isinstance(made, str):
                reason = made
                continue
            if made.configuration == one.configuration:
                return made
            if made.metric == one.metric:
                alike = settings
            self._api.delete_collection(place, name)
        # Another kind of server may index in another way; the distance must be the same.
        made = self._api.create_collection(place, name=name, **alike) if alike else reason
        if isinstance(made, str):
            raise self._unfit(f"collection {begin.title}: {made or 'it gets other settings there'}")
        return made

    def _staged(self, current: Open) -> Staged:
        made, begin = current.made, current.begin
        return Staged(made.place, made.id, begin.collection.name, begin.title)

    # --- records ---

    def _write(self, current: Open, records: Records) -> None:
        for rows, vectors in self._batches(records):
            self._add(current.made, rows, vectors)
            if wrong := self._wrong(current.made, rows):
                self._write_again(current, rows, vectors, wrong)
            if len(current.samples) < SAMPLES:
                row = rows[-1]
                digest = _digest(row["document"], row["metadata"], row["uri"])
                current.samples.append(Sample(row["id"], vectors[-1], digest))

    def _add(
        self, made: Collection, rows: Sequence[Mapping[str, Any]], vectors: Sequence[bytes]
    ) -> None:
        columns = {
            "ids": [row["id"] for row in rows],
            "embeddings": self._embeddings(rows, vectors),
            "documents": [row["document"] for row in rows],
            "metadatas": [row["metadata"] for row in rows],
            "uris": [row["uri"] for row in rows],
        }
        self._api.add(made, columns)

    def _write_again(
        self,
        current: Open,
        rows: Sequence[Mapping[str, Any]],
        vectors: Sequence[bytes],
        wrong: set[str],
    ) -> None:
        """Remove records that are not as they were written, and write them once more.

        A server that does not remove lists in metadata with a collection gives them to new records
        that take the places of the old ones (chroma-core/chroma#7594); it does remove them with a
        record.
        """
        self._api.delete_records(current.made, sorted(wrong))
        pairs = [pair for pair in zip(rows, vectors, strict=True) if pair[0]["id"] in wrong]
        self._add(current.made, [row for row, _vector in pairs], [vector for _row, vector in pairs])
        if left := self._wrong(current.made, [row for row, _vector in pairs]):
            title = current.begin.title
            raise self._api.failed(f"{title} has another {min(left)} than was written")

    def _wrong(self, made: Collection, rows: Sequence[Mapping[str, Any]]) -> set[str]:
        """Return whose texts and metadata are not there as they were written."""
        written = {row["id"]: row for row in rows}
        try:
            return written.keys() - set(self._alike(made, list(written), written))
        except TooMuch:
            alike = (name for one in written for name in self._alike(made, [one], written))
            return written.keys() - set(alike)
        except Gone:
            raise self._gone(made) from None

    def _alike(
        self, made: Collection, ids: Sequence[str], written: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[str]:
        """Give which of these records are as they were written, but for their vectors."""
        names = ("ids", "documents", "metadatas", "uris")
        columns = self._api.records(made, ids, names[1:]).columns
        rows = zip(*(columns[name] for name in names), strict=True)
        for name, document, metadata, uri in rows:
            row = written[name]
            if (row["document"], row["metadata"], row["uri"]) == (document, metadata, uri):
                yield name

    def _batches(self, records: Records) -> Iterator[tuple[list[dict[str, Any]], list[bytes]]]:
        most = min(self._batch_size, int(self._api.limits.get("max_batch_size") or MOST))
        for start in range(0, len(records.rows), most):
            piece = slice(start, start + most)
            yield records.rows[piece], records.vectors[piece]

    def _embeddings(self, rows: Sequence[Mapping[str, Any]], vectors: Sequence[bytes]) -> list[Any]:
        if self._api.limits.get("supports_base64_encoding"):
            return [row["embedding"] for row in rows]
        import numpy as np

        return [np.frombuffer(vector, "<f4").tolist() for vector in vectors]

    def _prove(self, current: Open, count: int) -> None:
        """Count what is there, and read some of it back; a busy server may need a moment."""
        for pause in PAUSES:
            if not self._against(current, count):
                return
            time.sleep(pause)
        if reason := self._against(current, count):
            raise self._api.failed(reason)

    def _against(self, current: Open, count: int) -> str:
        """Say what is wrong with a collection that was written; empty if nothing."""
        title, made = current.begin.title, current.made
        try:
            found = self._api.count(made)
            if found != count:
                return f"{count} records were written to {title}, and it has {found}"
            for sample in current.samples:
                columns = self._api.records(made, [sample.id]).columns
                if columns["ids"] != [sample.id]:
                    return f"{title} lost a record that was written: {sample.id}"
                if not _is_alike(sample, columns, made.metric):
                    return f"{title} has another {sample.id} than was written"
        except Gone:
            raise self._gone(made) from None
        return ""

    def _gone(self, made: Collection) -> ServerFailed:
        return self._api.failed(f"the new {made.name} was deleted while it was written")

    def _unfit(self, reason: str) -> TargetUnfit:
        return TargetUnfit(component=self._component, path=self._api.where, reason=reason)


def _settings(one: Collection) -> Iterator[dict[str, Any]]:
    """Give what to make a collection with, the most faithful first.

    The schema says more than the configuration, but a server takes only one of them; and metadata
    by which older clients configured an index counts as a configuration.
    """
    metadata = {} if one.metadata is None else {"metadata": one.metadata}
    if one.schema is not None and not any(key.startswith(LEGACY) for key in one.metadata or ()):
        yield {**metadata, "schema": one.schema}
    if one.configuration is not None:
        yield {**metadata, "configuration": one.configuration}
    yield metadata


def _is_alike(sample: Sample, columns: Mapping[str, list[Any]], metric: str | None) -> bool:
    digest = _digest(columns["documents"][0], columns["metadatas"][0], columns["uris"][0])
    return digest == sample.digest and _near(sample.vector, columns["embeddings"][0], metric)


def _digest(document: str | None, metadata: Mapping[str, Any] | None, uri: str | None) -> bytes:
    ordered = None if metadata is None else sorted(metadata.items())
    return hashlib.blake2b(to_json([document, ordered, uri])).digest()


def _near(written: bytes, found: Sequence[float], metric: str | None) -> bool:
    """Tell whether a vector is the one that was written.

    For cosine the server keeps direction and length apart, and gives back their product.
    """
    import numpy as np

    one, other = np.frombuffer(written, "<f4"), np.asarray(found, "<f4")
    if one.shape != other.shape:
        return False
    if metric != "cosine":
        return bool(np.array_equal(one, other))
    return bool(np.allclose(one, other, rtol=0, atol=ROUNDING * float(np.abs(one).max())))
