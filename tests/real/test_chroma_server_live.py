"""A Chroma server that is written to while it is read, and read while it is restored."""

from __future__ import annotations

import random
import sys
import threading
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from holdfast.errors import ServerFailed, SourceMissing, SourceUnstable
from holdfast.model.facts import differences
from holdfast.sources._chroma_server_api import Api
from servers.chroma import ChromaServer, Collection, Database
from tests.chroma_server_world import export, new_name, rows, source_of

KEPT, DOOMED = 1500, 1500


def tell(line: str) -> None:
    """Say what was seen; pytest shows it when a test fails, or with ``-s``."""
    sys.stdout.write(f"{line}\n")


@pytest.fixture(scope="module")
def server(chroma: ChromaServer) -> ChromaServer:
    return chroma


@pytest.fixture
def place(server: ChromaServer) -> Database:
    return server.create_database(new_name())


class Worker:
    """Repeats a piece of work in a thread until the context ends; raises what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.times = 0

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                self._work()
                self.times += 1
        except BaseException as error:  # noqa: BLE001 - raised where the context ends
            self._error = error

    def wait_for(self, times: int) -> None:
        deadline = time.monotonic() + 30
        while self.times < times:
            assert self._thread.is_alive(), self._error
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


class Application:
    """Adds, changes and deletes records of one collection, and remembers all it ever wrote."""

    def __init__(self, collection: Collection, seed: int) -> None:
        self._collection = collection
        self._chance = random.Random(seed)
        self._doomed = [f"doomed {number}" for number in range(DOOMED)]
        self._version = 0
        self.kept = [f"kept {number}" for number in range(KEPT)]
        self.written: dict[str, set[int]] = {}
        for start in range(0, KEPT, 500):
            self._write("add", self.kept[start : start + 500])
            self._write("add", self._doomed[start : start + 500])
        self._chance.shuffle(self._doomed)

    def _write(self, verb: str, ids: list[str]) -> None:
        for name in ids:
            self.written.setdefault(name, set()).add(self._version)
        self._collection.call(verb, **rows(ids, self._version))

    def step(self) -> None:
        self._version += 1
        going, self._doomed = self._doomed[:15], self._doomed[15:]
        if going:
            self._collection.call("delete", ids=going)
        self._write("add", [f"new {self._version}-{number}" for number in range(10)])
        self._write("update", self._chance.sample(self.kept, 10))


def test_nothing_that_stayed_is_missed_and_nothing_is_invented(
    place: Database, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    tell(f"seed {seed}")
    application = Application(place.create("prose"), seed)
    with Worker(application.step) as worker:
        worker.wait_for(3)
        before = worker.times
        done = export(source_of(place, page_size=50), tmp_path / "work")
        tell(f"{worker.times - before} steps meanwhile; {done.facts.notes}")
        assert worker.times > before + 3
    found = done.records["prose"]
    assert set(application.kept) <= found.keys() <= application.written.keys()
    for name, record in found.items():
        version = record["metadata"]["v"]
        assert version in application.written[name]
        assert record["document"] == f"{name} v{version}"
        assert record["embedding"][0] in application.written[name]
    assert not done.exact
    assert any("came" in note for note in done.facts.notes)
    assert done.facts.counts == {"vectors/prose": len(found), "collections": 1}
    inspection = source_of(place).inspect(done.artifacts, tmp_path)
    assert list(inspection.problems) == []
    assert differences(inspection.facts, done.facts) == []


# --- what is known of the instant ---


def test_what_was_read_twice_without_a_difference_is_one_state(
    place: Database, tmp_path: Path
) -> None:
    place.create("prose").call("add", **rows([f"id {number}" for number in range(250)]))
    assert not export(source_of(place), tmp_path / "once").exact
    twice = export(source_of(place, read_twice=True), tmp_path / "twice")
    assert twice.exact
    assert len(twice.records["prose"]) == 250


@pytest.mark.parametrize(
    ("what", "when"),
    [  # the first reading lists collections twice, ids twice, and has four pages
        ("updated", ("records", 6)),
        ("deleted", ("records", 6)),
        ("dropped", ("records", 6)),
        ("added", ("ids", 3)),
        ("deleted", ("ids", 3)),
        ("renamed", ("collections", 3)),
        ("dropped", ("collections", 3)),
        ("described", ("collections", 3)),
    ],
)
def test_a_change_between_two_readings_is_found(
    place: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    when: tuple[str, int],
) -> None:
    prose = place.create("prose")
    prose.call("add", **rows([f"id {number}" for number in range(250)]))
    after_call(monkeypatch, when[0], changes_of(place, prose)[what], number=when[1])
    done = export(source_of(place, read_twice=True, page_size=64), tmp_path / "work")
    assert not done.exact
    assert len(done.records["prose"]) == 250
    assert "a second reading found changes" in done.facts.notes


@pytest.mark.parametrize("what", ["added", "renamed"])
def test_a_change_after_the_instant_takes_nothing_from_it(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    prose = place.create("prose")
    prose.call("add", **rows([f"id {number}" for number in range(250)]))
    after_call(monkeypatch, "records", changes_of(place, prose)[what], number=6)
    done = export(source_of(place, read_twice=True, page_size=64), tmp_path / "work")
    assert done.exact
    assert len(done.records["prose"]) == 250


def changes_of(place: Database, prose: Collection) -> dict[str, Callable[[], Any]]:
    return {
        "updated": lambda: prose.call("update", **rows(["id 249"], 1)),
        "deleted": lambda: prose.call("delete", ids=["id 249"]),
        "added": lambda: prose.call("add", **rows(["id 250"])),
        "renamed": lambda: prose.rename("verse"),
        "dropped": lambda: place.delete("prose"),
        "described": lambda: place.server.call("PUT", prose.path, {"new_metadata": {"a": 1}}),
    }


def after_call(
    monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object], number: int = 1
) -> None:
    """Do something right before the n-th call of a kind is sent to the server."""
    real = getattr(Api, name)
    left = [number]

    def hooked(self: Api, *arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            act()
        return real(self, *arguments, **options)

    monkeypatch.setattr(Api, name, hooked)


# --- collections that come and go ---


@pytest.mark.parametrize(
    ("call", "number", "name"),
    [("ids", 3, "beta"), ("records", 4, "beta"), ("records", 6, "gamma")],
    ids=["before", "in-the-middle", "last"],
)
def test_a_collection_that_vanishes_is_left_out_and_named(
    place: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    call: str,
    number: int,
    name: str,
) -> None:
    names = {"alpha", "beta", "gamma"}
    for each in names:
        place.create(each).call("add", **rows([f"id {number}" for number in range(120)]))
    # Of each collection the ids are listed twice, and there are two pages.
    after_call(monkeypatch, call, lambda: place.delete(name), number=number)
    done = export(source_of(place, page_size=64), tmp_path / "work")
    left = names - {name}
    assert set(done.records) == left
    assert done.facts.counts == {f"vectors/{each}": 120 for each in left} | {"collections": 2}
    assert f"collection {name} was deleted while it was read" in done.facts.notes
    inspection = source_of(place).inspect(done.artifacts, tmp_path)
    assert list(inspection.problems) == []


def test_a_collection_that_was_asked_for_must_not_vanish(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create("alpha").call("add", **rows(["one"]))
    after_call(monkeypatch, "records", lambda: place.delete("alpha"))
    with pytest.raises(SourceMissing, match="alpha"):
        export(source_of(place, collections=("alpha",)), tmp_path / "work")


def test_a_collection_that_comes_meanwhile_is_taken_too(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create("alpha").call("add", **rows(["one"]))
    after_call(monkeypatch, "records", lambda: place.create("beta"))
    assert sorted(export(source_of(place), tmp_path / "work").records) == ["alpha", "beta"]


def test_a_collection_that_is_replaced_meanwhile_is_never_mixed_with_its_successor(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create("alpha").call("add", **rows(["one"]))
    place.create("beta").call("add", **rows(["two"]))

    def replace() -> None:
        place.delete("alpha")
        place.create("alpha").call("add", **rows(["other"]))

    after_call(monkeypatch, "records", replace, number=2)
    with pytest.raises(SourceUnstable, match="alpha"):
        export(source_of(place), tmp_path / "work")


# --- restoring under the eyes of clients ---


def test_clients_are_served_all_the_while(place: Database, tmp_path: Path) -> None:
    place.create("prose").call("add", **rows([f"id {number}" for number in range(300)]))
    source = source_of(place)
    done = export(source, tmp_path / "work")
    place.collection("prose").call("add", **rows(["later"]))
    seen: list[int] = []
    missing = []

    def look() -> None:
        try:
            seen.append(place.collection("prose").count())
        except (KeyError, urllib.error.HTTPError):
            missing.append(time.monotonic())

    with Worker(look) as client:
        client.wait_for(3)
        staged = source.staging("tag1", tmp_path / "staging")
        staged.fill(done.artifacts)
        assert set(seen) == {301}
        assert missing == []
        staged.activate()
        client.wait_for(client.times + 3)
        staged.revert()
        client.wait_for(client.times + 3)
    assert set(seen) == {300, 301}
    assert seen[-1] == 301
    tell(f"{len(missing)} of {client.times} looks found it between its names")
    assert len(missing) <= 4


def test_a_restore_that_fails_half_way_leaves_the_live_collections_alone(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alpha", "beta"):
        place.create(name).call("add", **rows([f"id {number}" for number in range(300)]))
    source = source_of(place, batch_size=100)
    done = export(source, tmp_path / "work")
    place.collection("beta").call("delete", ids=["id 0"])
    before = {name: place.collection(name).records() for name in ("alpha", "beta")}

    def refuse() -> None:
        staged_name = next(name for name in place.collections() if name.startswith("beta__"))
        place.delete(staged_name)  # as an operator might, who finds it strange

    after_call(monkeypatch, "add", refuse, number=5)

    def look() -> None:
        assert place.collection("alpha").count() == 300
        assert place.collection("beta").count() == 299

    with Worker(look) as client:
        client.wait_for(1)
        staged = source.staging("tag1", tmp_path / "staging")
        with pytest.raises(ServerFailed):
            staged.fill(done.artifacts)
        assert {name: place.collection(name).records() for name in before} == before
        staged.revert()
    assert {name: place.collection(name).records() for name in before} == before
    assert sorted(place.collections()) == ["alpha", "beta"]


def test_a_client_that_makes_a_collection_again_during_the_switch_loses_nothing(
    place: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.create("prose").call("add", **rows(["one"]))
    source = source_of(place, tries=1)
    done = export(source, tmp_path / "work")
    place.collection("prose").call("add", **rows(["two"]))
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(done.artifacts)

    def intrude() -> None:
        place.create("prose").call("add", **rows(["three"]))

    after_call(monkeypatch, "rename_collection", intrude, number=2)
    with pytest.raises(ServerFailed):
        staged.activate()
    staged.revert()
    found = {name: set(place.collection(name).records()) for name in place.collections()}
    (stray,) = found.keys() - {"prose"}
    assert found == {"prose": {"one", "two"}, stray: {"three"}}
    assert stray.startswith("prose__")
    assert f"vectors/{stray}" in source.facts().counts
