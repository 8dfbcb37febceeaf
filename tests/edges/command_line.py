"""A small stack in a folder, and the command line run on it within this process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.app import run

CONFIG = """\
stack: brain
components:
  projects: {source: sqlite, path: data/projects.db}
  uploads: {source: files, path: data/uploads}
vaults:
  local: {kind: plain, url: backups}
plans:
  nightly:
    keep: {last: 2}
    rpo: 24h
checks:
  - name: every episode belongs to a project
    component: projects
    sql: SELECT e.id FROM episodes e LEFT JOIN projects p ON p.id = e.project WHERE p.id IS NULL
"""


@dataclass(frozen=True)
class Outcome:
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Brain:
    """An application in a folder."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def database(self) -> Path:
        return self.folder / "data" / "projects.db"

    @property
    def uploads(self) -> Path:
        return self.folder / "data" / "uploads"

    @property
    def config(self) -> Path:
        return self.folder / "holdfast.yaml"

    def run(self, *arguments: str) -> Outcome:
        """Run `holdfast` with these arguments; nothing may look like a bug."""
        self.capsys.readouterr()
        status = run(["--config", str(self.config), *arguments])
        said = self.capsys.readouterr()
        assert "this is a bug" not in said.err
        assert "Traceback" not in said.err
        return Outcome(status, said.out, said.err)

    def ok(self, *arguments: str) -> Outcome:
        outcome = self.run(*arguments)
        assert outcome.status == 0, outcome
        return outcome

    def sql(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.database, isolation_level=None)) as database:
            return database.execute(statement).fetchall()

    def count(self) -> int:
        return int(self.sql("SELECT count(*) FROM episodes")[0][0])

    def create(self, edit: Callable[[str], str] = lambda text: text) -> None:
        self.uploads.mkdir(parents=True)
        (self.uploads / "대본.txt").write_text("script", encoding="utf-8")
        self.config.write_text(edit(CONFIG), encoding="utf-8")
        self.sql("PRAGMA journal_mode = WAL")
        self.sql("CREATE TABLE projects (id INTEGER PRIMARY KEY)")
        self.sql("CREATE TABLE episodes (id INTEGER PRIMARY KEY, project INTEGER)")
        self.sql("INSERT INTO projects VALUES (1), (2)")
        self.sql("INSERT INTO episodes VALUES (1, 1), (2, 1), (3, 2)")
