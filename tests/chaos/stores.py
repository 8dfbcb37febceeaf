"""The stores of the application: adding a number to one, and reading all of them back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

NAMES = ("logged", "plain", "vectors", "files")
CONFIG = """\
stack: chaos
components:
  logged: {source: sqlite, path: data/logged.db}
  plain: {source: sqlite, path: data/plain.db}
  vectors: {source: chroma, path: data/vectors}
  files: {source: files, path: data/files}
vaults:
  local: {kind: plain, url: backups}
plans:
  nightly: {keep: {last: 3}}
services:
  stop: [sh, -c, "echo stop > control/want; until grep -q stopped control/is; do sleep 0.02; done"]
  start: [sh, -c, "echo run > control/want; until grep -q running control/is; do sleep 0.02; done"]
"""
KNOWN = {"logged.db", "logged.db-wal", "logged.db-shm", "plain.db", "plain.db-journal", "vectors"}
KNOWN |= {"files"}  # what may lie in the folder of the data
Content = dict[str, list[int]]


class Stores:
    """The stores of one folder, open."""

    def __init__(self, folder: Path) -> None:
        """Open them, making what is not there."""
        folder.mkdir(exist_ok=True)
        self._files = folder / "files"
        self._files.mkdir(exist_ok=True)
        self._logged = _database(folder / "logged.db", "WAL")
        self._plain = _database(folder / "plain.db", "DELETE")
        self._vectors = _collection(folder / "vectors")
        self._adding: dict[str, Callable[[int], object]] = {
            "logged": lambda number: _insert(self._logged, number),
            "plain": lambda number: _insert(self._plain, number),
            "vectors": self._add_vector,
            "files": self._add_file,
        }

    def add(self, store: str, number: int) -> None:
        """Add a number; it is acknowledged when this returns."""
        self._adding[store](number)

    def _add_vector(self, number: int) -> None:
        vector = [float(number), 1.0, 2.0, 3.0]
        self._vectors.add(ids=[str(number)], embeddings=[vector], documents=[f"number {number}"])

    def _add_file(self, number: int) -> None:
        aside = self._files / f".{number}.tmp"
        aside.write_text(str(number))
        aside.rename(self._files / f"{number}.txt")

    def content(self) -> Content:
        """Return the numbers in each store, in their order."""
        return {
            "logged": _numbers(self._logged),
            "plain": _numbers(self._plain),
            "vectors": self._vector_numbers(),
            "files": sorted(int(path.read_text()) for path in self._files.glob("*.txt")),
        }

    def _vector_numbers(self) -> list[int]:
        found = self._vectors.get(include=["embeddings", "documents"])
        rows = zip(found["ids"], found["embeddings"], found["documents"], strict=True)
        for name, vector, document in rows:
            if vector[0] != float(name) or document != f"number {name}":
                raise AssertionError(f"vector {name} became {vector} {document}")
        return sorted(int(name) for name in found["ids"])


def _database(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, pad BLOB)")
    return connection


def _insert(database: sqlite3.Connection, number: int) -> None:
    database.execute("INSERT INTO numbers VALUES (?, ?)", (number, os.urandom(100)))


def _numbers(database: sqlite3.Connection) -> list[int]:
    with closing(database.execute("SELECT number FROM numbers ORDER BY number")) as rows:
        found = [row[0] for row in rows]
    (said,) = database.execute("PRAGMA integrity_check").fetchone()
    if said != "ok":
        raise AssertionError(said)
    return found


def _collection(path: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    client = chromadb.PersistentClient(path=str(path), settings=settings)
    return client.get_or_create_collection("numbers", embedding_function=None)
