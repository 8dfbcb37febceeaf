"""Redis servers with clients at work: exact copies, and restores that keep what they must."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from holdfast.model.artifact import Artifact
from holdfast.model.facts import differences
from holdfast.sources import _redis_twin
from holdfast.sources._redis_feed import Feed
from holdfast.sources._redis_wire import Wire
from holdfast.sources.redis import RedisOptions, RedisSource
from holdfast.testing._trips import back_up, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from servers.redis import (
    REDIS_6,
    REDIS_7,
    VALKEY,
    Server,
    command,
    content,
    fill,
    load_function,
    program,
    programs,
    running,
)

VERSIONS = [version for version in (REDIS_7, REDIS_6, VALKEY) if program(version)]
PAIRS = 200


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{programs(REDIS_7)}:/usr/bin:/bin")


@pytest.fixture(scope="module", params=VERSIONS)
def shared(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    shared.clear()
    return shared


def source_of(server: Server, **options: Any) -> RedisSource:
    chosen = {"url": server.url, "password": server.password, **options}
    return RedisSource("cache", RedisOptions(**chosen))


def backed_up(source: RedisSource, folder: Path) -> list[Artifact]:
    vault = MemoryVault()
    return stored_artifacts(vault, back_up([source], vault, folder), source.name)


def restore(
    source: RedisSource, artifacts: Sequence[Artifact], workspace: Path, tag: str = "tag"
) -> None:
    staged = source.staging(tag, workspace)
    staged.fill(artifacts)
    staged.activate()
    assert staged.settle(None) is None


class Writer:
    """Moves a counter and both halves of a pair in every transaction, and notes what fails."""

    def __init__(self, server: Server, *, pause: float = 0) -> None:
        self.server = server
        self.done = 0  # transactions that were answered
        self.refused = 0
        self.errors: list[str] = []
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        while self.done < 20 and self._thread.is_alive():
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        with self.server.client() as client:
            for number in itertools.count(1):
                if self._over.wait(self._pause):
                    return
                with client.pipeline(transaction=True) as many:
                    many.incr("counter")
                    many.set(f"left:{number % PAIRS}", number)
                    many.set(f"right:{number % PAIRS}", number)
                    many.hset("latest", "number", number)
                    try:
                        many.execute()
                    except (redis.ReadOnlyError, redis.exceptions.ExecAbortError):
                        self.refused += 1
                    except redis.RedisError as error:
                        self.errors.append(str(error))
                        return
                    else:
                        self.done += 1


def assert_whole(server: Server) -> int:
    """Fail unless a server is in a state between two transactions; returns how many there were."""
    with server.client() as client:
        number = int(client.get("counter") or 0)
        latest = int(client.hget("latest", "number") or 0)
        assert latest == number
        for pair in range(PAIRS):
            left, right = client.get(f"left:{pair}"), client.get(f"right:{pair}")
            assert left == right, f"pair {pair} is torn"
            newest = number - (number - pair) % PAIRS
            assert int(left or 0) == max(0, newest)
    return number


def test_copies_of_a_busy_server_are_the_state_between_two_transactions(
    server: Server, tmp_path: Path
) -> None:
    source = source_of(server)
    with Writer(server) as writer, running(server.version) as other:
        copy = source_of(other)
        numbers = []
        for trial in range(8):
            before = writer.done
            artifacts = backed_up(source, tmp_path / f"backup-{trial}")
            after = writer.done
            restore(copy, artifacts, tmp_path / f"restore-{trial}", f"t{trial}")
            numbers.append(assert_whole(other))
            assert before <= numbers[-1] <= after + 1
            assert other.client().dbsize() == copy.facts().counts["keys/db0"]
    assert writer.errors == []
    assert len(set(numbers)) > 1, "the writer stood still"


def test_counts_are_those_of_the_copy_while_keys_expire(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        if server.seven:
            command(client, "DEBUG", "SET-ACTIVE-EXPIRE", 0)
        with client.pipeline(transaction=False) as many:
            for number in range(500):
                many.set(f"soon:{number}", "x", px=1 + number)
                many.set(f"stays:{number}", "x")
            many.execute()
    source = source_of(server)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with source.freeze(workspace) as frozen:
        counts = frozen.facts().counts
        inspected = source.inspect(frozen.artifacts, _made(tmp_path / "inspect"))
    assert inspected.problems == ()
    assert inspected.facts.counts == counts
    assert counts["keys/db0"] - counts.get("expiring/db0", 0) == 500
    if server.seven:
        assert counts["expiring/db0"] == 500
        command(server.client(), "DEBUG", "SET-ACTIVE-EXPIRE", 1)


def test_a_twin_has_what_has_expired_since(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = _redis_twin._CONFIGURATION.replace("databases 1024", "databases 16")
    monkeypatch.setattr(_redis_twin, "_CONFIGURATION", few)  # looked through ten times a second
    if server.version == VALKEY:
        pytest.skip("the server on PATH is Redis 7.0 and reads no Valkey 8")
    with server.client() as client:
        client.set("soon", "x", px=300)
        client.set("stays", "x")
    source = source_of(server)
    artifacts = backed_up(source, tmp_path / "backup")
    deadline = time.monotonic() + 5
    while server.client().exists("soon"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    expected = source.inspect(artifacts, _made(tmp_path / "inspect")).facts
    with source.scratch(_made(tmp_path / "scratch")) as twin:
        restore(twin, artifacts, tmp_path / "staging")
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            assert differences(expected, twin.facts()) == []
    restore(source, artifacts, tmp_path / "live")
    assert not server.client().exists("soon"), "the live server gives what has expired"
    assert server.client().exists("stays")


def test_a_restored_server_has_the_digest_of_the_one_that_was_backed_up(
    server: Server, tmp_path: Path
) -> None:
    fill(server)
    with server.client() as client:
        before = command(client, "DEBUG", "DIGEST")
    source = source_of(server)
    artifacts = backed_up(source, tmp_path / "backup")
    with server.client() as client:
        client.flushall()
        client.set("junk", "x")
    restore(source, artifacts, tmp_path / "staging")
    with server.client() as client:
        assert command(client, "DEBUG", "DIGEST") == before


# --- every way to restore ---


def test_commands_restore_the_same_as_replication(server: Server, tmp_path: Path) -> None:
    fill(server)
    expected = content(server)
    source = source_of(server, restore="commands")
    artifacts = backed_up(source, tmp_path / "backup")
    with server.client() as client:
        client.flushall()
        client.set("junk", "x")
    if server.seven:
        load_function(server, "junk")
    restore(source, artifacts, tmp_path / "staging")
    assert content(server) == expected


def test_a_copy_by_commands_restores_to_the_same(server: Server, tmp_path: Path) -> None:
    fill(server, 3000)
    expected = content(server)
    source = source_of(server, backup="commands")
    with source.freeze(_made(tmp_path / "workspace")) as frozen:
        facts = frozen.facts()
        assert not frozen.exact
        assert any("not as of one instant" in note for note in facts.notes)
        assert differences(source.facts(), facts) == []
        inspection = source.inspect(frozen.artifacts, _made(tmp_path / "inspect"))
    assert differences(facts, inspection.facts) == []
    if server.version != VALKEY:  # which the checker on PATH does not read
        assert inspection.problems == ()
    artifacts = backed_up(source, tmp_path / "backup")
    server.clear()
    restore(source, artifacts, tmp_path / "staging")
    assert content(server) == expected


def test_a_key_that_is_listed_twice_is_copied_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server)  # a server that loads a key twice dies of it
    call = Wire.call

    def twice(wire: Wire, *words: Any) -> Any:
        answer = call(wire, *words)
        return [answer[0], answer[1] * 2] if words[0] == "SCAN" else answer

    monkeypatch.setattr(Wire, "call", twice)
    source = source_of(server, backup="commands")
    artifacts = backed_up(source, tmp_path / "backup")
    monkeypatch.undo()
    expected = content(server)
    restore(source_of(server), artifacts, tmp_path / "staging")
    assert content(server) == expected


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("append_only", ["yes", "no"])
@pytest.mark.parametrize("way", ["replication", "file", "commands"])
def test_a_restored_server_keeps_it_over_a_restart(
    version: str, append_only: str, way: str, tmp_path: Path
) -> None:
    with restartable(version, "--appendonly", append_only, "--save", "3600", "1") as (
        server,
        again,
    ):
        fill(server)
        source = source_of(server, restore=way, folder=server.folder, restart=again, timeout=20)
        expected = content(server)
        artifacts = backed_up(source, tmp_path / "backup")
        with server.client() as client:
            client.flushall()
            client.set("junk", "x")
        changed = content(server)
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        staged.activate()
        assert content(server) == expected
        server.kill()  # what is not on its disk is gone
        server.start()
        assert content(server) == expected
        with server.client() as client:
            assert client.config_get("appendonly")["appendonly"] == append_only
        source.reopen(staged.token).revert()
        assert content(server) == changed
        server.kill()
        server.start()
        assert content(server) == changed
        leftovers = [path.name for path in server.folder.iterdir() if "holdfast" in path.name]
        assert leftovers == []


@contextmanager
def restartable(version: str, *options: str) -> Iterator[tuple[Server, Sequence[str]]]:
    """Give a server with a command that ends it by SIGTERM and waits until it is back."""
    with running(version, *options) as server:
        request = server.folder.with_suffix(".again")
        os.mkfifo(request)
        over = threading.Event()

        def keep_starting() -> None:
            while True:
                with request.open("rb") as asked:
                    asked.read()
                if over.is_set():
                    return
                server.stop()
                server.start()

        thread = threading.Thread(target=keep_starting)
        thread.start()
        try:
            yield server, ("sh", "-c", f"echo again > {request}")
        finally:
            over.set()
            request.write_bytes(b"over")
            thread.join()
            request.unlink()


# --- what clients meet ---


def test_no_answered_write_is_lost_on_the_way_back(server: Server, tmp_path: Path) -> None:
    source = source_of(server)
    with Writer(server) as first:
        pass
    artifacts = backed_up(source, tmp_path / "backup")
    staged = source.staging("tag", tmp_path / "staging")
    with Writer(server, pause=0.0005) as writer:
        staged.fill(artifacts)
        answered = writer.done
        while writer.done < answered + 10:  # after the copy that `fill` made
            time.sleep(0.001)
        before = writer.done
        staged.activate()
        after = writer.done
        while writer.done < after + 10:  # writers go on with the new content
            time.sleep(0.001)
    assert writer.errors == []
    staged.revert()
    assert before <= transactions_after(server, first.done) <= after


def test_writers_wait_while_it_switches(server: Server, tmp_path: Path) -> None:
    source = source_of(server)
    fill(server, 5000)
    artifacts = backed_up(source, tmp_path / "backup")
    staged = source.staging("tag", tmp_path / "staging")
    with Writer(server) as writer:
        staged.fill(artifacts)
        staged.activate()
    assert (writer.refused, writer.errors) == (0, [])


def transactions_after(server: Server, first: int) -> int:
    """Return how many of the second writer's transactions are there; fail if any is torn."""
    with server.client() as client:
        number = int(client.get("counter") or 0)
        latest = int(client.hget("latest", "number") or 0)
        for pair in range(PAIRS):
            assert client.get(f"left:{pair}") == client.get(f"right:{pair}")
    assert latest == number - first
    return latest


