"""kill -9 of our own process at each statement of a restore, which another then puts right.

What a restore does to a server it does by statements and by programs. A child process dies right
before its n-th statement, for every n; programs that it had started end with it.
"""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from holdfast.errors import HoldfastError
from holdfast.model.artifact import Stream
from holdfast.ports import Staged
from holdfast.sources.postgres import PostgresSource
from servers.postgres import PostgresServer
from tests.postgres_world import database, databases, source_of, taken

LATER = "INSERT INTO a VALUES (1000, 'later'); COMMENT ON DATABASE {} IS 'mine'"


class World:
    """A live database that went on after its backup, and how to restore that."""

    def __init__(self, server: PostgresServer, name: str, folder: Path, **options: Any) -> None:
        self.server = server
        self.name = name
        self.folder = folder
        self.options = options
        self.artifacts: list[Stream]
        self.artifacts, _facts = taken(self.source, folder / "backup")
        server.run(LATER.format(name), name)
        self.tag = "killed"
        self.token = json.loads(json.dumps(self.staging().token))

    @property
    def source(self) -> PostgresSource:
        return source_of(self.server, self.name, **self.options)

    def staging(self) -> Staged:
        return self.source.staging(self.tag, self.folder / "staging")

    def reopened(self) -> Staged:
        return self.source.reopen(self.token)

    def fill_quickly(self) -> None:
        """Stage what `fill` did the first time, by having the server copy that."""
        staged, model = f"{self.name}_holdfast_{self.tag}", f"{self.name}_model"
        if model not in databases(self.server, self.name):
            self.staging().fill(self.artifacts)
            self.server.run(f"ALTER DATABASE {staged} RENAME TO {model}")
        comment = f"COMMENT ON DATABASE {staged} IS 'holdfast restore {self.tag}\n'"
        self.server.run(f"CREATE DATABASE {staged} TEMPLATE {model}")
        self.server.run(comment)

    def take_in_quickly(self) -> None:
        """Fill, and switch."""
        self.fill_quickly()
        self.reopened().activate()

    def state(self) -> tuple[object, object, set[str]]:
        """Return all that a restore could leave changed; it can be connected to, too."""
        rows = self.server.run("SELECT count(*), max(text) FROM a", self.name)
        about = self.server.run(
            "SELECT datallowconn, shobj_description(oid, 'pg_database') FROM pg_database"
            f" WHERE datname = '{self.name}'"
        )
        return rows, about, databases(self.server, self.name) - {f"{self.name}_model"}


