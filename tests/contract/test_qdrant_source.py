"""Qdrant earns the contract, on real servers: one for each folder, for Qdrant has no databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.ports import Source
from holdfast.sources._qdrant_facts import STAGED
from holdfast.sources.qdrant import QdrantOptions, QdrantSource
from holdfast.testing.source_contract import SourceContract
from servers.qdrant import KEY, QdrantServer, litter, program, qdrant_server, vector

pytestmark = pytest.mark.slow


class TestQdrantSource(SourceContract):
    discoverable: ClassVar[bool] = False
    always_there: ClassVar[bool] = True

    @pytest.fixture(autouse=True)
    def _servers(self) -> Iterator[None]:
        self.servers: dict[Path, QdrantServer] = {}
        with ExitStack() as self.running:
            yield

    def server(self, folder: Path) -> QdrantServer:
        if folder not in self.servers:
            self.servers[folder] = self.running.enter_context(qdrant_server())
        return self.servers[folder]

    def server_of(self, source: Source) -> QdrantServer:
        return next(server for server in self.servers.values() if server.url == source.where)

    def make_source(self, name: str, folder: Path) -> QdrantSource:
        url = self.server(folder).url
        return QdrantSource(name, QdrantOptions(url=url, api_key=KEY, server=program()))

    def other_place(self, source: Source, folder: Path) -> Source:
        return source.elsewhere(self.server(folder).url)

    def create(self, source: Source) -> None:
        client = self.server_of(source).client
        client.create(
            "brain documents",
            vectors={
                "text": {"size": 8, "distance": "Cosine"},
                "image": {"size": 4, "distance": "Dot"},
            },
            sparse_vectors={"words": {}},
            shard_number=2,
        )
        client.upsert("brain documents", [document(number) for number in range(400)])
        client.delete("brain documents", points=[3, 4, 5])
        client.index("brain documents", "doc")
        client.create("기억", vectors={"size": 4, "distance": "Dot"})
        client.upsert("기억", [note(number) for number in range(50)])
        client.alias("live", "brain documents")

    def change(self, source: Source) -> None:
        client = self.server_of(source).client
        client.upsert("brain documents", [document(number) for number in range(390, 450)])
        client.upsert("기억", [note(number + 7) for number in range(10)])
        client.delete("기억", points=[uuid(40)])
        client.alias("live", "기억")
        client.index("기억", "n", "integer")

    def content(self, source: Source) -> object:
        return self.server_of(source).client.everything(besides=STAGED)

    def litter(self, folder: Path) -> set[str]:
        return litter(self.server(folder))

    def guided_content(self, source: Source, target: Path) -> object:
        return self.server(target).client.everything()

    def guide_environment(self, target: Path) -> Mapping[str, str]:
        return {"QDRANT_URL": self.server(target).url, "QDRANT_API_KEY": KEY}


def document(number: int) -> dict[str, object]:
    return {
        "id": number,
        "vector": {
            "text": vector(8, number),
            "image": vector(4, number),
            "words": {"indices": [1, number + 5], "values": [0.5, 0.25]},
        },
        "payload": {"doc": f"문서 {number // 10}", "page": number % 10},
    }


def note(number: int) -> dict[str, object]:
    return {"id": uuid(number), "vector": vector(4, number), "payload": {"n": number}}


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"
