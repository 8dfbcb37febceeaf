"""The application: a library one can ask, kept in four places that belong together.

- rows: documents, their passages and the questions asked, in SQLite;
- vectors: one for each passage, in Chroma, opened in this very process;
- uploads: the documents as they came, as files;
- settings: the two files under ``infra/`` that an operator edits.

It knows nothing of backups. All it does for them is good manners: what is referred to is written
before whoever refers to it, so that at no instant a row names a vector or a file that is not there.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from .corpus import Text, passages
from .embedding import embed

SCHEMA_VERSION = "1.0.0"
COLLECTION = "passages"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY, title TEXT NOT NULL, upload TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (
    vector_id TEXT PRIMARY KEY, document_id INTEGER NOT NULL REFERENCES documents (id),
    text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS questions (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL, answer TEXT NOT NULL, asked_at TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the four stores lie."""

    rows: Path
    vectors: Path
    uploads: Path
    settings: Path

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the places of the application in its own folder."""
        return cls(folder / "library.db", folder / "chroma", folder / "uploads", folder / "infra")


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that answers a question."""

    title: str
    text: str


class Library:
    """The open application. One process at a time; use it as a context."""

    def __init__(self, places: Places) -> None:
        """Open the stores, and make those that are missing: come what may, it starts."""
        import chromadb
        from chromadb.config import Settings

        self.places = places
        places.uploads.mkdir(parents=True, exist_ok=True)
        self.rows = sqlite3.connect(places.rows, isolation_level=None, timeout=30)
        self.rows.executescript("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;" + _SCHEMA)
        self.rows.execute(
            "INSERT OR IGNORE INTO meta VALUES ('schema_version', ?)", (SCHEMA_VERSION,)
        )
        client = chromadb.PersistentClient(
            str(places.vectors), settings=Settings(anonymized_telemetry=False)
        )
        # Without an embedding function nothing is downloaded: we bring our own vectors. Chroma
        # builds part of its index anew on each start, in parallel, never twice the same: searched
        # this widely, it still gives the same answers.
        self.vectors: Any = client.get_or_create_collection(
            COLLECTION,
            embedding_function=None,
            configuration={"hnsw": {"space": "l2", "ef_construction": 200, "ef_search": 500}},
        )

    def __enter__(self) -> Self:
        """Return the open library."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close the database; Chroma's ends with the process."""
        self.rows.close()

    def add(self, number: int, text: Text) -> int:
        """Add a document under a new number; returns how many passages it has."""
        upload = f"{number:06}.txt"
        content = text.content.encode()
        texts = passages(text.content)
        ids = [f"{number}/{position}" for position in range(len(texts))]

        (self.places.uploads / upload).write_bytes(content)
        self.vectors.add(ids=ids, embeddings=[embed(passage) for passage in texts])
        with self.rows:
            self.rows.execute("BEGIN IMMEDIATE")
            self.rows.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?)",
                (number, text.title, upload, hashlib.sha256(content).hexdigest()),
            )
            self.rows.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?)",
                [(one, number, passage) for one, passage in zip(ids, texts, strict=True)],
            )
        return len(texts)

    def search(self, question: str, most: int = 3) -> list[Passage]:
        """Return the passages nearest to a question, the nearest first."""
        found = self.vectors.query(query_embeddings=[embed(question)], n_results=most, include=[])
        return [passage for one in found["ids"][0] for passage in self._passages(one)]

    def _passages(self, vector_id: str) -> Sequence[Passage]:
        rows = self.rows.execute(
            "SELECT title, text FROM chunks JOIN documents ON documents.id = document_id "
            "WHERE vector_id = ?",
            (vector_id,),
        )
        return [Passage(title, text) for title, text in rows]

    def ask(self, question: str) -> Passage | None:
        """Answer a question, and remember that it was asked."""
        best = next(iter(self.search(question)), None)
        self.rows.execute(
            "INSERT INTO questions (text, answer, asked_at) VALUES (?, ?, ?)",
            (question, best.title if best else "", datetime.now(UTC).isoformat()),
        )
        return best


def write_settings(folder: Path) -> None:
    """Write the two files an operator would have."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "env").write_text("LIBRARY_PORT=8000\nLIBRARY_SECRET=not-a-real-one\n", "utf-8")
    (folder / "docker-compose.yml").write_text(
        "services:\n  library:\n    build: ..\n    env_file: env\n    ports: ['8000:8000']\n",
        "utf-8",
    )
