"""A cluster of Qdrant: each node has some of the shards, and all together are the backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest

from holdfast.errors import ServerFailed, TargetUnfit
from holdfast.model.artifact import Artifact
from holdfast.sources.qdrant import QdrantOptions, QdrantSource
from holdfast.testing._trips import back_up, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from servers.qdrant import KEY, SMALL, QdrantServer, free_ports, litter, qdrant_server, vector

COUNTS = {"collections": 2, "points/spread": 300, "points/doubled": 300}
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def nodes() -> Iterator[list[QdrantServer]]:
    """Two nodes with a collection whose shards are spread, and one that lies on both."""
    ports = free_ports(2)
    with ExitStack() as running:
        nodes: list[QdrantServer] = []
        for port in ports:
            arguments = ["--uri", f"http://127.0.0.1:{port}"]
            arguments += ["--bootstrap", f"http://127.0.0.1:{ports[0]}"] if nodes else []
            cluster = {
                "QDRANT__CLUSTER__ENABLED": "true",
                "QDRANT__CLUSTER__P2P__PORT": str(port),
                "QDRANT__CLUSTER__CONSENSUS__TICK_PERIOD_MS": "50",
            }
            nodes.append(running.enter_context(qdrant_server({**SMALL, **cluster}, arguments)))
        client = nodes[0].client
        while any(len(node.client.call("GET", "/cluster")["peers"]) < 2 for node in nodes):
            Event().wait(0.05)
        spread = {"shard_number": 4, "replication_factor": 1}
        client.create("spread", vectors={"size": 4, "distance": "Dot"}, **spread)
        doubled = {"shard_number": 2, "replication_factor": 2}
        client.create("doubled", vectors={"size": 4, "distance": "Dot"}, **doubled)
        for name in ("spread", "doubled"):
            client.upsert(name, [{"id": n, "vector": vector(4, n)} for n in range(300)])
        client.alias("live", "spread")
        yield nodes


def source_on(nodes: list[QdrantServer]) -> QdrantSource:
    urls = tuple(node.url for node in nodes)
    options = QdrantOptions(url=urls[0], api_key=KEY, nodes=urls, snapshot_timeout=20)
    return QdrantSource("vectors", options)


@pytest.fixture
def artifacts(nodes: list[QdrantServer], tmp_path: Path) -> list[Artifact]:
    vault = MemoryVault()
    manifest = back_up([source_on(nodes)], vault, tmp_path / "backup")
    assert manifest.components[0].facts.counts == COUNTS
    return stored_artifacts(vault, manifest, "vectors")


def points(server: QdrantServer) -> object:
    return {name: server.client.points(name) for name in ("spread", "doubled")}


def test_all_nodes_together_are_the_backup(
    nodes: list[QdrantServer], artifacts: list[Artifact], tmp_path: Path
) -> None:
    source = source_on(nodes)
    assert source.facts().counts == COUNTS
    inspection = source.inspect(artifacts, tmp_path)
    assert (inspection.facts.counts, inspection.problems) == (COUNTS, ())
    half = [one for one in artifacts if one.part != "spread:2"]
    assert "missing" in source.inspect(half, tmp_path).problems[0]
    for node in nodes:
        assert litter(node) == {"collection spread", "collection doubled", "alias live"}


def test_it_is_restored_to_one_server(
    nodes: list[QdrantServer], artifacts: list[Artifact], tmp_path: Path
) -> None:
    with qdrant_server() as single:
        target = source_on(nodes).elsewhere(single.url)
        staged = target.staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        assert staged.view.facts().counts == COUNTS
        staged.activate()
        staged.settle(None)
        assert points(single) == points(nodes[0])
        half = [one for one in artifacts if one.part != "spread:2"]
        staged = target.staging("half", tmp_path / "half")
        with pytest.raises((TargetUnfit, ServerFailed), match="missing"):
            staged.fill(half)
        staged.revert()
        assert points(single) == points(nodes[0])
        assert litter(single) == {"collection spread", "collection doubled", "alias live"}


def test_it_is_restored_over_the_cluster_and_put_back(
    nodes: list[QdrantServer], artifacts: list[Artifact], tmp_path: Path
) -> None:
    source = source_on(nodes)
    backed_up = points(nodes[0])
    for name in ("spread", "doubled"):
        nodes[0].client.delete(name, points=list(range(100)))
    before = points(nodes[0])
    for end in ("revert", "settle"):
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        staged.activate()
        assert [points(node) for node in nodes] == [backed_up] * 2
        if end == "revert":
            staged.revert()
            assert [points(node) for node in nodes] == [before] * 2
        else:
            assert staged.settle(tmp_path / "attic")
            assert len(list((tmp_path / "attic").iterdir())) == 4
    assert [points(node) for node in nodes] == [backed_up] * 2
    for node in nodes:
        assert litter(node) == {"collection spread", "collection doubled", "alias live"}