@pytest.fixture
def world(postgres_17: PostgresServer, tmp_path: Path) -> Iterator[World]:
    with database(postgres_17) as name:
        yield World(postgres_17, name, tmp_path)


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Run work in a child that dies before its n-th statement; returns whether it got that far."""
    child = os.fork()
    if child == 0:
        _run_and_exit(step, work)
    _pid, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    assert ended in {0, -signal.SIGKILL}, f"the child ended with {ended} before step {step}"
    return ended != 0


def _run_and_exit(step: int, work: Callable[[], object]) -> None:
    left = step
    execute = psycopg.Cursor.execute

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(*arguments, **options)

    psycopg.Cursor.execute = dying  # type: ignore[method-assign]
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child that returned would run the rest of the tests
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def each_step(work: Callable[[], object], start: int = 1, stride: int = 1) -> Iterator[int]:
    """Kill work before its first statement, its second, and so on; the last run is not killed."""
    step = start
    while killed_before(step, work):
        yield step
        step += stride
    yield step


@pytest.mark.timeout(240)
def test_a_fill_that_was_killed_is_reverted(world: World) -> None:
    before = world.state()
    steps = 0
    for _step in each_step(lambda: world.staging().fill(world.artifacts), stride=3):
        world.reopened().revert()
        assert world.state() == before
        steps += 1
    assert steps > 5


@pytest.mark.timeout(240)
def test_a_switch_that_was_killed_is_reverted(world: World) -> None:
    before = world.state()
    world.fill_quickly()
    swapped = set()
    for _step in each_step(lambda: world.reopened().activate()):
        swapped.add(_count(world))
        world.reopened().revert()
        assert world.state() == before
        world.fill_quickly()
    assert swapped == {500, 501}, "no kill fell before the renames, or none after them"
    world.reopened().revert()
    assert world.state() == before


@pytest.mark.timeout(240)
def test_a_revert_that_was_killed_is_finished_by_another(world: World) -> None:
    before = world.state()
    world.take_in_quickly()
    for _step in each_step(lambda: world.reopened().revert()):
        world.reopened().revert()
        assert world.state() == before
        world.take_in_quickly()
    world.reopened().revert()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("keep", [False, True], ids=["dropped", "kept"])
def test_a_settling_that_was_killed_is_finished_by_another(world: World, *, keep: bool) -> None:
    attic = world.folder / "attic" if keep else None
    replaced = f"{world.name}_replaced_{world.tag}"
    world.take_in_quickly()
    for _step in each_step(lambda: world.reopened().settle(attic), stride=2 if keep else 1):
        assert bool(world.reopened().settle(attic)) == keep
        assert _count(world) == 500
        _rows, about, names = world.state()
        assert about == [(True, None)]
        assert names == {world.name, *({replaced} if keep else ())}
        if keep:
            assert world.server.run("SELECT count(*) FROM a", replaced) == [(501,)]
            world.server.run(f"DROP DATABASE {replaced} WITH (FORCE)")
        world.server.run(LATER.format(world.name), world.name)
        world.take_in_quickly()
    assert _count(world) == 500


@pytest.mark.timeout(240)
def test_a_restore_in_place_that_was_killed_is_reverted(
    postgres_17: PostgresServer, tmp_path: Path
) -> None:
    with database(postgres_17) as name:
        world = World(postgres_17, name, tmp_path, in_place=True)
        before = world.state()
        found = set()
        for _step in each_step(lambda: _take_in(world), start=20, stride=11):
            found.add(_count(world))
            for _killed in each_step(lambda: world.reopened().revert(), start=3, stride=40):
                pass
            world.reopened().revert()
            assert world.state() == before
        assert found == {500, 501}


def test_a_program_does_not_outlive_whoever_was_killed(world: World) -> None:
    started = world.folder / "started"

    def work() -> None:
        with world.source.freeze(world.folder) as frozen, frozen.artifacts[0].open() as chunks:
            next(chunks)
            started.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    assert killed_before(10**9, work)
    assert started.exists()
    held = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{world.name}'"
    deadline = time.monotonic() + 20
    while world.server.run(held) != [(0,)]:
        assert time.monotonic() < deadline, "its sessions are still there"
        time.sleep(0.02)


def test_a_server_that_is_killed_at_the_switch_has_all_or_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.state()
    world.staging().fill(world.artifacts)
    execute = psycopg.Connection.execute

    def cut(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        result = execute(connection, query, *arguments, **options)
        if "RENAME" in str(query):  # within the transaction that renames
            world.server.run(f"SELECT pg_terminate_backend({connection.info.backend_pid})")
        return result

    monkeypatch.setattr(psycopg.Connection, "execute", cut)
    with pytest.raises(HoldfastError):
        world.reopened().activate()
    monkeypatch.undo()
    assert world.server.run("SELECT count(*) FROM a", world.name) == [(501,)]  # it is open again
    world.reopened().revert()
    assert world.state() == before


def _take_in(world: World) -> None:
    staged = world.staging()
    staged.fill(world.artifacts)
    staged.activate()


def _count(world: World) -> int:
    try:
        ((count,),) = world.server.run("SELECT count(*) FROM a", world.name)
    except psycopg.OperationalError:  # it was just being switched: connections are refused
        return 501
    return int(count)
