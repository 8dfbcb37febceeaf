"""Qdrant is backed up while it is written to: what is frozen is a prefix of what was written."""

from __future__ import annotations

import random
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.model.artifact import Artifact
from holdfast.model.facts import Facts, differences
from holdfast.sources import _qdrant_ids
from holdfast.sources.qdrant import QdrantOptions, QdrantSource
from holdfast.testing._trips import back_up, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from servers.qdrant import KEY, Client, QdrantServer, program, qdrant_server, vector

NAME = "memories"
Points = dict[str, Any]


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with qdrant_server() as server:
        yield server


@pytest.fixture
def other() -> Iterator[QdrantServer]:
    with qdrant_server() as server:
        yield server


def source_on(server: QdrantServer, **options: Any) -> QdrantSource:
    given = {"url": server.url, "api_key": KEY, "server": program(), **options}
    return QdrantSource("vectors", QdrantOptions(**given))


class Writer:
    """Writes to a collection, and knows what it must hold after each of its operations.

    ``filters`` says whether it also deletes by what is in the payload, which takes Qdrant to judge.
    """

    def __init__(self, client: Client, seed: int, *, filters: bool, wait: bool) -> None:
        self.client = client
        self.chosen = random.Random(seed)
        self.filters = filters
        self.wait = wait
        self.state: Points = {}
        self.history: list[dict[str, int]] = [{}]  # after each operation: id → its version
        self.asked = 0
        self.answered = 0
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[Writer]:
        failures: list[BaseException] = []

        def run() -> None:
            try:
                while not self._over.is_set():
                    self.write()
            except BaseException as error:  # noqa: BLE001 - raised below, in the test
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()
        assert not failures, failures

    def write(self) -> None:
        self.asked += 1
        version = self.asked
        now = dict(self.history[-1])
        kind = self.chosen.random()
        if kind < 0.6 or not now:
            ids = [str(self.chosen.randrange(600)) for _ in range(self.chosen.randrange(1, 30))]
            now.update(dict.fromkeys(ids, version))
            self._send(
                "points", "PUT", {"points": [point(one, version) for one in now if one in ids]}
            )
        elif kind < 0.9 or not self.filters:
            ids = self.chosen.sample(sorted(now), min(len(now), 12))
            now = {one: was for one, was in now.items() if one not in ids}
            self._send("points/delete", "POST", {"points": [int(one) for one in ids]})
        else:
            oldest = min(now.values())
            now = {one: was for one, was in now.items() if was != oldest}
            match = {"key": "version", "match": {"value": oldest}}
            self._send("points/delete", "POST", {"filter": {"must": [match]}})
        self.history.append(now)
        self.answered += 1

    def _send(self, what: str, method: str, body: Any) -> None:
        wait = str(self.wait).lower()
        self.client.call(method, f"/collections/{NAME}/{what}?wait={wait}", body)


def point(one: str, version: int) -> dict[str, Any]:
    return {
        "id": int(one),
        "vector": vector(8, version * 1000 + int(one)),
        "payload": {"version": version},
    }


def backed_up(source: QdrantSource, folder: Path) -> tuple[Facts, list[Artifact]]:
    vault = MemoryVault()
    manifest = back_up([source], vault, folder)
    return manifest.components[0].facts, stored_artifacts(vault, manifest, source.name)


def restored(artifacts: list[Artifact], server: QdrantServer, folder: Path) -> Points:
    staged = source_on(server).staging("trial", folder)
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)
    return server.client.points(NAME)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("seed", "filters", "wait"),
    [(1, False, True), (3, False, False), (4, True, True)],
    ids=["ids", "ids unawaited", "filters"],
)
def test_what_is_frozen_is_one_prefix_of_what_was_written(
    server: QdrantServer,
    other: QdrantServer,
    tmp_path: Path,
    *,
    seed: int,
    filters: bool,
    wait: bool,
) -> None:
    vectors = {"size": 8, "distance": "Dot"}
    optimizers = {
        "flush_interval_sec": 1,
        "deleted_threshold": 0.1,
        "vacuum_min_vector_number": 100,
    }
    server.client.create(NAME, vectors=vectors, optimizers_config=optimizers)
    writer = Writer(server.client, seed, filters=filters, wait=wait)
    for _operation in range(100):
        writer.write()
    with writer.running():
        before = writer.answered
        facts, artifacts = backed_up(source_on(server), tmp_path / "backup")
        after = writer.asked
    found = restored(artifacts, other, tmp_path / "restore")
    versions = {one: content["payload"]["version"] for one, content in found.items()}
    matching = [n for n in range(before, after + 1) if writer.history[n] == versions]
    assert matching, f"no prefix from {before} to {after} has these {len(versions)} points"
    for one, content in found.items():
        assert array("f", content["vector"]) == array(
            "f", vector(8, versions[one] * 1000 + int(one))
        )
    assert facts.counts == {"collections": 1, f"points/{NAME}": len(found)}
    assert source_on(server).inspect(artifacts, tmp_path).facts.counts == facts.counts


