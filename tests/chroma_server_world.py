"""What tests of Chroma servers share: sources, records, and exports as they can be compared."""

from __future__ import annotations

import base64
import itertools
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.model.artifact import Artifact, Chunks, Stream
from holdfast.model.facts import Facts
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.sources._chroma_server import ChromaServer as ChromaServerSource
from servers.chroma import Database

DIMENSION = 8
_NUMBERS = itertools.count()


def new_name() -> str:
    """Return the name of a database that no other test of this process uses."""
    return f"test-{next(_NUMBERS)}"


def source_of(place: Database, url: str = "", **options: Any) -> ChromaServerSource:
    """Return a source for one database; impatient, so that trouble shows soon."""
    impatient: dict[str, Any] = {"page_size": 100, "connect_timeout": 5, "tries": 3}
    given = impatient | {"url": url or place.server.url, "databases": (place.name,)} | options
    return ChromaServerSource("memory", ChromaOptions(**given))


def rows(ids: list[str], version: int = 0) -> dict[str, Any]:
    """Return records whose every part tells their id and version."""
    return {
        "ids": ids,
        "embeddings": [[float(version), *[0.5] * (DIMENSION - 1)] for _ in ids],
        "documents": [f"{name} v{version}" for name in ids],
        "metadatas": [{"v": version} for _ in ids],
    }


@dataclass
class Export:
    """An export that was taken in: its artifacts can be read as often as wanted."""

    text: bytes
    facts: Facts
    exact: bool
    records: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def artifacts(self) -> list[Artifact]:
        return [as_stream(self.text)]


def as_stream(text: bytes) -> Stream:
    """Return bytes as the stream of a backup."""

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter([text[at : at + 10_000] for at in range(0, len(text), 10_000)])

    return Stream("memory.jsonl", opened)


def export(source: ChromaServerSource, folder: Path) -> Export:
    """Freeze a source, and read the export as its page describes it, by no code of ours."""
    folder.mkdir()
    with source.freeze(folder) as frozen:
        (stream,) = frozen.artifacts
        assert isinstance(stream, Stream)
        with stream.open() as chunks:
            text = b"".join(bytes(chunk) for chunk in chunks)
        done = Export(text, frozen.facts(), frozen.exact)
    for line in text.decode().splitlines():
        one = json.loads(line)
        if "collection" in one:
            current = done.records.setdefault(one["collection"]["title"], {})
        elif "id" in one:
            assert one["id"] not in current
            vector = base64.b64decode(one["embedding"])
            numbers = struct.unpack(f"<{len(vector) // 4}f", vector)
            current[one.pop("id")] = {**one, "embedding": list(numbers)}
    return done
