"""``holdfast health``: of each part whether it can be reached, with what tools and what rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.runtime import registry
from tests.edges.command_line import Brain
from tests.ledger_world import KIND, PASSWORD


@pytest.fixture
def books(empty_brain: Brain, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stack with a store that a server holds; returns the server's folder."""
    monkeypatch.setattr(registry, "SOURCES", {**registry.SOURCES, **KIND})
    monkeypatch.setenv("LEDGER_PASSWORD", PASSWORD)
    server = empty_brain.folder / "server"
    ledger = (
        f'  books: {{source: ledger, url: "ledger://host{server}/books",'
        ' password: "${env:LEDGER_PASSWORD}"}\n'
    )
    empty_brain.create(lambda text: text.replace("vaults:", ledger + "vaults:"))
    server.mkdir()
    (server / "books").write_text("one\n")
    return server


def test_a_part_is_shown_with_version_tools_and_rights(empty_brain: Brain, books: Path) -> None:
    said = empty_brain.ok("health").out
    [line] = [line for line in said.splitlines() if line.startswith("books")]
    words = ["books", "well", "7.1", "4 B", "ledger_dump 1.2, ledger_load", "read and write"]
    assert [word.strip() for word in line.split("  ") if word.strip()] == words
    document = empty_brain.ok("health", "--json").json
    assert document["components"]["books"] == {
        "reachable": True,
        "version": "7.1",
        "size": 4,
        "tools": {"ledger_dump": "1.2", "ledger_load": ""},
        "rights": "read and write",
        "problems": [],
    }
    assert document["well"] is True


def test_a_problem_of_what_can_be_reached_is_said_and_is_no_failure(
    empty_brain: Brain, books: Path
) -> None:
    (books / "slow").touch()
    said = empty_brain.ok("health").out
    assert "reachable, but see below" in said
    assert "\nbooks: it is slow today\n" in said
    document = empty_brain.ok("health", "--json").json
    assert document["components"]["books"]["problems"] == ["it is slow today"]
    assert document["problems"] == []


def test_a_wrong_password_is_told_apart_from_a_server_that_is_gone(
    empty_brain: Brain, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", "wrong-hunter2")
    refused = empty_brain.run("health")
    assert refused.status == 1
    assert "refuses access: wrong password" in refused.out
    assert "hunter2" not in refused.out + refused.err
    (books / "books").unlink()
    books.rmdir()
    gone = empty_brain.run("health", "--json")
    assert gone.status == 1
    [problem] = gone.json["problems"]
    assert "cannot be reached: nobody is there" in problem


def test_a_missing_secret_is_a_problem_of_its_component_alone(
    empty_brain: Brain, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEDGER_PASSWORD")
    ill = empty_brain.run("health", "--json")
    assert ill.status == 1
    components = ill.json["components"]
    assert {name for name, probe in components.items() if probe["reachable"]} == {
        "projects",
        "uploads",
    }
    [problem] = ill.json["problems"]
    assert problem.startswith("books: ")
    assert "${env:LEDGER_PASSWORD} cannot be read: the environment variable is not set" in problem


def test_a_secret_that_stands_in_the_stacks_own_file_is_enough(
    empty_brain: Brain, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LEDGER_PASSWORD")
    (empty_brain.folder / ".env").write_text(f"LEDGER_PASSWORD={PASSWORD}\n")
    with empty_brain.config.open("a") as file:
        file.write("env_file: .env\n")
    assert empty_brain.ok("health", "--json").json["well"] is True
    shown = empty_brain.ok("config", "show").out
    assert PASSWORD not in shown
    assert f"# env_file {empty_brain.folder}/.env ${{env:LEDGER_PASSWORD}}" in shown
