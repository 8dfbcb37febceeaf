"""The documentation is true: its commands run, its references are current, its links lead on."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.cli.reference import commands_page, errors_page
from holdfast.config.reference import render
from holdfast.runtime.registry import kinds

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#]+)(#[^)]*)?\)")


def make_application(folder: Path) -> None:
    database_path = folder / "data" / "projects.db"
    (folder / "data" / "uploads").mkdir(parents=True)
    (folder / "data" / "uploads" / "plan.txt").write_text("a plan")
    with closing(sqlite3.connect(database_path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT)")
        database.execute("INSERT INTO projects (name) VALUES ('one'), ('two')")


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``holdfast`` is this checkout's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "holdfast"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m holdfast "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def run_page(page: Path, folder: Path, environment: dict[str, str]) -> None:
    blocks = CODE.findall(page.read_text("utf-8"))
    assert blocks, f"{page} has no commands"
    for block in blocks:
        done = subprocess.run(
            ["sh", "-e", "-c", block],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{page.name}:\n{block}\n{done.stdout}\n{done.stderr}"


def test_the_tutorial_works_from_its_first_line(tmp_path: Path, shell: dict[str, str]) -> None:
    folder = tmp_path / "app"
    make_application(folder)
    run_page(DOCS / "tutorial.md", folder, shell)


def test_the_restore_page_works_on_a_backed_up_stack(tmp_path: Path, shell: dict[str, str]) -> None:
    folder = tmp_path / "app"
    make_application(folder)
    setup = ("holdfast init", "holdfast backup", "holdfast verify")
    for line in setup:
        command = ["sh", "-c", line]
        subprocess.run(command, cwd=folder, env=shell, check=True, capture_output=True)
    run_page(DOCS / "restore.md", folder, shell)


def test_the_page_on_repositories_works_from_its_first_line(
    tmp_path: Path, shell: dict[str, str]
) -> None:
    folder, page = tmp_path / "app", DOCS / "how-to" / "repositories.md"
    make_application(folder)
    (config,) = YAML.findall(page.read_text("utf-8"))
    (folder / "holdfast.yaml").write_text(config)
    run_page(page, folder, shell)
    assert (folder / "by-hand" / "uploads" / "plan.txt").read_text() == "a plan"
    assert (folder / "looked-at" / "uploads" / "plan.txt").read_text() == "a plan"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("errors.md", errors_page()),
        ("commands.md", commands_page()),
        ("configuration.md", render(kinds())),
    ],
)
def test_a_reference_page_is_current(name: str, text: str) -> None:
    page = DOCS / "reference" / name
    assert page.read_text("utf-8") == text, "run scripts/reference"


PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_page(page: Path) -> None:
    for target, _anchor in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_exit_status_is_explained_on_the_restore_page() -> None:
    from holdfast.errors import table

    text = (DOCS / "restore.md").read_text("utf-8")
    statuses = {row.exit_status for row in table()} - {12, 3}  # keys and partial: not of a restore
    missing = [status for status in sorted(statuses) if f"| {status} |" not in text]
    assert missing == []
