"""Restores into real stores, killed before every change of the file system."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.ports import Source
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.sources.sqlite import SqliteOptions, SqliteSource
from holdfast.testing.source_crash_contract import SourceCrashContract
from tests.tree_world import picture

pytestmark = pytest.mark.slow


class TestSqliteKilled(SourceCrashContract):
    def make_source(self, name: str, folder: Path) -> SqliteSource:
        return SqliteSource(name, SqliteOptions(path=folder / "stories.db"))

    def create(self, source: Source) -> None:
        self.write(source, "CREATE TABLE stories (title TEXT); INSERT INTO stories VALUES ('one')")

    def change(self, source: Source) -> None:
        self.write(source, "INSERT INTO stories VALUES ('two')")

    def write(self, source: Source, sql: str) -> None:
        assert isinstance(source, SqliteSource)
        with closing(sqlite3.connect(source.path)) as connection:
            connection.executescript(sql)
            connection.commit()

    def content(self, source: Source) -> object:
        assert isinstance(source, SqliteSource)
        with closing(sqlite3.connect(source.path)) as connection:
            return list(connection.iterdump())


class TestFilesKilled(SourceCrashContract):
    def make_source(self, name: str, folder: Path) -> FilesSource:
        return FilesSource(name, FilesOptions(path=folder / "uploads"))

    def create(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        (source.path / "deeper").mkdir(parents=True)
        (source.path / "deeper" / "one").write_text("1")
        (source.path / "link").symlink_to("deeper/one")

    def change(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        (source.path / "two").write_text("2")

    def content(self, source: Source) -> object:
        assert isinstance(source, FilesSource)
        return picture(source.path) if source.path.exists() else None
