"""What of a server a component reaches: tenants, databases, keys, and records of any size."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.errors import ServerFailed, TargetUnfit, UnknownName, UsageInvalid
from holdfast.sources import _chroma_server_api
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.sources._chroma_server import ChromaServer as ChromaServerSource
from holdfast.sources._chroma_server_api import Api
from servers.chroma import ChromaServer, Database
from tests.chroma_server_world import as_stream, export, new_name, rows, source_of


@pytest.fixture(scope="module")
def server(chroma: ChromaServer) -> ChromaServer:
    return chroma


@pytest.fixture
def place(server: ChromaServer) -> Database:
    return server.create_database(new_name())


# --- several databases ---


class Tenant:
    """A tenant of its own, with two databases that have a collection of the same name."""

    def __init__(self, server: ChromaServer) -> None:
        self.name = new_name()
        self.server = server
        server.call("POST", "/tenants", {"name": self.name})
        self.first = server.create_database("first", self.name)
        self.second = server.create_database("second", self.name)
        self.first.create("prose").call("add", **rows(["one"]))
        self.second.create("prose").call("add", **rows(["two", "three"]))
        server.create_database("empty", self.name)

    def source(self, **options: Any) -> ChromaServerSource:
        given = {"url": self.server.url, "tenants": (self.name,)} | options
        return ChromaServerSource("memory", ChromaOptions(**given))

    def ids(self) -> dict[str, list[str]]:
        return {
            f"{name}/{collection}": sorted(place.collection(collection).records())
            for name in self.server.databases(self.name)
            for place in [self.server.database(name, self.name)]
            for collection in place.collections()
        }


@pytest.fixture
def tenant(server: ChromaServer) -> Tenant:
    return Tenant(server)


def test_all_databases_of_a_tenant_are_one_component(tenant: Tenant, tmp_path: Path) -> None:
    source = tenant.source()
    done = export(source, tmp_path / "work")
    expected = {
        f"vectors/{tenant.name}/first/prose": 1,
        f"vectors/{tenant.name}/second/prose": 2,
        "collections": 2,
    }
    assert done.facts.counts == expected == source.facts().counts
    before = tenant.ids()
    tenant.server.call("DELETE", f"/tenants/{tenant.name}/databases/second")
    tenant.server.call("DELETE", f"/tenants/{tenant.name}/databases/empty")
    tenant.server.create_database("later", tenant.name).create("news").call("add", **rows(["n"]))
    tenant.first.collection("prose").call("add", **rows(["more"]))
    went_on, databases = tenant.ids(), tenant.server.databases(tenant.name)
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(done.artifacts)
    assert staged.view.facts().counts == expected
    staged.activate()
    assert source.facts().counts == expected  # what came later went aside
    assert {name: ids for name, ids in tenant.ids().items() if "__" not in name} == before
    assert tenant.server.databases(tenant.name) == ["empty", "first", "later", "second"]
    staged.revert()
    assert (tenant.ids(), tenant.server.databases(tenant.name)) == (went_on, databases)


def test_a_tenant_that_is_gone_is_made_again(tenant: Tenant, tmp_path: Path) -> None:
    text = export(tenant.source(), tmp_path / "work").text
    again = new_name()
    text = text.replace(tenant.name.encode(), again.encode())
    source = tenant.source(tenants=(again,))
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill([as_stream(text)])
    staged.activate()
    assert tenant.server.databases(again) == ["empty", "first", "second"]
    assert source.facts().counts["collections"] == 2
    staged.revert()
    assert tenant.server.databases(again) == []


def test_several_databases_do_not_go_into_one(tenant: Tenant, tmp_path: Path) -> None:
    text = export(tenant.source(), tmp_path / "work").text
    staged = tenant.source(databases=("first",)).staging("tag1", tmp_path / "staging")
    with pytest.raises(TargetUnfit, match=r"empty|second"):
        staged.fill([as_stream(text)])
    staged.revert()


# --- keys ---


def keys(source: Any, **options: str) -> list[str]:
    with source.keys(options) as found:
        return sorted(found)


def test_keys_are_ids_or_values_of_metadata(place: Database) -> None:
    metadatas = [{"n": 7, "x": 0.5, "yes": True}, None, {"n": 8, "s": "text"}]
    place.create("prose").call("add", **(rows(["a", "b", "c"]) | {"metadatas": metadatas}))
    place.create("empty")
    source = source_of(place, page_size=2)
    assert keys(source, collection="prose") == ["a", "b", "c"]
    assert keys(source, collection="prose", metadata="n") == ["7", "8"]
    assert keys(source, collection="prose", metadata="x") == ["0.5"]
    assert keys(source, collection="prose", metadata="yes") == ["1"]
    assert keys(source, collection="prose", metadata="none") == []
    assert keys(source, collection="empty") == []
    with pytest.raises(UnknownName, match="verse"):
        keys(source, collection="verse")
    for wrong in ({}, {"metadata": "n"}, {"collection": "prose", "where": "x"}):
        with pytest.raises(UsageInvalid):
            keys(source, **wrong)


def test_keys_of_what_is_staged_are_those_of_the_backup(place: Database, tmp_path: Path) -> None:
    place.create("prose").call("add", **rows(["a", "b"]))
    source = source_of(place)
    done = export(source, tmp_path / "work")
    place.collection("prose").call("delete", ids=["a"])
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(done.artifacts)
    assert keys(staged.view, collection="prose") == ["a", "b"]
    assert keys(source, collection="prose") == ["b"]
    assert keys(source.reopen(staged.token).view, collection="prose") == ["a", "b"]


# --- sizes and numbers ---


def test_records_that_are_large_are_asked_for_a_few_at_a_time(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"id {number}" for number in range(300)]
    large = dict.fromkeys(ids[120:160], "x" * 40_000)
    given = rows(ids) | {"documents": [large.get(name, "small") for name in ids]}
    place.create("prose").call("add", **given)
    monkeypatch.setattr(_chroma_server_api, "BIGGEST_ANSWER", 200_000)
    done = export(source_of(place, page_size=300), tmp_path / "work")
    assert {name: one["document"] for name, one in done.records["prose"].items()} == dict(
        zip(ids, given["documents"], strict=True)
    )
    for limit in ("BIGGEST_ANSWER", "BIGGEST_RECORD"):
        monkeypatch.setattr(_chroma_server_api, limit, 30_000)
    with pytest.raises(ServerFailed, match="too large"):
        export(source_of(place, page_size=300), tmp_path / "again")


def test_every_float_comes_back_bit_by_bit(place: Database, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    bits = np.random.default_rng(seed).integers(0, 1 << 32, (400, 32), np.uint32)
    vectors = bits.view("<f4")
    vectors[~np.isfinite(vectors) | (np.abs(vectors) > 1e15)] = 0.1
    ids = [f"id {number}" for number in range(400)]
    place.create("prose").call("add", ids=ids, embeddings=vectors.tolist())
    source = source_of(place)
    done = export(source, tmp_path / "work")
    target = place.server.database(new_name())
    staged = source_of(target).staging("tag1", tmp_path / "staging")
    staged.fill(done.artifacts)
    staged.activate()
    for found in (done.records["prose"], target.collection("prose").records()):
        there = np.asarray([found[name]["embedding"] for name in ids], "<f4")
        assert np.array_equal(there.view("u4"), vectors.view("u4")), seed


def test_a_server_that_knows_no_base64_gets_numbers(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create("prose").call("add", **rows(["a", "b"], 3))
    source = source_of(place)
    done = export(source, tmp_path / "work")
    sent: list[Any] = []
    real = Api.add

    def add(self: Api, collection: Any, columns: Any) -> None:
        sent.extend(columns["embeddings"])
        real(self, collection, columns)

    monkeypatch.setattr(Api, "limits", {"max_batch_size": 1})
    monkeypatch.setattr(Api, "add", add)
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(done.artifacts)
    assert [vector[0] for vector in sent] == [3.0, 3.0]
    staged.revert()


# --- what a server leaves behind ---


def test_records_do_not_take_over_what_deleted_collections_left(
    place: Database, tmp_path: Path
) -> None:
    ids = [f"id {number}" for number in range(40)]
    place.create("prose").call("add", **rows(ids))
    source = source_of(place, batch_size=15)
    done = export(source, tmp_path / "work")
    before = place.collection("prose").records()
    haunted = place.create("haunted")
    haunted.call("add", **(rows(ids) | {"metadatas": [{"ghosts": ["a", "b"]} for _ in ids]}))
    haunted.records()  # until then they are only in its log
    place.delete("haunted")
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(done.artifacts)
    staged.activate()
    assert place.collection("prose").records() == before
    staged.settle(None)


@pytest.mark.parametrize("end", ["revert", "settle"])
def test_what_a_restore_removes_leaves_nothing_to_later_records(
    place: Database, tmp_path: Path, end: str
) -> None:
    ids = [f"id {number}" for number in range(40)]
    tags = [{"tags": ["a", "b"]} for _ in ids]
    place.create("prose").call("add", **(rows(ids) | {"metadatas": tags}))
    source = source_of(place)
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(export(source, tmp_path / "work").artifacts)
    if end == "revert":
        staged.revert()
    else:
        staged.activate()
        staged.settle(None)
    later = place.create("later")
    later.call("add", **rows(ids))
    assert {str(one["metadata"]) for one in later.records().values()} == {"{'v': 0}"}
