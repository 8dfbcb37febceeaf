"""Redis servers on bad days: refused, cut off, killed, too old, too small, or fed with damage."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    AccessRefused,
    CommandFailed,
    ConnectionLost,
    HoldfastError,
    NoScratch,
    NoSpace,
    ServerFailed,
    ServerUnreachable,
    SourceCorrupt,
    TargetUnfit,
)
from holdfast.model.artifact import Artifact, Chunks, Stream
from holdfast.sources import _redis_feed, _redis_target
from holdfast.sources._redis_crc import crc64
from holdfast.sources._redis_feed import Feed, Feeding
from holdfast.sources.redis import RedisOptions, RedisSource
from holdfast.testing._trips import back_up, read_artifact, read_stream, stored_artifacts
from holdfast.testing.crashes import every_crash
from holdfast.testing.memory_vault import MemoryVault
from servers.proxy import Proxy
from servers.redis import (
    REDIS_6,
    REDIS_7,
    VALKEY,
    Content,
    Server,
    command,
    content,
    fill,
    free_port,
    load_function,
    program,
    programs,
    running,
)

PASSWORD = "a secret that nobody may read"
needs_valkey = pytest.mark.skipif(program(VALKEY) is None, reason="Valkey is not installed")


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{programs(REDIS_7)}:/usr/bin:/bin")


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with running(REDIS_7) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    shared.clear()
    return shared


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return made(tmp_path / "workspace")


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def source_of(server: Server, **options: Any) -> RedisSource:
    chosen = {"url": server.url, "password": server.password, "connect_timeout": 2, **options}
    return RedisSource("cache", RedisOptions(**chosen))


def backed_up(source: RedisSource, folder: Path) -> list[Artifact]:
    vault = MemoryVault()
    return stored_artifacts(vault, back_up([source], vault, folder), source.name)


def with_bytes(artifacts: list[Artifact], data: bytes) -> list[Artifact]:
    """Return artifacts with another RDB."""

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter([data])

    return [
        replace(one, open=opened) if isinstance(one, Stream) and one.part == "rdb" else one
        for one in artifacts
    ]


def rdb_of(artifacts: list[Artifact]) -> bytes:
    return next(
        read_stream(one) for one in artifacts if isinstance(one, Stream) and one.part == "rdb"
    )


# --- access ---


def test_a_wrong_password_is_said_and_not_shown(tmp_path: Path) -> None:
    with running(REDIS_7, password="right") as server:
        for wrong in (PASSWORD, ""):
            source = source_of(server, password=wrong)
            workspace = made(tmp_path / f"workspace {len(wrong)}")
            with pytest.raises(AccessRefused) as caught, source.freeze(workspace):
                pytest.fail("it was let in")
            probe = source.probe()
            assert not probe.reachable
            said = [str(caught.value), repr(source.options), repr(source._access), *probe.problems]
            assert not any(PASSWORD in one for one in said)


def test_neither_token_nor_place_has_the_password(tmp_path: Path) -> None:
    with running(REDIS_7, password=PASSWORD) as server:
        quoted = PASSWORD.replace(" ", "%20")
        source = source_of(server, url=server.url.replace("//", f"//:{quoted}@"), password="")
        assert source.facts().counts == {}
        staged = source.staging("tag", tmp_path / "staging")
        for said in (source.where, str(staged.token), repr(staged._access)):
            assert "secret" not in said
        other = source.elsewhere("redis://127.0.0.1:1/0")
        assert other.where == "redis://127.0.0.1:1"
        assert other._access.password == PASSWORD


def test_an_account_that_may_only_replicate_is_enough_for_an_exact_copy(
    server: Server, tmp_path: Path, workspace: Path
) -> None:
    fill(server)
    expected = content(server)
    with server.client() as client:
        command(client, "ACL", "SETUSER", "narrow", "on", f">{PASSWORD}")
        command(client, "ACL", "SETUSER", "narrow", "+psync", "+replconf", "+ping")
    narrow = source_of(server, url=server.url.replace("//", "//narrow@"), password=PASSWORD)
    with narrow.freeze(workspace) as frozen:
        assert frozen.exact
        counts = frozen.facts().counts
    assert counts["functions"] == 1
    artifacts = backed_up(narrow, tmp_path / "backup")
    with pytest.raises(AccessRefused):
        narrow.staging("tag", tmp_path / "refused").fill(artifacts)
    with running(REDIS_7) as other:
        restored = source_of(other).staging("tag", tmp_path / "staging")
        restored.fill(artifacts)
        restored.activate()
        got = content(other)
    assert without_users(got) == without_users(expected)


def without_users(found: Content) -> Content:
    return {key: value for key, value in found.items() if key != "users"}


def test_an_account_that_may_not_replicate_copies_and_restores_by_commands(
    server: Server, tmp_path: Path, workspace: Path
) -> None:
    fill(server)
    expected = content(server)
    with server.client() as client:
        command(client, "ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all")
        command(client, "ACL", "SETUSER", "app", "-psync", "-replicaof", "-slaveof", "-config")
    app = source_of(server, url=server.url.replace("//", "//app@"))
    assert "may not replicate" in app.probe().rights
    with app.freeze(workspace) as frozen:
        assert not frozen.exact
        assert any("key by key" in note for note in frozen.facts().notes)
    exactly = app._with(backup="replication")
    with pytest.raises(AccessRefused, match="PSYNC"), exactly.freeze(made(tmp_path / "exact")):
        pytest.fail("it was copied")
    artifacts = backed_up(app, tmp_path / "backup")
    with server.client() as client:
        client.flushall()
        client.set("junk", "x")
    staged = app.staging("tag", tmp_path / "staging")
    staged.fill(artifacts)
    staged.activate()
    assert without_users(content(server)) == without_users(expected)
    staged.revert()
    assert server.client().keys() == [b"junk"]


def test_users_that_cannot_be_set_are_not_passed_over(server: Server, tmp_path: Path) -> None:
    with server.client() as client:
        command(client, "ACL", "SETUSER", "kept", "on", "nopass", "+get")
        command(client, "ACL", "SETUSER", "app", "on", "nopass", "~*", "&*", "+@all", "-acl")
    artifacts = backed_up(source_of(server), tmp_path / "backup")
    app = source_of(server, url=server.url.replace("//", "//app@"))
    with pytest.raises(TargetUnfit, match="users: false"):
        app.staging("tag", tmp_path / "staging").fill(artifacts)
    without = app._with(users=False).staging("other", tmp_path / "other")
    without.fill(artifacts)
    without.activate()


# --- TLS ---


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    for name in ("right", "other"):
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        subprocess.run([*new, *subject, *files], check=True, capture_output=True)
    return folder


def test_tls_is_spoken_and_checked(certificates: Path, tmp_path: Path) -> None:
    options = ["--tls-cert-file", certificates / "right.crt"]
    options += ["--tls-key-file", certificates / "right.key"]
    options += ["--tls-ca-cert-file", certificates / "right.crt"]
    with running(REDIS_7) as server, running_tls(server, [str(one) for one in options]) as port:
        fill(server)
        url = f"rediss://127.0.0.1:{port}"
        ours = {"ca": certificates / "right.crt", "cert": certificates / "right.crt"}
        ours["key"] = certificates / "right.key"
        source = source_of(server, url=url, **ours)
        expected = content(server)
        artifacts = backed_up(source, tmp_path / "backup")
        with server.client() as client:
            client.flushall()
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        staged.activate()
        assert content(server) == expected
        for options_of, reason in (
            ({**ours, "ca": certificates / "other.crt"}, "not trusted"),
            ({"ca": certificates / "right.crt"}, ""),  # it wants to see a certificate of ours
        ):
            wrong = source_of(server, url=url, **options_of).probe()
            assert not wrong.reachable
            assert reason in wrong.problems[0]
        plain = source_of(server, url=url.replace("rediss", "redis")).probe()
        assert not plain.reachable
        secure = source_of(server, url=server.url.replace("redis:", "rediss:")).probe()
        assert not secure.reachable
        assert "TLS" in secure.problems[0]


@contextmanager
def running_tls(server: Server, options: list[str]) -> Iterator[int]:
    """Let a server listen for TLS as well, on a port that is given."""
    port = free_port()
    server.stop()
    server.start("--tls-port", str(port), *options)
    yield port


# --- connections ---


def test_a_server_that_is_not_there_is_unreachable(tmp_path: Path, workspace: Path) -> None:
    source = RedisSource("cache", RedisOptions(url="redis://127.0.0.1:1"))
    with pytest.raises(ServerUnreachable), source.freeze(workspace):
        pytest.fail("it was copied")
    with pytest.raises(ServerUnreachable):
        source.facts()
    nowhere = RedisSource("cache", RedisOptions(url=f"unix://{tmp_path}/none.sock"))
    assert not nowhere.probe().reachable


def test_something_else_that_listens_is_told_apart(workspace: Path) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        options = RedisOptions(url=f"redis://127.0.0.1:{web.server_port}", timeout=2)
        probe = RedisSource("cache", options).probe()
        web.shutdown()
        thread.join()
    assert not probe.reachable


@pytest.mark.parametrize("size", [30_000, 300_000])
def test_a_copy_that_is_cut_off_is_not_kept(server: Server, workspace: Path, size: int) -> None:
    fill(server, 2000)
    with Proxy(server.port) as proxy:
        source = source_of(server, url=f"redis://127.0.0.1:{proxy.port}")
        proxy.cut_after(1 << 30)  # the connection that looks around
        proxy.cut_after(size)
        with pytest.raises(ConnectionLost):
            read_all(source, workspace, lambda: None)
        assert "keys/db0" in source.facts().counts  # the next connection is whole


def test_counting_a_copy_that_is_cut_off_fails_too(server: Server, workspace: Path) -> None:
    fill(server, 2000)
    with Proxy(server.port) as proxy:
        source = source_of(server, url=f"redis://127.0.0.1:{proxy.port}")
        proxy.cut_after(1 << 30)
        proxy.cut_after(100_000)
        with pytest.raises(ConnectionLost), source.freeze(workspace) as frozen:
            frozen.facts()


def test_a_server_that_falls_silent_is_given_up(server: Server, workspace: Path) -> None:
    with Proxy(server.port) as proxy:
        proxy.delay(5)
        source = source_of(server, url=f"redis://127.0.0.1:{proxy.port}", timeout=0.3)
        with pytest.raises(ConnectionLost, match=r"nothing came for 0\.3 s"):
            source.facts()


def read_all(source: RedisSource, workspace: Path, meanwhile: Callable[[], None]) -> None:
    """Copy a server to which something happens as soon as its dump has begun."""
    with source.freeze(workspace) as frozen:
        meanwhile()
        for artifact in frozen.artifacts:
            read_artifact(artifact)


def test_a_server_that_is_killed_while_it_dumps_leaves_nothing(workspace: Path) -> None:
    with running(REDIS_7, "--rdb-key-save-delay", "2000") as server:
        fill(server, 3000)
        source = source_of(server)
        with pytest.raises(ConnectionLost):
            read_all(source, workspace, server.kill)


def test_a_dump_whose_process_is_killed_leaves_nothing(workspace: Path) -> None:
    with running(REDIS_7, "--rdb-key-save-delay", "2000") as server:
        fill(server, 3000)
        assert server.process is not None
        source = source_of(server)
        pid = server.process.pid

        def kill_children() -> None:
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                os.kill(int(child), 9)

        with pytest.raises(HoldfastError):
            read_all(source, workspace, kill_children)
        assert server.client().dbsize() > 3000


# --- the restore ---


@pytest.fixture
def changed(server: Server, tmp_path: Path) -> tuple[list[Artifact], Content]:
    """What was backed up, and what the server holds now."""
    fill(server)
    artifacts = backed_up(source_of(server), tmp_path / "backup")
    with server.client() as client:
        client.set("later", "x")
        client.delete("stream", "hash")
    load_function(server, "later")
    return artifacts, content(server)


def test_flipped_bits_are_refused_before_the_server_sees_them(
    server: Server, changed: tuple[list[Artifact], Content], tmp_path: Path
) -> None:
    artifacts, before = changed
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")  # noqa: T201 - a failure is repeated with it
    chance = random.Random(seed)
    good = rdb_of(artifacts)
    source = source_of(server)
    for trial in range(20):
        bad = bytearray(good)
        bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
        staged = source.staging(f"flip{trial}", tmp_path / f"flip{trial}")
        with pytest.raises(HoldfastError):
            staged.fill(with_bytes(artifacts, bytes(bad)))
        found = source.inspect(
            with_bytes(artifacts, bytes(bad)), made(tmp_path / f"inspect{trial}")
        )
        assert found.problems
    for length in (0, 5, 9, 100, len(good) // 2, len(good) - 1):
        staged = source.staging(f"cut{length}", tmp_path / f"cut{length}")
        with pytest.raises(SourceCorrupt):
            staged.fill(with_bytes(artifacts, good[:length]))
    with pytest.raises(SourceCorrupt):
        source.staging("more", tmp_path / "more").fill(with_bytes(artifacts, good + b"x"))
    assert content(server) == before


def test_values_that_do_not_hold_together_are_found_by_the_servers_own_checker(
    server: Server, tmp_path: Path
) -> None:
    with server.client() as client:
        client.hset("hash", mapping={"field": "value"})
    source = source_of(server)
    artifacts = backed_up(source, tmp_path / "backup")
    bad = bytearray(rdb_of(artifacts))
    bad[bad.index(b"\x85field")] = 0x8F  # an entry of a listpack says that it is longer
    bad[-8:] = crc64(bytes(bad[:-8])).to_bytes(8, "little")
    found = source.inspect(with_bytes(artifacts, bytes(bad)), made(tmp_path / "inspect"))
    assert "redis-check-rdb" in found.problems[0]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_link_that_is_cut_half_way_leaves_the_old_data(
    server: Server,
    changed: tuple[list[Artifact], Content],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
) -> None:
    artifacts, before = changed
    staged = source_of(server, restore="replication").staging("tag", tmp_path / "staging")
    staged.fill(artifacts)
    size = int(len(rdb_of(artifacts)) * share)
    monkeypatch.setattr(_redis_feed, "Feed", partial(proxied, size))
    with pytest.raises(ServerFailed):
        staged.activate()
    assert content(server) == before
    assert server.client().info("replication")["role"] == "master"
    assert not (tmp_path / "staging" / "begun.json").exists(), "it was not touched"
    monkeypatch.undo()
    staged.revert()
    assert content(server) == before


def proxied(size: int, *arguments: Any) -> Feed:
    """Return a feed that the server reaches through a proxy, which breaks what it is sent."""

    class Proxied(Feed):
        def __exit__(self, *error: object) -> None:
            proxy.__exit__(*error)
            super().__exit__(None, None, None)

    feed = Proxied(*arguments)
    proxy = Proxy(feed.port).__enter__()
    proxy.cut_after(size + 60, times=100)
    feed.port = proxy.port
    return feed


def test_a_server_that_cannot_reach_us_is_told_how_or_fed_by_commands(
    server: Server,
    changed: tuple[list[Artifact], Content],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifacts, before = changed
    listen = f"127.0.0.1:{server.port}"  # which is taken
    blocked = source_of(server, restore="replication", listen=listen)
    staged = blocked.staging("tag", tmp_path / "staging")
    staged.fill(artifacts)
    with pytest.raises(ServerFailed, match="cannot listen"):
        staged.activate()
    assert content(server) == before

    def unreachable(*arguments: Any) -> Feed:
        feed = Feed(*arguments)
        feed.port = 1
        return feed

    monkeypatch.setattr(_redis_feed, "Feed", unreachable)
    deaf = source_of(server, restore="replication", connect_timeout=0.3)
    staged = deaf.staging("deaf", tmp_path / "deaf")
    staged.fill(artifacts)
    with pytest.raises(ServerFailed, match="listen"):
        staged.activate()
    assert content(server) == before
    automatic = source_of(server, connect_timeout=0.3).staging("auto", tmp_path / "auto")
    automatic.fill(artifacts)
    automatic.activate()
    assert without_users(content(server)) != without_users(before)
    automatic.revert()
    assert content(server) == before


def test_a_server_elsewhere_needs_an_address_to_listen_on(
    server: Server, changed: tuple[list[Artifact], Content], tmp_path: Path
) -> None:
    source = source_of(server, restore="replication")
    far = replace(source._access, place=replace(source._access.place, host="192.0.2.1"))
    target = replace(source.target, access=far)
    with pytest.raises(_redis_feed.Untouched, match="listen"):
        target._own_address()
    assert replace(target, listen="10.0.0.1:99")._own_address() == ("10.0.0.1", 99)
    assert replace(target, listen="[::1]:99")._own_address() == ("::1", 99)


@needs_valkey
def test_a_dump_of_a_newer_server_is_refused(server: Server, tmp_path: Path) -> None:
    with running(VALKEY) as newer:
        fill(newer)
        artifacts = backed_up(source_of(newer), tmp_path / "backup")
        with pytest.raises(TargetUnfit, match="RDB version 11, not 10"):
            source_of(server).staging("tag", tmp_path / "staging").fill(artifacts)
    assert server.client().ping()


def test_a_server_with_too_few_databases_is_refused(server: Server, tmp_path: Path) -> None:
    with server.client(9) as client:
        client.set("key", "x")
    artifacts = backed_up(source_of(server), tmp_path / "backup")
    with running(REDIS_7, "--databases", "4") as small:
        with pytest.raises(TargetUnfit, match="database 9"):
            source_of(small).staging("tag", tmp_path / "staging").fill(artifacts)
        assert small.client().ping()


def test_data_of_modules_goes_only_where_they_are(server: Server, tmp_path: Path) -> None:
    fill(server)
    artifacts = backed_up(source_of(server), tmp_path / "backup")
    rdb = rdb_of(artifacts)
    # A module called "holdfast1" with a number, a double and a string before the end of the file.
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    identity = 0
    for letter in "holdfast1":
        identity = identity << 6 | letters.index(letter)
    value = b"\x81" + (identity << 10 | 1).to_bytes(8, "big")
    value += b"\x02\x05" + b"\x04" + bytes(8) + b"\x05\x03abc" + b"\x00"
    body = rdb[:-9] + b"\xfe\x00\x07\x03mod" + value + b"\xff"
    artifacts = with_bytes(artifacts, body + crc64(body).to_bytes(8, "little"))
    found = source_of(server).inspect(artifacts, made(tmp_path / "inspect"))
    assert found.problems == ()
    assert found.facts.details["modules"] == ["holdfast1"]
    with pytest.raises(TargetUnfit, match="holdfast1"):
        source_of(server).staging("tag", tmp_path / "staging").fill(artifacts)
    assert server.client().ping()


def test_a_replica_and_a_part_of_a_cluster_are_refused(server: Server, tmp_path: Path) -> None:
    artifacts = backed_up(source_of(server), tmp_path / "backup")
    unfit = {"--replicaof": f"127.0.0.1 {server.port}", "--cluster-enabled": "yes"}
    for option, value in unfit.items():
        with running(REDIS_7, option, value) as other:
            staged = source_of(other).staging("tag", tmp_path / option)
            with pytest.raises(TargetUnfit, match=r"a replica of|part of a cluster"):
                staged.fill(artifacts)


def test_a_replica_is_backed_up_as_well(server: Server, tmp_path: Path) -> None:
    fill(server)
    with running(REDIS_7, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        source = source_of(replica)
        deadline = time.monotonic() + 10
        while replica.client().info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        artifacts = backed_up(source, tmp_path / "backup")
    found = source_of(server).inspect(artifacts, made(tmp_path / "inspect"))
    assert found.facts.counts == source_of(server).facts().counts


def test_a_full_disk_ends_a_copy_and_a_restore(
    server: Server, changed: tuple[list[Artifact], Content], workspace: Path, tmp_path: Path
) -> None:
    artifacts, before = changed
    source = source_of(server)
    with small_files(100_000):
        with pytest.raises(NoSpace), source.freeze(workspace) as frozen:
            frozen.facts()
        staged = source.staging("tag", tmp_path / "staging")
        with pytest.raises(NoSpace):
            staged.fill(artifacts)
    staged.revert()
    assert content(server) == before


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_target_whose_disk_is_full_keeps_what_it_had(tmp_path: Path) -> None:
    with running(REDIS_7) as server:
        fill(server)
        artifacts = backed_up(source_of(server), tmp_path / "backup")
        with server.client() as client:
            client.set("later", "x")
        before = content(server)
        source = source_of(server, restore="replication")
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        assert server.process is not None
        limit = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100_000, limit[1]))
        with pytest.raises(ServerFailed):
            staged.activate()
        assert content(server) == before
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limit)
        staged.revert()
        assert content(server) == before


def test_a_restart_that_fails_leaves_the_server_as_it_was(tmp_path: Path) -> None:
    with running(REDIS_7, "--appendonly", "yes", "--save", "3600", "1") as server:
        fill(server)
        for how in (("false",), ("no such program",)):
            source = source_of(
                server, restore="file", folder=server.folder, restart=how, timeout=0.5
            )
            artifacts = backed_up(source, tmp_path / f"backup {how}")
            with server.client() as client:
                client.incr("later")
            before = content(server)
            staged = source.staging("tag", tmp_path / f"staging {how}")
            staged.fill(artifacts)
            with pytest.raises(CommandFailed):
                staged.activate()
            assert content(server) == before
            wait_for_the_files(server)
            staged.revert()
            server.kill()
            server.start()
            assert content(server) == before


def wait_for_the_files(server: Server) -> None:
    """Wait until a server has rewritten its files."""
    deadline = time.monotonic() + 10
    with server.client() as client:
        while True:
            state = client.info("persistence")
            busy = state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]
            if not busy and not state["rdb_bgsave_in_progress"]:
                return
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_restart_that_is_none_is_found_out(tmp_path: Path) -> None:
    with running(REDIS_7) as server:
        fill(server)
        source = source_of(
            server, restore="file", folder=server.folder, restart=("true",), timeout=0.5
        )
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(backed_up(source, tmp_path / "backup"))
        with pytest.raises(ServerFailed, match="not started again"):
            staged.activate()


def test_a_folder_that_is_not_the_servers_is_found_out(tmp_path: Path) -> None:
    with running(REDIS_7) as server:
        fill(server)
        wrong = made(tmp_path / "wrong")
        source = source_of(server, restore="file", folder=wrong, restart=("false",))
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(backed_up(source, tmp_path / "backup"))
        before = content(server)
        with pytest.raises(TargetUnfit, match="not its `dir`"):
            staged.activate()
        assert content(server) == before
        assert list(wrong.iterdir()) == []


def test_a_server_that_sentinel_watches_is_refused(tmp_path: Path) -> None:
    with running(REDIS_7) as server, watched(server, tmp_path):
        fill(server)
        source = source_of(server)
        staged = source.staging("tag", tmp_path / "staging")
        with pytest.raises(TargetUnfit, match="Sentinel"):
            staged.fill(backed_up(source, tmp_path / "backup"))


@contextmanager
def watched(server: Server, folder: Path) -> Iterator[None]:
    """Let a Sentinel, which is the same program again, watch a server."""
    configuration = folder / "sentinel.conf"
    configuration.write_text(
        f"port {free_port()}\nbind 127.0.0.1\nsentinel monitor cache 127.0.0.1 {server.port} 1\n"
    )
    words = [str(programs(REDIS_7) / "redis-server"), str(configuration), "--sentinel"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 10
        while not any("sentinel" in one["name"] for one in server.client().client_list()):
            assert time.monotonic() < deadline, "Sentinel does not watch"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


def test_no_server_program_no_twin(
    server: Server, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    source = source_of(server)
    with pytest.raises(NoScratch, match="redis-server"), source.scratch(workspace):
        pytest.fail("a twin was made of nothing")


@needs_valkey
def test_a_server_program_that_is_too_old_makes_no_twin(workspace: Path) -> None:
    with (
        running(VALKEY) as newer,
        pytest.raises(NoScratch, match="reads RDB version 10, and not 11"),
        source_of(newer).scratch(workspace),
    ):
        pytest.fail("a twin was made that cannot read the backup")


def test_a_twin_ends_with_us(server: Server, workspace: Path) -> None:
    child = os.fork()
    if child == 0:
        try:
            with source_of(server).scratch(workspace):
                os.kill(os.getpid(), 9)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    while twins(workspace):
        assert time.monotonic() < deadline, "the twin outlived its owner"
        time.sleep(0.02)


def twins(workspace: Path) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes()
                folder = str((process / "cwd").readlink())
            except OSError:
                continue
            if b"redis-server" in words and folder == str(workspace):
                found.append(process.name)
    return found


# --- kill -9 ---


@pytest.mark.timeout(300)
def test_a_restore_that_was_killed_at_any_step_is_reverted(
    server: Server, changed: tuple[list[Artifact], Content], tmp_path: Path
) -> None:
    artifacts, before = changed
    workspace = tmp_path / "staging"

    def work() -> None:
        staged = source_of(server).staging("tag", workspace)
        staged.fill(artifacts)
        staged.activate()

    token = source_of(server).staging("tag", workspace).token
    steps = 0
    for _step in every_crash(work, stride=2):
        staged = source_of(server).reopen(token)
        staged.revert()
        assert content(server) == before
        steps += 1
    assert steps > 3


@pytest.mark.timeout(300)
def test_a_revert_and_a_settling_that_were_killed_are_finished_by_others(
    server: Server, changed: tuple[list[Artifact], Content], tmp_path: Path
) -> None:
    artifacts, before = changed
    workspace = tmp_path / "staging"
    token = source_of(server).staging("tag", workspace).token

    def restore() -> None:
        staged = source_of(server).staging("tag", workspace)
        staged.fill(artifacts)
        staged.activate()

    restore()
    restored = without_users(content(server))
    for _step in every_crash(lambda: source_of(server).reopen(token).revert()):
        source_of(server).reopen(token).revert()
        assert content(server) == before
        restore()
    attic = tmp_path / "attic"
    for _step in every_crash(lambda: source_of(server).reopen(token).settle(attic), stride=2):
        kept = source_of(server).reopen(token).settle(attic)
        assert kept is not None
        assert Path(kept).stat().st_size > 1000
        assert without_users(content(server)) == restored
        Path(kept).unlink()
        restore()


MOMENTS = ["begun", "replica", "half", "sent", "loaded", "master"]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_restore_that_was_killed_while_the_server_loads_is_reverted(
    server: Server, changed: tuple[list[Artifact], Content], tmp_path: Path, moment: str
) -> None:
    artifacts, before = changed
    workspace = tmp_path / "staging"
    staged = source_of(server).staging("tag", workspace)
    staged.fill(artifacts)
    child = os.fork()
    if child == 0:
        try:
            die_at(moment)
            source_of(server).reopen(staged.token).activate()
        finally:
            os._exit(1)  # it should not have come so far
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -9
    role = server.client().info("replication")["role"]
    assert role == ("master" if moment in {"begun", "master"} else "slave")
    way = "commands" if moment == "replica" else "auto"  # which a replica would refuse
    source_of(server, restore=way).reopen(staged.token).revert()
    assert content(server) == before
    assert server.client().info("replication")["role"] == "master"
    server.client().set("written afterwards", "x")


def die_at(moment: str) -> None:
    """Let this process kill itself at a moment of a loading by replication."""

    def die(*_: Any, **_by_name: Any) -> Any:
        os.kill(os.getpid(), 9)

    def half(self: Feed, one: Any, words: Any) -> None:
        del words
        data = self._rdb.read_bytes()
        one.sendall(b"+FULLRESYNC %s 0\r\n$%d\r\n" % (self._identity, len(data)))
        one.sendall(data[: len(data) // 2])
        time.sleep(0.05)
        die()

    ask, sync, wait = Feeding._ask, Feed._sync, Feeding._wait
    changes: dict[str, tuple[type, str, Any]] = {
        "begun": (Feeding, "_ask", die),
        "replica": (Feeding, "_ask", lambda *a: (ask(*a), die())),
        "half": (Feed, "_sync", half),
        "sent": (Feed, "_sync", lambda *a: (sync(*a), die())),
        "loaded": (Feeding, "_wait", lambda *a: (wait(*a), die())),
        "master": (_redis_target.Target, "_persist", die),
    }
    kind, name, change = changes[moment]
    setattr(kind, name, change)


def test_a_server_that_was_killed_while_it_loaded_is_reverted_when_it_is_back(
    tmp_path: Path,
) -> None:
    with running(REDIS_7, "--save", "3600", "1") as server:
        fill(server, 2000)
        source = source_of(server, connect_timeout=0.5)
        artifacts = backed_up(source, tmp_path / "backup")
        with server.client() as client:
            client.set("later", "x")
        before = content(server)
        staged = source.staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        command(server.client(), "CONFIG", "SET", "key-load-delay", "1000")
        killing = threading.Timer(0.4, server.kill)
        killing.start()
        with pytest.raises(HoldfastError):
            staged.activate()
        killing.join()
        with pytest.raises(ServerUnreachable):
            source.reopen(staged.token).revert()
        server.start()
        source.reopen(staged.token).revert()
        assert content(server) == before


def test_redis_6_has_no_functions_and_takes_none(tmp_path: Path, server: Server) -> None:
    if program(REDIS_6) is None:
        pytest.skip("Redis 6.2 is not installed")
    fill(server)
    artifacts = backed_up(source_of(server), tmp_path / "backup")
    with running(REDIS_6) as older:
        with pytest.raises(TargetUnfit, match="RDB version 10, not 9"):
            source_of(older).staging("tag", tmp_path / "staging").fill(artifacts)
        older_artifacts = backed_up(source_of(older), tmp_path / "older")
    staged = source_of(server).staging("back", tmp_path / "back")
    staged.fill(older_artifacts)
    staged.activate()
    assert source_of(server).facts().counts == {}
