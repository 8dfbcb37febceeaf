"""The application's vectors, in a Chroma folder or on a Qdrant server: one for each passage."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .embedding import DIMENSIONS, Vector

COLLECTION = "passages"
PAGE = 1000  # vectors read at once
_EQUALS = 100  # more than there are passages as near as one another
_NAMES = uuid.UUID("6b8f6c3e-4f0b-4a52-9d8f-3f1f1c8c2b77")  # Qdrant's ids are numbers or UUIDs


class Vectors(Protocol):
    """A collection of vectors by their passages' ids."""

    def add(self, ids: Sequence[str], vectors: Sequence[Vector]) -> None:
        """Add vectors; they can be found when this returns."""

    def nearest(self, vector: Vector, most: int) -> list[str]:
        """Return the ids of the vectors nearest to this one, the nearest first."""

    def all(self) -> dict[str, Vector]:
        """Return every vector by its id."""

    def close(self) -> None:
        """Let go what is open."""


class ChromaVectors:
    """Vectors in Chroma, opened in this very process."""

    def __init__(self, folder: Path) -> None:
        """Open the folder, and make what is missing."""
        import chromadb
        from chromadb.config import Settings

        client = chromadb.PersistentClient(
            str(folder), settings=Settings(anonymized_telemetry=False)
        )
        # Without an embedding function nothing is downloaded: we bring our own vectors. Chroma
        # builds part of its index anew on each start, in parallel, never twice the same: searched
        # this widely, it still gives the same answers.
        self._collection: Any = client.get_or_create_collection(
            COLLECTION,
            embedding_function=None,
            configuration={"hnsw": {"space": "l2", "ef_construction": 200, "ef_search": 500}},
        )

    def add(self, ids: Sequence[str], vectors: Sequence[Vector]) -> None:
        """Add vectors."""
        self._collection.add(ids=list(ids), embeddings=list(vectors))

    def nearest(self, vector: Vector, most: int) -> list[str]:
        """Return the ids of the nearest."""
        found = self._collection.query(query_embeddings=[vector], n_results=most, include=[])
        return list(found["ids"][0])

    def all(self) -> dict[str, Vector]:
        """Return every vector."""
        found: dict[str, Vector] = {}
        ids = self._collection.get(include=[])["ids"]
        for at in range(0, len(ids), PAGE):
            page = self._collection.get(ids=ids[at : at + PAGE], include=["embeddings"])
            found |= dict(zip(page["ids"], page["embeddings"].astype(np.float32), strict=True))
        return found

    def close(self) -> None:
        """Do nothing: Chroma ends with the process."""


class QdrantVectors:
    """Vectors on a Qdrant server, asked over HTTP."""

    def __init__(self, url: str) -> None:
        """Connect, and make the collection where it is missing."""
        import httpx

        self._http = httpx.Client(
            base_url=url, headers={"api-key": os.environ["QDRANT_API_KEY"]}, timeout=60
        )
        if self._http.get(f"/collections/{COLLECTION}").status_code == httpx.codes.NOT_FOUND:
            parameters = {"vectors": {"size": DIMENSIONS, "distance": "Euclid"}}
            self._ask("PUT", "", parameters)

    def add(self, ids: Sequence[str], vectors: Sequence[Vector]) -> None:
        """Add vectors, all of them or none."""
        points = [
            {"id": _number(one), "vector": vector.tolist(), "payload": {"passage": one}}
            for one, vector in zip(ids, vectors, strict=True)
        ]
        self._ask("PUT", "/points?wait=true", {"points": points})

    def nearest(self, vector: Vector, most: int) -> list[str]:
        """Return the ids of the nearest: exactly, not nearly, and always the same of equal ones.

        Of passages that are as near, which licences share, Qdrant gives whichever it meets first.
        """
        asked = {
            "query": vector.tolist(),
            "limit": most + _EQUALS,
            "with_payload": True,
            "params": {"exact": True},
        }
        points = self._ask("POST", "/points/query", asked)["points"]
        near = sorted((point["score"], point["payload"]["passage"]) for point in points)
        return [passage for _distance, passage in near[:most]]

    def all(self) -> dict[str, Vector]:
        """Return every vector."""
        found: dict[str, Vector] = {}
        offset: object = None
        while True:
            asked = {"limit": PAGE, "offset": offset, "with_vector": True}
            page = self._ask("POST", "/points/scroll", asked)
            for point in page["points"]:
                found[point["payload"]["passage"]] = np.asarray(point["vector"], np.float32)
            offset = page["next_page_offset"]
            if offset is None:
                return found

    def drop(self) -> None:
        """Drop the collection."""
        self._ask("DELETE", "")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self._http.request(method, f"/collections/{COLLECTION}{path}", json=body)
        answer.raise_for_status()
        return answer.json()["result"]


def _number(vector_id: str) -> str:
    return str(uuid.uuid5(_NAMES, vector_id))


def open_vectors(where: str) -> Vectors:
    """Open the vectors in a folder, or on the server of a URL."""
    return QdrantVectors(where) if where.startswith("http") else ChromaVectors(Path(where))


def lose_vectors(where: str) -> None:
    """Remove all of them, as one does with what looks like a cache."""
    if not where.startswith("http"):
        shutil.rmtree(where)
        return
    vectors = QdrantVectors(where)
    vectors.drop()
    vectors.close()
