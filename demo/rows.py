"""The application's rows, in SQLite or PostgreSQL: the same statements for both."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

SCHEMA_VERSION = "1.0.0"
TABLES = ("meta", "documents", "chunks", "questions")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY, title TEXT NOT NULL, upload TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS chunks (
    vector_id TEXT PRIMARY KEY, document_id INTEGER NOT NULL REFERENCES documents (id),
    text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS questions (
    id INTEGER PRIMARY KEY, text TEXT NOT NULL, answer TEXT NOT NULL, asked_at TEXT NOT NULL)
"""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as its row has it."""

    number: int
    title: str
    upload: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage that answers a question."""

    title: str
    text: str


class Connection(Protocol):
    """What SQLite's and PostgreSQL's drivers have in common."""

    def execute(self, sql: str, values: Sequence[Any] = ...) -> Any:
        """Run one statement."""

    def close(self) -> None:
        """Close it."""


class Rows:
    """Documents, their passages and the questions asked."""

    def __init__(self, connection: Connection, mark: str) -> None:
        """``mark`` stands for a value in the statements that the driver takes."""
        self._connection = connection
        self._mark = mark
        for statement in _SCHEMA.split(";"):
            self._run(statement)
        self._run(
            "INSERT INTO meta VALUES ('schema_version', ?) ON CONFLICT (key) DO NOTHING",
            SCHEMA_VERSION,
        )

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def add(self, document: Document, passages: Sequence[tuple[str, str]]) -> None:
        """Add a document with its passages, each with the id of its vector, in one transaction."""
        with self._transaction():
            self._run(
                "INSERT INTO documents VALUES (?, ?, ?, ?)",
                document.number,
                document.title,
                document.upload,
                document.sha256,
            )
            for vector_id, text in passages:
                self._run("INSERT INTO chunks VALUES (?, ?, ?)", vector_id, document.number, text)

    def passages(self, vector_id: str) -> list[Passage]:
        """Return the passage of a vector; none where the row is lost."""
        rows = self._run(
            "SELECT title, text FROM chunks JOIN documents ON documents.id = document_id"
            " WHERE vector_id = ?",
            vector_id,
        )
        return [Passage(title, text) for title, text in rows]

    def remember(self, question: str, answer: str) -> None:
        """Remember that a question was asked, and what was answered."""
        self._run(
            "INSERT INTO questions SELECT coalesce(max(id), 0) + 1, ?, ?, ? FROM questions",
            question,
            answer,
            datetime.now(UTC).isoformat(),
        )

    def table(self, name: str) -> list[tuple[Any, ...]]:
        """Return all rows of a table, in the order of its key."""
        return [tuple(row) for row in self._run(f"SELECT * FROM {name} ORDER BY 1")]

    def lose_every_third(self) -> int:
        """Run a clean-up whose condition is wrong; returns how many documents it took."""
        with self._transaction():
            self._run("DELETE FROM chunks WHERE document_id % 3 = 0")
            return int(self._run("DELETE FROM documents WHERE id % 3 = 0").rowcount)

    def spoil(self) -> None:
        """Change one text a little."""
        self._run("UPDATE chunks SET text = text || '.' WHERE document_id = 1")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN")
        try:
            yield
        except BaseException:
            self._run("ROLLBACK")
            raise
        self._run("COMMIT")

    def _run(self, sql: str, *values: object) -> Any:
        if self._mark != "?":
            sql = sql.replace("%", "%%").replace("?", self._mark)
        return self._connection.execute(sql, values)


def open_rows(where: str) -> Rows:
    """Open the rows in a file, or in the PostgreSQL database of a URL."""
    if where.startswith("postgresql:"):
        import psycopg

        return Rows(psycopg.connect(where, autocommit=True), "%s")
    connection = sqlite3.connect(where, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")
    return Rows(connection, "?")
