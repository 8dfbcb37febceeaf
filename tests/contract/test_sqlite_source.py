"""SQLite databases earn the contract, in both journal modes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from holdfast.ports import Source
from holdfast.sources.sqlite import SqliteOptions, SqliteSource
from holdfast.testing.source_contract import SourceContract


class TestSqliteSource(SourceContract):
    mode = "delete"

    def make_source(self, name: str, folder: Path) -> SqliteSource:
        return SqliteSource(name, SqliteOptions(path=folder / "story registry's.db"))

    def create(self, source: Source) -> None:
        assert isinstance(source, SqliteSource)
        with closing(sqlite3.connect(source.path)) as connection:
            connection.execute(f"PRAGMA journal_mode = {self.mode}")
            connection.execute(
                "CREATE TABLE stories (id INTEGER PRIMARY KEY, title TEXT, body BLOB)"
            )
            connection.execute("CREATE INDEX by_title ON stories (title)")
            rows = ((i, f"이야기 {i}", bytes([i % 251]) * 2000) for i in range(2000))
            connection.executemany("INSERT INTO stories VALUES (?, ?, ?)", rows)
            connection.commit()

    def change(self, source: Source) -> None:
        assert isinstance(source, SqliteSource)
        with closing(sqlite3.connect(source.path)) as connection:
            connection.execute("INSERT INTO stories (title) VALUES ('later')")
            connection.execute("UPDATE stories SET body = NULL WHERE id < 100")
            connection.commit()

    def content(self, source: Source) -> object:
        assert isinstance(source, SqliteSource)
        with closing(sqlite3.connect(source.path)) as connection:
            return list(connection.iterdump())


class TestSqliteSourceWithLog(TestSqliteSource):
    mode = "wal"
