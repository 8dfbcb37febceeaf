"""``restore --target DIR`` and ``--target NAME=URL``: what goes where, and what stays as it is."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.runtime import registry
from tests.crash_stack import Scenes, change, strays
from tests.crash_world import Commands, World
from tests.edges.command_line import Brain
from tests.ledger_world import KIND, PASSWORD


@pytest.fixture
def ledgers(empty_brain: Brain, monkeypatch: pytest.MonkeyPatch) -> Brain:
    """The small application with a store that only a server can hold, backed up and gone on."""
    monkeypatch.setattr(registry, "SOURCES", {**registry.SOURCES, **KIND})
    monkeypatch.setenv("LEDGER_PASSWORD", PASSWORD)
    brain = empty_brain
    url = f"ledger://host{brain.folder}/server/books"
    ledger = f'  books: {{source: ledger, url: "{url}", password: "${{env:LEDGER_PASSWORD}}"}}\n'
    brain.create(lambda text: text.replace("vaults:", ledger + "vaults:"))
    (brain.folder / "server").mkdir()
    books(brain).write_text("one\ntwo\n")
    brain.ok("backup")
    books(brain).write_text("three\n")
    return brain


def books(brain: Brain, name: str = "books") -> Path:
    return brain.folder / "server" / name


def staging(brain: Brain) -> list[str]:
    return os.listdir(brain.folder / ".holdfast/staging")  # noqa: PTH208 - hidden ones count too


def elsewhere(brain: Brain, name: str = "other") -> str:
    return f"books=ledger://host{books(brain, name)}"


def everything_written(brain: Brain) -> str:
    """Return all that was written down of the restores: journals, the catalog, the logs."""
    state = brain.folder / ".holdfast"
    found = [path.read_bytes() for path in state.rglob("*") if path.is_file()]
    return b"\n".join(found).decode("utf-8", "replace")


# --- where things go ---


def test_a_folder_holds_every_component(ledgers: Brain, tmp_path: Path) -> None:
    ledgers.ok("restore", "--target", str(tmp_path / "out"), "--yes")
    assert (tmp_path / "out/books/books.txt").read_text() == "one\ntwo\n"
    assert (tmp_path / "out/projects/projects.db").exists()
    assert (tmp_path / "out/uploads/대본.txt").exists()
    assert books(ledgers).read_text() == "three\n"
    assert staging(ledgers) == []


def test_one_component_goes_to_another_server_and_nothing_else_is_restored(
    ledgers: Brain,
) -> None:
    before = ledgers.database.stat().st_ino
    done = ledgers.ok("restore", "--target", elsewhere(ledgers), "--yes", "--json").json
    assert list(done["components"]) == ["books"]
    assert books(ledgers, "other").read_text() == "one\ntwo\n"
    assert books(ledgers).read_text() == "three\n"
    assert ledgers.database.stat().st_ino == before
    assert done["replaced"] == {}
    assert not (ledgers.folder / ".holdfast/replaced").exists()
    assert staging(ledgers) == []


def test_a_folder_and_another_server_together(ledgers: Brain, tmp_path: Path) -> None:
    target = str(tmp_path / "out")
    done = ledgers.ok("restore", "--target", target, "--target", elsewhere(ledgers), "--json")
    assert set(done.json["components"]) == {"books", "projects", "uploads"}
    assert books(ledgers, "other").read_text() == "one\ntwo\n"
    assert not (tmp_path / "out/books").exists()
    assert (tmp_path / "out/projects/projects.db").exists()


def test_a_store_in_a_file_may_go_to_another_path(brain: Brain, tmp_path: Path) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes")
    brain.ok("restore", "--target", f"projects={tmp_path}/deep/copy.db")
    with closing(sqlite3.connect(tmp_path / "deep/copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM episodes").fetchone() == (3,)
    assert brain.count() == 0


def test_a_folder_may_have_an_equals_sign_in_its_name(brain: Brain, tmp_path: Path) -> None:
    brain.ok("backup")
    brain.ok("restore", "--target", f"{tmp_path}/a=b")
    assert (tmp_path / "a=b/projects/projects.db").exists()


def test_the_dry_run_says_where_and_writes_nothing(ledgers: Brain, tmp_path: Path) -> None:
    words = ["--target", str(tmp_path / "out"), "--target", elsewhere(ledgers)]
    shown = ledgers.ok("restore", *words, "--dry-run", "--json").json["components"]
    assert shown["books"]["target"] == f"ledger://host{books(ledgers, 'other')}"
    assert shown["projects"]["target"] == str(tmp_path / "out/projects/projects.db")
    assert not (tmp_path / "out").exists()
    assert not books(ledgers, "other").exists()


def test_what_lies_there_already_is_replaced_only_when_confirmed(ledgers: Brain) -> None:
    books(ledgers, "other").write_text("mine\n")
    refused = ledgers.run("restore", "--target", elsewhere(ledgers))
    assert refused.status == 2
    assert "not confirmed" in refused.err
    assert books(ledgers, "other").read_text() == "mine\n"
    ledgers.ok("restore", "--target", elsewhere(ledgers), "--yes")
    assert books(ledgers, "other").read_text() == "one\ntwo\n"


def test_services_are_left_alone_by_a_restore_elsewhere(ledgers: Brain) -> None:
    with ledgers.config.open("a") as file:
        file.write('services: {stop: ["false"], start: ["false"]}\n')
    ledgers.ok("restore", "--target", elsewhere(ledgers), "--yes")


# --- what is refused, before anything is touched ---


@pytest.mark.parametrize(
    ("targets", "problem"),
    [
        (["out", "more"], "--target names two folders: out and more"),
        (["nobody=ledger://host/x"], "there is no component named nobody"),
        (["books=ledger://me:{password}@host/x"], "a password does not belong on the command line"),
        (["books=ledger://h/x?password={password}"], "a password does not belong"),
        (["books=ledger://h/x?a=1&API_TOKEN={password}"], "a password does not belong"),
        (["books=ledger://[{password}/x"], "what follows the = is not a URL"),
        (["books=ledger://h/a", "books=ledger://h/b"], "--target names two places for books"),
        (["books=redis://h"], "books is restored to ledger://"),
        (["projects=https://h/x"], "projects can be restored to a path, not to https://"),
        (["projects=/nowhere/x", "uploads=/nowhere/x"], "is also that for"),
        (["projects={folder}/data/projects.db"], "--target for projects is the live projects"),
        (["projects={folder}/data/../data/projects.db"], "is the live projects"),
        (["uploads={folder}/data/projects.db"], "--target for uploads is the live projects"),
        (["books=ledger://host{folder}/server/books"], "--target for books is the live books"),
        (["{folder}/data"], "--target for uploads is the live uploads"),
    ],
)
def test_a_target_that_cannot_be_meant_is_refused(
    ledgers: Brain, targets: list[str], problem: str
) -> None:
    words = [
        word
        for target in targets
        for word in ("--target", target.format(password=PASSWORD, folder=ledgers.folder))
    ]
    before = sorted(ledgers.folder.rglob("*"))
    refused = ledgers.run("restore", *words, "--yes")
    assert refused.status == 2
    assert problem in refused.err
    assert PASSWORD not in refused.err + refused.out
    assert sorted(ledgers.folder.rglob("*")) == before
    assert books(ledgers).read_text() == "three\n"


def test_a_component_without_a_place_is_never_restored_over_its_live_store(
    ledgers: Brain,
) -> None:
    words = ["--component", "projects", "--component", "books", "--target", elsewhere(ledgers)]
    refused = ledgers.run("restore", *words, "--yes")
    assert refused.status == 2
    assert "no --target for projects" in refused.err


def test_a_place_for_what_is_not_restored_is_refused(ledgers: Brain, tmp_path: Path) -> None:
    words = ["--component", "projects", "--target", str(tmp_path / "out")]
    refused = ledgers.run("restore", *words, "--target", elsewhere(ledgers))
    assert refused.status == 2
    assert "--target names books, which is not to be restored" in refused.err
    assert not (tmp_path / "out").exists()


# --- secrets, and the room a restore needs on this machine ---


def test_no_secret_is_written_down(ledgers: Brain) -> None:
    ledgers.ok("restore", "--target", elsewhere(ledgers), "--yes")
    ledgers.ok("restore", "--yes")
    written = everything_written(ledgers)
    assert "ledger://host" in written
    assert PASSWORD not in written


def test_what_a_restore_needed_here_is_removed_when_it_failed(
    ledgers: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_FAILS", "activate")
    failed = ledgers.run("restore", "--yes")
    assert failed.status == 22
    assert "no activate" in failed.err
    assert books(ledgers).read_text() == "three\n"
    assert staging(ledgers) == []


def test_it_is_kept_while_the_restore_could_not_be_put_back(
    ledgers: Brain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEDGER_FAILS", "settle revert activate")
    failed = ledgers.run("restore", "--yes")
    assert failed.status == 1
    assert "not everything could be put back" in failed.err
    [kept] = staging(ledgers)
    assert (ledgers.folder / ".holdfast/staging" / kept / "books/new").exists()
    assert ledgers.run("recover").status == 1
    assert staging(ledgers) == [kept]
    monkeypatch.delenv("LEDGER_FAILS")
    ledgers.ok("recover")
    assert staging(ledgers) == []
    assert books(ledgers).read_text() == "three\n"


@pytest.mark.parametrize("step", ["activate", "settle", "revert"])
@pytest.mark.parametrize("name", ["books", "other"])
def test_a_restore_that_died_is_put_right_at_its_own_place(
    ledgers: Brain, monkeypatch: pytest.MonkeyPatch, step: str, name: str
) -> None:
    over_live = name == "books"
    place = books(ledgers, name)
    place.write_text("before\n")
    others = books(ledgers, "other" if over_live else "books")
    others.write_text("untouched\n")
    words = [] if over_live else ["--target", elsewhere(ledgers)]
    _dies(ledgers, monkeypatch, step, ["restore", "--yes", "--component", "books", *words])
    [kept] = staging(ledgers)
    journal = (ledgers.folder / ".holdfast/journal" / f"{kept}.jsonl").read_text()
    assert PASSWORD not in journal
    assert json.dumps(str(place))[1:-1] in journal
    ledgers.ok("recover")
    decided = step == "settle"
    assert place.read_text() == ("one\ntwo\n" if decided else "before\n")
    assert others.read_text() == "untouched\n"
    assert staging(ledgers) == []
    assert (ledgers.folder / ".holdfast/replaced").exists() == (decided and over_live)


def _dies(brain: Brain, monkeypatch: pytest.MonkeyPatch, step: str, words: list[str]) -> None:
    """Run a command in a process that dies at a step of the ledger."""
    monkeypatch.setenv("LEDGER_DIES", step)
    if step == "revert":  # which only a restore that fails takes
        monkeypatch.setenv("LEDGER_FAILS", "activate")
    child = os.fork()
    if child == 0:
        brain.run(*words)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    monkeypatch.delenv("LEDGER_DIES")
    monkeypatch.delenv("LEDGER_FAILS", raising=False)


# --- killed at every step ---


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    with Commands() as commands:
        scenes = Scenes(commands, tmp_path_factory.mktemp("elsewhere"))
        scenes.world.done("backup")
        change(scenes.world.folder, "newer")
        other = scenes.world.folder / "other.db"
        with closing(sqlite3.connect(other)) as database:
            database.execute("CREATE TABLE was_here_before (id)")
        scenes.keep()
        yield scenes


def test_a_restore_elsewhere_that_is_killed_is_put_right_there(scenes: Scenes) -> None:
    world = scenes.again()
    live, before = world.live(), other_content(world)
    words = ["--target", f"projects={world.folder}/other.db", "--target", f"{world.folder}/out"]
    world.done("restore", "--yes", *words)
    after = other_content(world)
    assert after != before
    step, outcomes = 5, set()
    while True:
        world = scenes.again()
        ran = world.holdfast("restore", "--yes", *words, kill_at=step)
        world.done("recover")
        assert world.live() == live, step
        content = other_content(world)
        assert content in (before, after), step
        outcomes.add(content == after)
        assert (world.folder / "out").exists() == (content == after), step
        assert [place for place in strays(world) if not place.endswith(".held")] == [], step
        beside = {path.name for path in world.folder.iterdir() if "other" in path.name}
        assert beside == {"other.db"}, step
        if not ran.killed:
            break
        step += 29
    assert outcomes == {True, False}


def other_content(world: World) -> list[object]:
    with closing(sqlite3.connect(world.folder / "other.db")) as database:
        return list(database.iterdump())