@pytest.mark.timeout(120)
def test_many_points_are_counted_in_bounded_memory(
    server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qdrant_ids, "IN_MEMORY", 50)
    optimizers = {"indexing_threshold": 10, "max_segment_size": 100, "default_segment_number": 3}
    server.client.create(
        NAME, vectors={"size": 128, "distance": "Cosine"}, optimizers_config=optimizers
    )
    for start in range(0, 1500, 500):
        ids = range(start, start + 500)
        points = [{"id": n if n % 3 else uuid(n), "vector": vector(128, n)} for n in ids]
        server.client.upsert(NAME, points)
    server.client.delete(NAME, points=[1, 2, uuid(3), uuid(9), 100])
    server.client.upsert(NAME, [{"id": 1, "vector": vector(128, 0)}])
    wait_until_green(server.client)
    facts, artifacts = backed_up(source_on(server), tmp_path / "backup")
    assert facts.counts[f"points/{NAME}"] == server.client.count(NAME) == 1496
    assert source_on(server).inspect(artifacts, tmp_path).facts.counts == facts.counts


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def wait_until_green(client: Client) -> None:
    while client.call("GET", f"/collections/{NAME}")["status"] != "green":
        threading.Event().wait(0.05)


def test_all_kinds_of_vectors_and_ids_come_back(
    server: QdrantServer, other: QdrantServer, tmp_path: Path
) -> None:
    client = server.client
    client.create(
        NAME,
        vectors={
            "text": {"size": 8, "distance": "Cosine", "on_disk": True},
            "rows": {
                "size": 4,
                "distance": "Dot",
                "multivector_config": {"comparator": "max_sim"},
            },
        },
        sparse_vectors={"words": {"modifier": "idf"}},
        shard_number=3,
        quantization_config={"scalar": {"type": "int8", "always_ram": True}},
    )
    sparse = {"indices": [1, 7], "values": [0.5, 2.0]}
    client.upsert(NAME, [{"id": 1, "vector": {}, "payload": {"a": {"b": [1, "둘"]}}}])
    client.upsert(NAME, [{"id": uuid(2), "vector": {"text": vector(8, 2)}}])
    client.upsert(NAME, [{"id": 2**64 - 1, "vector": {"rows": [vector(4, 3), vector(4, 4)]}}])
    client.upsert(NAME, [{"id": 4, "vector": {"words": sparse}}])
    client.index(NAME, "a.b", "keyword")
    client.index(NAME, "text", {"type": "text", "tokenizer": "word"})
    facts, artifacts = backed_up(source_on(server), tmp_path / "backup")
    restored(artifacts, other, tmp_path / "restore")
    assert other.client.everything() == client.everything()
    assert facts.counts[f"points/{NAME}"] == 4
    details = facts.details["collections"]
    assert isinstance(details, dict)
    assert details[NAME] == {
        "vectors": {
            "text": {"dimension": 8, "distance": "Cosine"},
            "rows": {"dimension": 4, "distance": "Dot"},
        },
        "sparse_vectors": ["words"],
        "shards": 3,
        "indexes": {"a.b": "keyword", "text": "text"},
        "aliases": [],
    }
    assert source_on(other).facts() == source_on(server).facts()
    assert differences(facts, source_on(other).facts()) == []


class TestKeys:
    def test_ids_are_keys(self, server: QdrantServer) -> None:
        server.client.create(NAME)
        ids = [*range(1200), uuid(5)]
        server.client.upsert(NAME, [{"id": one, "vector": vector(4, 1)} for one in ids])
        server.client.alias("by-alias", NAME)
        for name in (NAME, "by-alias"):
            with source_on(server).keys({"collection": name}) as keys:
                assert sorted(keys) == sorted(map(str, ids))

    def test_values_of_the_payload_are_keys(self, server: QdrantServer) -> None:
        server.client.create(NAME)
        payloads: list[Any] = [
            {"doc": {"id": "a"}},
            {"doc": {"id": ["b", 3]}},
            {"doc": [{"id": "c"}, {"id": None}]},
            {"doc": "other"},
            {},
        ]
        server.client.upsert(
            NAME,
            [{"id": n, "vector": vector(4, n), "payload": one} for n, one in enumerate(payloads)],
        )
        for key, values in {"doc.id": ["3", "a", "b"], "doc[].id": ["c"]}.items():
            with source_on(server).keys({"collection": NAME, "payload": key}) as keys:
                assert sorted(keys) == values