def test_the_live_and_the_staged_keys_are_listed_alike(server: Server, tmp_path: Path) -> None:
    with server.client(2) as client:
        for key in ("job:1", "job:2", "job:[3]", "job:long-enough-to-be-compressed-aaaaaaaaaaaaa"):
            client.set(key, "x")
        client.set("12345", "x")
    source = source_of(server)
    staged = source.staging("tag", tmp_path / "staging")
    staged.fill(backed_up(source, tmp_path / "backup"))
    view = staged.view
    for pattern in ("*", "job:*", "job:?", "job:[1-2]", "job:[^1]*", r"job:\[3\]", "123*", "none"):
        options = {"pattern": pattern, "database": "2"}
        with source.keys(options) as live, view.keys(options) as waiting:  # type: ignore[attr-defined]
            assert sorted(live) == sorted(waiting), pattern
    staged.revert()


def test_users_come_back_and_go_again(server: Server, tmp_path: Path) -> None:
    source = source_of(server)
    with server.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+secret"], keys=["cache:*"], commands=["+get"]
        )
        client.acl_setuser("both", enabled=True, nopass=True)
    before = users_of(server)
    artifacts = backed_up(source, tmp_path / "backup")
    assert source.facts().counts["users"] == 2
    with server.client() as client:
        client.acl_deluser("reader")
        client.acl_setuser("both", enabled=False)
        client.acl_setuser("newer", enabled=True)
    changed = users_of(server)
    staged = source.staging("tag", tmp_path / "staging")
    staged.fill(artifacts)
    staged.activate()
    assert set(before) <= users_of(server)
    with server.client(username="reader", password="secret") as reader:
        assert reader.get("cache:1") is None
    staged.revert()
    assert users_of(server) == changed


