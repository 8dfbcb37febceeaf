"""kill -9 before and after each change that is asked of Qdrant: another process puts it right."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.model.artifact import Artifact
from holdfast.sources import _http, _qdrant_taking
from holdfast.sources.qdrant import QdrantOptions, QdrantSource
from holdfast.testing._trips import back_up, read_artifact, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from holdfast.testing.source_contract import take_steps
from servers.qdrant import KEY, QdrantServer, litter, qdrant_server, vector

NAME, NEW, ALIAS = "memories", "gone by now", "live"
READING = ("/count", "/scroll", "/query")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with qdrant_server() as server:
        client = server.client
        for name in (NAME, NEW):
            client.create(name)
            client.upsert(name, [{"id": n, "vector": vector(4, n)} for n in range(100)])
        client.alias(ALIAS, NAME)
        yield server


@pytest.fixture
def artifacts(server: QdrantServer, tmp_path: Path) -> list[Artifact]:
    """A backup, of which one collection is another now, and one is not there any more."""
    vault = MemoryVault()
    source = source_on(server)
    found = stored_artifacts(vault, back_up([source], vault, tmp_path / "backup"), source.name)
    server.client.delete(NAME, points=[1, 2, 3])
    server.client.drop(NEW)
    return found


@pytest.fixture(autouse=True)
def _short_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Believe at once that a snapshot which has not come will not come."""
    monkeypatch.setattr(_qdrant_taking, "ABANDONED", timedelta(0))


def source_on(server: QdrantServer) -> QdrantSource:
    return QdrantSource("vectors", QdrantOptions(url=server.url, api_key=KEY))


def look(server: QdrantServer) -> tuple[object, set[str]]:
    return server.client.everything(), litter(server)


def killed(step: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that dies around its n-th change; returns whether it got that far.

    Odd steps are right before a request, even ones right after its answer.
    """
    child = os.fork()
    if child == 0:
        run_and_exit(step, work)
    _pid, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in {0, -signal.SIGKILL}
    return ended != 0


def run_and_exit(step: int, work: Callable[[], object]) -> None:
    left = step
    original = _http.Server.call

    def call(self: _http.Server, method: str, path: str, **how: Any) -> Any:
        if method == "GET" or path.endswith(READING):
            return original(self, method, path, **how)
        count_down()
        answer = original(self, method, path, **how)
        count_down()
        return answer

    def count_down() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    _http.Server.call = call  # type: ignore[method-assign]
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child that returned would run the rest of the tests
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def every_kill(work: Callable[[], object], stride: int = 1) -> Iterator[int]:
    """Kill ``work`` at each step, the last run being the one that gets to its end.

    An odd ``stride`` meets both kinds of steps.
    """
    step = 1
    while killed(step, work):
        yield step
        step += stride


def test_a_restore_that_was_killed_is_reverted(
    server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
) -> None:
    before = look(server)
    staging = tmp_path / "staging"

    def work() -> None:
        take_steps(source_on(server).staging("tag", staging), artifacts, 2)

    token = source_on(server).staging("tag", staging).token
    steps = 0
    for _step in every_kill(work, stride=3):
        source_on(server).reopen(token).revert()
        assert look(server) == before
        steps += 1
    assert steps > 8
    source_on(server).reopen(token).revert()
    assert look(server) == before


def test_a_revert_that_was_killed_is_finished_by_another(
    server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
) -> None:
    before = look(server)
    staged = source_on(server).staging("tag", tmp_path / "staging")
    take_steps(staged, artifacts, 2)

    def work() -> None:
        source_on(server).reopen(staged.token).revert()

    for _step in every_kill(work, stride=7):
        source_on(server).reopen(staged.token).revert()
        assert look(server) == before
        take_steps(staged, artifacts, 2)
    assert look(server) == before


def test_a_settling_that_was_killed_is_finished_by_another(
    server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
) -> None:
    staged = source_on(server).staging("tag", tmp_path / "staging")
    take_steps(staged, artifacts, 2)
    restored = server.client.everything(besides="__holdfast")

    def work() -> None:
        source_on(server).reopen(staged.token).settle(tmp_path / "attic")

    for _step in every_kill(work, stride=3):
        assert server.client.everything(besides="__holdfast") == restored
        source_on(server).reopen(staged.token).settle(tmp_path / "attic")
        assert server.client.everything() == restored
        assert list((tmp_path / "attic").iterdir())
        take_steps(staged, artifacts, 2)
    assert server.client.everything() == restored


def test_what_a_killed_backup_left_is_removed_by_the_next(
    server: QdrantServer, tmp_path: Path
) -> None:
    before = look(server)
    others = server.client.call("POST", f"/collections/{NAME}/snapshots")["name"]
    workspace = tmp_path / "workspace"
    workspace.mkdir()

    def freeze() -> None:
        with source_on(server).freeze(workspace) as frozen:
            for artifact in frozen.artifacts:
                read_artifact(artifact)
            frozen.facts()

    for _step in every_kill(freeze):
        freeze()
        assert server.client.snapshots(NAME) == [others]
        found, names = look(server)
        assert found == before[0]
        file = f"file snapshots/{NAME}/{others}"
        assert names - before[1] == {file, f"{file}.checksum"}


def test_a_snapshot_that_comes_after_its_backup_died_is_removed(
    server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_qdrant_taking, "ABANDONED", timedelta(hours=1))
    server.client.drop(NEW)
    before = look(server)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    name = f"{NAME}-{{}}-{{:%Y-%m-%d-%H-%M-%S}}.snapshot"

    def freeze() -> None:
        with source_on(server).freeze(workspace) as frozen:
            frozen.facts()

    assert killed(3, freeze)  # it has set its mark, and asks for nothing any more
    (mark,) = set(server.client.aliases()) - {ALIAS}
    freeze()
    assert mark in server.client.aliases()  # the server might still come with it
    asked = datetime.strptime(mark.rpartition(".")[2], "%Y-%m-%d-%H-%M-%S")  # noqa: DTZ007
    folder = server.folder / "snapshots" / NAME
    node = mark.split(".")[2]
    ours, theirs = (name.format(node, asked + timedelta(seconds=late)) for late in (0, -1))
    for one in (ours, theirs):
        (folder / one).write_bytes(b"late")
    freeze()
    assert server.client.snapshots(NAME) == [theirs]
    (folder / theirs).unlink()
    assert look(server) == before


def test_of_two_snapshots_that_could_be_ours_none_is_touched(
    server: QdrantServer, tmp_path: Path
) -> None:
    server.client.drop(NEW)
    workspace = tmp_path / "workspace"
    workspace.mkdir()

    def freeze() -> tuple[str, ...]:
        with source_on(server).freeze(workspace) as frozen:
            return frozen.facts().notes

    freeze()  # for the folder of its snapshots
    assert killed(3, freeze)
    (mark,) = set(server.client.aliases()) - {ALIAS}
    asked = datetime.strptime(mark.rpartition(".")[2], "%Y-%m-%d-%H-%M-%S")  # noqa: DTZ007
    folder = server.folder / "snapshots" / NAME
    names = [
        f"{NAME}-{mark.split('.')[2]}-{asked + timedelta(seconds=late):%Y-%m-%d-%H-%M-%S}.snapshot"
        for late in (0, 1)
    ]
    for name in names:
        (folder / name).write_bytes(b"somebody's")
    notes = freeze()
    assert all(name in notes[0] for name in names)
    assert server.client.snapshots(NAME) == names
    assert set(server.client.aliases()) == {ALIAS}
