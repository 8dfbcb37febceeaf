"""Chroma servers earn the contract, each place being a database of one real server."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.ports import Source
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.sources._chroma_server import ChromaServer as ChromaServerSource
from holdfast.testing.source_contract import SourceContract
from servers.chroma import ChromaServer, Database

SPACES = {"prose": "l2", "speech": "cosine", "images": "ip"}
DIMENSION = 24


@pytest.fixture(scope="module")
def server(chroma: ChromaServer) -> ChromaServer:
    return chroma


class Near(tuple[float, ...]):
    """A vector that Chroma keeps as direction and length: equal but for their rounding."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and list(self) == pytest.approx(list(other), rel=1e-5)

    def __ne__(self, other: object) -> bool:
        return not self == other


def rows(seed: int, numbers: range) -> dict[str, list[Any]]:
    """Return records of all kinds there are: with and without each of their parts."""
    chance = random.Random(seed)
    count = len(numbers)
    return {
        "ids": [f"id {number} é" for number in numbers],
        "embeddings": [[chance.uniform(-1, 1) for _ in range(DIMENSION)] for _ in range(count)],
        "documents": [f"text\n{number}" if number % 3 else None for number in numbers],
        "metadatas": [
            {"n": number, "x": number / 8, "yes": True, "tags": ["a", "b"]} if number % 4 else None
            for number in numbers
        ],
        "uris": [f"s3://place/{number}" if number % 5 else None for number in numbers],
    }


class TestChromaServerSource(SourceContract):
    discoverable = False

    @pytest.fixture(autouse=True)
    def _server(self, server: ChromaServer) -> None:
        self._chroma = server

    def _place(self, folder: Path) -> Database:
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:20]
        return self._chroma.database(f"db-{digest}")

    def _of(self, source: Source) -> Database:
        assert isinstance(source, ChromaServerSource)
        assert source.options.databases
        return self._chroma.database(source.options.databases[0])

    def make_source(self, name: str, folder: Path) -> ChromaServerSource:
        place = self._place(folder)
        options = ChromaOptions(
            url=self._chroma.url, databases=(place.name,), page_size=50, batch_size=40
        )
        return ChromaServerSource(name, options)

    def other_place(self, source: Source, folder: Path) -> ChromaServerSource:
        return self.make_source(source.name, folder)

    def create(self, source: Source) -> None:
        place = self._chroma.create_database(self._of(source).name)
        for number, (name, space) in enumerate(SPACES.items()):
            made = place.create(
                name,
                configuration={"hnsw": {"space": space, "ef_search": 40, "sync_threshold": 50}},
                metadata={"about": name, "weight": 1.5},
            )
            made.call("add", **rows(number, range(70)))
        place.create("empty")
        place.create("legacy", metadata={"hnsw:space": "ip", "hnsw:M": 9})
        both = {"hnsw": {"space": "cosine", "ef_search": 33}}
        place.create("overruled", configuration=both, metadata={"hnsw:space": "ip"})

    def change(self, source: Source) -> None:
        place = self._of(source)
        prose = place.collection("prose")
        prose.call("add", **rows(9, range(70, 75)))
        prose.call("delete", ids=["id 3 é"])
        prose.call("update", ids=["id 4 é"], embeddings=[[0.5] * DIMENSION], documents=["new"])
        place.delete("speech")
        place.create("younger").call("add", **rows(10, range(3)))

    def content(self, source: Source) -> object:
        place = self._of(source)
        return {
            name: [
                said["configuration_json"],
                said["metadata"],
                {
                    record: {**parts, "embedding": self._vector(parts["embedding"], said)}
                    for record, parts in place.collection(name).records().items()
                },
            ]
            for name, said in place.collections().items()
            if "__holdfast_" not in name
        }

    def _vector(self, numbers: list[float], said: Mapping[str, Any]) -> object:
        cosine = said["configuration_json"]["hnsw"]["space"] == "cosine"
        return Near(numbers) if cosine else numbers

    def guided_content(self, source: Source, target: Path) -> object:
        return self.content(self.make_source(source.name, target))

    def guide_environment(self, target: Path) -> Mapping[str, str]:
        return {"CHROMA_URL": self._chroma.url, "CHROMA_DATABASE": self._place(target).name}

    def litter(self, folder: Path) -> set[str]:
        place = self._place(folder)
        names = set(place.collections())
        return names | {place.name} if place.name in self._chroma.databases() else names