def users_of(server: Server) -> set[str]:
    """Return the users, without a flag that is the default and shown only after a reset."""
    with server.client() as client:
        return {line.replace(" sanitize-payload", "") for line in client.acl_list()}


def test_nobody_but_the_server_is_given_the_data(tmp_path: Path) -> None:
    rdb = tmp_path / "content.rdb"
    rdb.write_bytes(b"secret" * 1000)
    with Feed(rdb, ("127.0.0.1", 0), "a" * 40, "b" * 40) as feed:
        for wrong in (b"PSYNC ? -1", b"SYNC", b"PSYNC " + b"c" * 40 + b" 1", b"GET x"):
            with socket.create_connection(("127.0.0.1", feed.port), 5) as stranger:
                words = wrong.split()
                line = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
                stranger.sendall(b"*%d\r\n%s" % (len(words), line))
                stranger.shutdown(socket.SHUT_WR)
                said = b"".join(iter(lambda: stranger.recv(65536), b""))
                assert b"secret" not in said
        assert not feed.joined.is_set()


def test_what_a_restore_replaced_can_be_loaded_again(server: Server, tmp_path: Path) -> None:
    fill(server)
    source = source_of(server)
    artifacts = backed_up(source, tmp_path / "backup")
    with server.client() as client:
        client.set("newer", "x")
    staged = source.staging("tag", tmp_path / "staging")
    staged.fill(artifacts)
    staged.activate()
    kept = Path(str(staged.settle(tmp_path / "attic" / "cache")))
    with running(server.version) as other:
        other.stop()
        (other.folder / "dump.rdb").write_bytes(kept.read_bytes())
        other.start()
        assert other.client().get("newer") == b"x"


def test_it_says_what_the_account_may_do(server: Server) -> None:
    probe = source_of(server).probe()
    assert probe.reachable
    assert "user default" in probe.rights
    assert probe.version
    if server.seven:
        with server.client() as client:
            command(
                client, "ACL", "SETUSER", "narrow", "on", "nopass", "+psync", "+replconf", "+ping"
            )
        narrow = source_of(server, url=server.url.replace("//", "//narrow@"))
        assert narrow.probe().reachable


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
