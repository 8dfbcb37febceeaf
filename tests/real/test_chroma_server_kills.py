"""Restores into a Chroma server, killed before every change they make there or in their folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.sources._http import Server
from holdfast.testing.crashes import every_crash
from servers.chroma import ChromaServer, Database
from tests.chroma_server_world import as_stream, export, new_name, rows, source_of

Picture = dict[str, tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def server(chroma: ChromaServer) -> ChromaServer:
    return chroma


@pytest.fixture
def text(server: ChromaServer, tmp_path: Path) -> bytes:
    """A backup with a collection that will be replaced, and one that will be new."""
    origin = server.create_database(new_name())
    for name in ("both", "fresh"):
        origin.create(name).call("add", **rows([f"{name} {number}" for number in range(5)]))
    return export(source_of(origin), tmp_path / "work").text


@pytest.fixture
def place(server: ChromaServer) -> Database:
    """A database that went on: it has a collection of its own, which will go aside."""
    place = server.create_database(new_name())
    place.create("both").call("add", **rows(["newer"]))
    place.create("extra").call("add", **rows(["only here"]))
    return place


def picture(place: Database) -> Picture:
    """Return all collections of a database, ids and all; nothing without a database."""
    return {
        name: (said["id"], place.collection(name).records())
        for name, said in place.collections().items()
    }


def ids(place: Database) -> dict[str, set[str]]:
    return {name: set(records) for name, (_id, records) in picture(place).items()}


RESTORED = {
    "both": {f"both {number}" for number in range(5)},
    "fresh": {f"fresh {number}" for number in range(5)},
}


class Restore:
    """One restore, whose steps can be taken in a child that is killed."""

    def __init__(self, place: Database, text: bytes, folder: Path, **options: Any) -> None:
        self._source = source_of(place, **options)
        self._text = text
        self._folder = folder
        self._number = 0
        self.begin()

    def begin(self) -> None:
        """Begin a new one, as another run would."""
        self._number += 1
        tag = f"run-{self._number}"
        self.token = self._source.staging(tag, self._folder / tag / "memory").token

    def staged(self) -> Any:
        return self._source.reopen(self.token)

    def forward(self) -> None:
        staged = self.staged()
        staged.fill([as_stream(self._text)])
        staged.activate()


def announced(work: Callable[[], object]) -> Callable[[], object]:
    """Return work that announces what it changes in a server as if it were a change of files."""

    def run() -> object:
        real = Server.call

        def call(self: Server, method: str, path: str, **options: Any) -> Any:
            if method != "GET":
                sys.audit("os.mkdir", path, 0o777, -1)
            return real(self, method, path, **options)

        Server.call = call  # type: ignore[method-assign]
        return work()

    return run


@pytest.mark.timeout(300)
@pytest.mark.parametrize("there", [True, False], ids=["over-a-database", "without-one"])
def test_a_restore_that_was_killed_is_reverted(
    server: ChromaServer, place: Database, text: bytes, tmp_path: Path, *, there: bool
) -> None:
    if not there:
        place = server.database(new_name())
    before = picture(place), server.databases()
    restore = Restore(place, text, tmp_path)
    steps = 0
    for _step in every_crash(announced(restore.forward)):
        restore.staged().revert()
        restore.staged().revert()
        assert (picture(place), server.databases()) == before
        restore.begin()
        steps += 1
    assert steps > 12


@pytest.mark.timeout(300)
def test_a_switch_that_was_killed_can_be_gone_on_with(
    place: Database, text: bytes, tmp_path: Path
) -> None:
    restore = Restore(place, text, tmp_path)
    before = picture(place)
    restore.staged().fill([as_stream(text)])
    for _step in every_crash(announced(lambda: restore.staged().activate())):
        restore.staged().activate()
        found = ids(place)
        assert {name: found[name] for name in RESTORED} == RESTORED
        assert "extra" not in found
        restore.staged().revert()
        assert picture(place) == before
        restore.begin()
        restore.staged().fill([as_stream(text)])


@pytest.mark.timeout(300)
def test_a_revert_that_was_killed_is_finished_by_another(
    place: Database, text: bytes, tmp_path: Path
) -> None:
    before = picture(place)
    restore = Restore(place, text, tmp_path)
    restore.forward()
    for _step in every_crash(announced(lambda: restore.staged().revert())):
        restore.staged().revert()
        assert picture(place) == before
        restore.begin()
        restore.forward()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
def test_a_settling_that_was_killed_is_finished_by_another(
    place: Database, text: bytes, tmp_path: Path, *, kept: bool
) -> None:
    attic = tmp_path / "attic" if kept else None
    restore = Restore(place, text, tmp_path)
    restore.forward()
    restore.staged().settle(attic)
    last = set(ids(place)) - RESTORED.keys()
    assert bool(last) == kept
    restore.begin()
    restore.forward()
    for _step in every_crash(announced(lambda: restore.staged().settle(attic))):
        restore.staged().settle(attic)
        found = ids(place)
        assert {name: found.pop(name) for name in RESTORED} == RESTORED
        # What is kept is what the last restore replaced; what the one before it kept is gone.
        assert bool(found) == kept
        assert not last & found.keys()
        last = set(found)
        restore.begin()
        restore.forward()


def test_two_components_of_one_database_stay_apart(
    place: Database, text: bytes, tmp_path: Path
) -> None:
    place.create("other").call("add", **rows(["theirs"]))
    ours = source_of(place, collections=("both", "fresh"))
    staged = ours.staging("run-1", tmp_path / "ours")
    theirs = type(ours)("others", source_of(place, collections=("other",)).options)
    done = export(theirs, tmp_path / "theirs-work")
    beside = theirs.staging("run-1", tmp_path / "theirs")
    beside.fill(done.artifacts)
    staged.fill([as_stream(text)])
    beside.activate()
    staged.activate()
    beside.revert()
    assert ids(place)["both"] == RESTORED["both"]
    assert ids(place)["extra"] == {"only here"}
    staged.settle(None)
    assert ids(place) == {**RESTORED, "extra": {"only here"}, "other": {"theirs"}}
