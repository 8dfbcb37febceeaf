"""Qdrant on bad days: whatever happens, what is live stays, and nothing of ours is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    AccessRefused,
    BackupDamaged,
    ConnectionLost,
    NoScratch,
    ServerFailed,
    ServerUnreachable,
    SourceMissing,
    TargetUnfit,
)
from holdfast.model.artifact import Artifact, Stream
from holdfast.sources import _qdrant_taking
from holdfast.sources._qdrant_api import Qdrant, Snapshot
from holdfast.sources.qdrant import QdrantOptions, QdrantSource
from holdfast.testing._artifacts import failing
from holdfast.testing._trips import back_up, read_artifact, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from servers.proxy import Proxy, Trouble
from servers.qdrant import (
    KEY,
    READ_KEY,
    Client,
    QdrantServer,
    RefusedError,
    litter,
    program,
    qdrant_server,
    vector,
)

NAME, ALIAS = "memories", "live"
POINTS = 3000  # some 2 MB of vectors


class QuickSource(QdrantSource):
    pause = 0.02


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with qdrant_server() as server:
        server.client.create(NAME, vectors={"size": 128, "distance": "Dot"})
        fill(server.client, range(POINTS))
        server.client.alias(ALIAS, NAME)
        yield server


@pytest.fixture
def proxy(server: QdrantServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def artifacts(server: QdrantServer, tmp_path: Path) -> list[Artifact]:
    return backed_up(source_on(server.url), tmp_path / "backup")


def fill(client: Client, numbers: range) -> None:
    for start in range(numbers.start, numbers.stop, 1000):
        body = batch(start, min(start + 1000, numbers.stop))
        client.send("PUT", f"/collections/{NAME}/points?wait=true", body)


@cache
def batch(start: int, stop: int) -> bytes:
    points = [{"id": n, "vector": vector(128, n), "payload": {"n": n}} for n in range(start, stop)]
    return json.dumps({"points": points}).encode()


def source_on(url: str, **options: Any) -> QuickSource:
    given = {"url": url, "api_key": KEY, "timeout": 20, "snapshot_timeout": 30, **options}
    return QuickSource("vectors", QdrantOptions(**given))


def through(proxy: Proxy, **options: Any) -> QuickSource:
    return source_on(f"http://127.0.0.1:{proxy.port}", **options)


def backed_up(source: QdrantSource, folder: Path) -> list[Artifact]:
    vault = MemoryVault()
    return stored_artifacts(vault, back_up([source], vault, folder), source.name)


def changed(server: QdrantServer) -> tuple[object, set[str]]:
    """Let the live collection go on, and return what it is then."""
    server.client.delete(NAME, points=list(range(500)))
    return look(server)


def look(server: QdrantServer) -> tuple[object, set[str]]:
    return server.client.everything(), litter(server)


@contextmanager
def queried(server: QdrantServer, name: str) -> Iterator[list[object]]:
    """Query all the while, as an application does, and collect what it sees."""
    seen: list[object] = []
    over = threading.Event()
    begun = threading.Event()

    def run() -> None:
        while not over.is_set():
            try:
                seen.append(server.client.count(name))
            except (RefusedError, OSError) as error:
                seen.append(error)
            begun.set()
            over.wait(0.001)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


class TestBackups:
    def test_a_download_that_is_cut_goes_on(
        self, server: QdrantServer, proxy: Proxy, tmp_path: Path
    ) -> None:
        before = look(server)
        proxy.cut_after(1_500_000, times=1)
        proxy.cut_after(500, times=1)
        found = backed_up(through(proxy), tmp_path)
        assert proxy.accepted >= 3
        assert through(proxy).inspect(found, tmp_path).facts.counts[f"points/{NAME}"] == POINTS
        assert look(server) == before

    def test_a_download_that_is_cut_again_and_again_fails(
        self, server: QdrantServer, proxy: Proxy, tmp_path: Path
    ) -> None:
        with through(proxy).freeze(tmp_path) as frozen:
            proxy.cut_now()
            proxy.always(Trouble(down=0))
            with pytest.raises(ConnectionLost):
                read_artifact(frozen.artifacts[0])
            proxy.always(None)
        assert litter(server) == {f"collection {NAME}", f"alias {ALIAS}"}

    def test_errors_and_slowness_that_pass_are_waited_for(
        self, server: QdrantServer, proxy: Proxy, tmp_path: Path
    ) -> None:
        proxy.fail(500)
        proxy.fail(503)
        proxy.delay(0.005, times=3)
        assert backed_up(through(proxy), tmp_path)

    def test_a_server_that_only_fails_is_called_that(self, proxy: Proxy, tmp_path: Path) -> None:
        proxy.always(Trouble(answer=b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops"))
        with pytest.raises(ServerFailed, match="HTTP 500: oops"), through(proxy).freeze(tmp_path):
            pytest.fail("it was frozen")

    def test_a_server_that_is_silent_is_not_waited_for_for_ever(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        server.freeze(on=True)
        source = source_on(server.url, timeout=0.1)
        with pytest.raises(ConnectionLost, match="silent"), source.freeze(tmp_path):
            pytest.fail("it was frozen")
        assert not source.probe().reachable

    def test_a_server_that_is_killed_while_it_makes_a_snapshot(
        self, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = look(server)
        with monkeypatch.context() as patched:
            patched.setattr(Qdrant, "create_snapshot", killing(server, Qdrant.create_snapshot))
            source = source_on(server.url)
            with pytest.raises(ServerUnreachable), source.freeze(tmp_path):
                pytest.fail("it was frozen")
        assert server.start()
        assert look(server) != before  # the mark of what was begun
        later(monkeypatch)
        dead(monkeypatch)
        assert backed_up(source_on(server.url), tmp_path / "again")
        assert look(server) == before

    def test_a_server_that_is_killed_while_it_is_read(
        self, server: QdrantServer, proxy: Proxy, tmp_path: Path
    ) -> None:
        before = look(server)
        source = through(proxy)
        with source.freeze(tmp_path) as frozen:
            proxy.cut_now()
            proxy.delay(0.05)
            snapshot = frozen.artifacts[0]
            assert isinstance(snapshot, Stream)
            with snapshot.open() as chunks:
                next(chunks)
                server.kill()
                proxy.cut_now()
                with pytest.raises((ConnectionLost, ServerUnreachable)):
                    list(chunks)
        assert server.start()
        assert litter(server) > before[1]
        with pytest.MonkeyPatch.context() as patched:
            dead(patched)
            assert backed_up(source, tmp_path / "again")
        assert look(server) == before

    def test_bytes_that_rotted_on_the_server_are_not_taken(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        with source_on(server.url).freeze(tmp_path) as frozen:
            (path,) = (server.folder / "snapshots" / NAME).glob("*.snapshot")
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            with pytest.raises(ServerFailed, match="checksum"):
                read_artifact(frozen.artifacts[0])

    def test_a_gateway_that_loses_patience_costs_nothing(
        self, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Qdrant.create_snapshot

        def impatient(self: Qdrant, name: str) -> Snapshot | None:
            original(self, name)
            raise ConnectionLost(component="vectors", where="there", reason="a gateway's")

        monkeypatch.setattr(Qdrant, "create_snapshot", impatient)
        before = look(server)
        assert backed_up(source_on(server.url), tmp_path)
        assert look(server) == before

    def test_a_collection_that_vanishes_is_noted(
        self, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.client.create("passing")
        original = Qdrant.names

        def vanishing(self: Qdrant) -> list[str]:
            found = original(self)
            if "passing" in found:
                server.client.drop("passing")
            return found

        monkeypatch.setattr(Qdrant, "names", vanishing)
        with source_on(server.url).freeze(tmp_path) as frozen:
            for artifact in frozen.artifacts:
                read_artifact(artifact)
            facts = frozen.facts()
        assert facts.counts == {"collections": 1, f"points/{NAME}": POINTS}
        assert any("passing was deleted" in note for note in facts.notes)

    def test_a_collection_that_is_configured_must_be_there(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        source = source_on(server.url, collections=[NAME, "absent"])
        with pytest.raises(SourceMissing, match="absent"), source.freeze(tmp_path):
            pytest.fail("it was frozen")
        assert "absent" in source.probe().problems[0]
        assert source.facts().counts == {"collections": 1, f"points/{NAME}": POINTS}

    def test_a_collection_may_be_configured_by_its_alias(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        server.client.create("other")
        found = backed_up(source_on(server.url, collections=[ALIAS]), tmp_path)
        assert [one.part for one in found] == [NAME, ":collections", ":aliases"]

    def test_several_shards_are_several_instants(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        with source_on(server.url).freeze(tmp_path) as frozen:
            assert frozen.exact
        server.client.create("sharded", vectors={"size": 4, "distance": "Dot"}, shard_number=2)
        with source_on(server.url).freeze(tmp_path) as frozen:
            assert not frozen.exact
            assert "2 collections with 3 shards" in frozen.facts().notes[0]


class TestAccess:
    @pytest.mark.parametrize("key", ["", "another"])
    def test_a_wrong_key_is_refused(self, server: QdrantServer, tmp_path: Path, key: str) -> None:
        source = source_on(server.url, api_key=key)
        with pytest.raises(AccessRefused), source.freeze(tmp_path):
            pytest.fail("it was frozen")
        assert not source.probe().reachable
        assert KEY not in repr(source.options) + str(source.probe())

    def test_a_key_that_only_reads_is_known_before(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        source = source_on(server.url, api_key=READ_KEY)
        probe = source.probe()
        assert (probe.reachable, probe.rights) == (True, "may only read")
        assert "may only read" in probe.problems[0]
        with pytest.raises(AccessRefused), source.freeze(tmp_path):
            pytest.fail("it was frozen")
        no_program = source_on(server.url, api_key=READ_KEY, server=tmp_path / "none")
        with pytest.raises(NoScratch, match="may only read"), no_program.scratch(tmp_path):
            pytest.fail("there is a twin")
        assert source.facts().counts[f"points/{NAME}"] == POINTS

    def test_a_full_key_may_manage(self, server: QdrantServer) -> None:
        probe = source_on(server.url, server=program()).probe()
        assert (probe.rights, probe.problems) == ("may manage the server", ())
        assert probe.version == probe.tools["qdrant"] == "1.16.3"

    def test_nobody_is_there(self, tmp_path: Path) -> None:
        with Proxy(1) as gone:
            pass
        with pytest.raises(ServerUnreachable), through(gone).freeze(tmp_path):
            pytest.fail("it was frozen")
        with (
            pytest.raises(NoScratch),
            through(gone, server=tmp_path / "none").scratch(tmp_path),
        ):
            pytest.fail("there is a twin")

    def test_a_certificate_must_be_trusted(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
        with qdrant_server() as plain:
            folder = plain.folder
            for path in (certificate, key):
                (folder / path.name).write_bytes(path.read_bytes())
            secured = {
                "QDRANT__SERVICE__ENABLE_TLS": "true",
                "QDRANT__TLS__CERT": str(folder / certificate.name),
                "QDRANT__TLS__KEY": str(folder / key.name),
            }
            plain.kill()
            plain.settings = secured
            assert plain.start()
            url = plain.url
            with pytest.raises(ServerUnreachable, match="no trust"):
                source_on(url).facts()
            assert not any(source_on(url, authority=certificate).facts().counts.values())


class TestRestores:
    def test_who_speaks_by_alias_notices_nothing(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        changed(server)
        staged = source_on(server.url).staging("tag", tmp_path / "staging")
        with queried(server, ALIAS) as seen:
            staged.fill(artifacts)
            staged.activate()
            staged.settle(None)
        assert set(seen) == {POINTS - 500, POINTS}

    @pytest.mark.parametrize("at_the_end", [False, True], ids=["midway", "last-byte"])
    @pytest.mark.parametrize("step", ["fill", "activate"])
    def test_a_restore_that_fails_half_way_disturbs_nobody(
        self,
        server: QdrantServer,
        artifacts: list[Artifact],
        tmp_path: Path,
        *,
        step: str,
        at_the_end: bool,
    ) -> None:
        before = changed(server)
        rot = BackupDamaged(backup="b", path="p", reason="rotten")
        broken = [*failing(artifacts[:1], rot, at_the_end=at_the_end), *artifacts[1:]]
        staged = source_on(server.url).staging("tag", tmp_path / "staging")
        with queried(server, NAME) as seen:
            if step == "activate":
                staged.fill(artifacts)
                torn = broken[0]
                assert isinstance(torn, Stream)
                staged._backup = replace(staged._backup, snapshots={NAME: [torn]})
                with pytest.raises(BackupDamaged):
                    staged.activate()
            else:
                with pytest.raises(BackupDamaged):
                    staged.fill(broken)
            staged.revert()
        assert set(seen) == {POINTS - 500}
        assert look(server) == before

    def test_an_upload_that_is_cut_is_not_repeated_and_disturbs_nobody(
        self, server: QdrantServer, artifacts: list[Artifact], proxy: Proxy, tmp_path: Path
    ) -> None:
        before = changed(server)
        proxy.cut_upload_after(1_000_000)
        staged = through(proxy).staging("tag", tmp_path / "staging")
        with queried(server, NAME) as seen:
            with pytest.raises(ConnectionLost):
                staged.fill(artifacts)
            staged.revert()
        assert set(seen) == {POINTS - 500}
        assert look(server) == before

    def test_other_bytes_than_were_backed_up_are_refused(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        before = changed(server)
        snapshot = artifacts[0]
        wrong = [replace(snapshot, labels={**snapshot.labels, "sha256": "0" * 64}), *artifacts[1:]]
        staged = source_on(server.url).staging("tag", tmp_path / "staging")
        with pytest.raises(ServerFailed, match="mismatch"):
            staged.fill(wrong)
        staged.revert()
        assert look(server) == before

    def test_a_snapshot_that_the_server_cannot_read_is_refused(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        before = changed(server)
        snapshot = artifacts[0]
        data = bytes(read_artifact(snapshot))  # type: ignore[call-overload]
        newer = rewritten(snapshot, data.replace(b'"distance":"Dot"', b'"distance":"New"'))
        staged = source_on(server.url).staging("tag", tmp_path / "staging")
        with pytest.raises((ServerFailed, TargetUnfit)):
            staged.fill([newer, *artifacts[1:]])
        staged.revert()
        assert look(server) == before
        truncated = rewritten(snapshot, data[: len(data) // 2])
        staged = source_on(server.url).staging("tag", tmp_path / "staging")
        with pytest.raises((ServerFailed, TargetUnfit)):
            staged.fill([truncated, *artifacts[1:]])
        staged.revert()
        assert look(server) == before

    def test_a_server_that_is_killed_in_the_switch_is_put_back(
        self,
        server: QdrantServer,
        artifacts: list[Artifact],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        before = changed(server)
        staged = source_on(server.url).staging("tag", tmp_path / "staging")
        staged.fill(artifacts)
        with monkeypatch.context() as patched:
            patched.setattr(Qdrant, "upload", killing(server, Qdrant.upload))
            with pytest.raises((ConnectionLost, ServerUnreachable)):
                staged.activate()
        with pytest.raises(ServerUnreachable):
            staged.revert()
        assert server.start()
        staged.revert()
        assert look(server) == before

    def test_a_collection_that_is_configured_otherwise_now_is_replaced(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        backed_up = server.client.everything()
        server.client.drop(NAME)
        server.client.create(NAME, vectors={"size": 4, "distance": "Cosine"}, shard_number=2)
        server.client.upsert(NAME, [{"id": 1, "vector": vector(4, 1)}])
        server.client.create("newer")
        server.client.alias(ALIAS, "newer")
        before = look(server)
        for end in ("revert", "settle"):
            staged = source_on(server.url).staging("tag", tmp_path / "staging")
            staged.fill(artifacts)
            staged.activate()
            if end == "revert":
                staged.revert()
                assert look(server) == before
            else:
                assert staged.settle(tmp_path / "attic") == str(tmp_path / "attic")
        server.client.drop("newer")  # it is not in the backup, so it stayed
        assert server.client.everything() == backed_up
        assert len(list((tmp_path / "attic").iterdir())) == 1

    def test_names_that_mean_something_else_now_are_refused(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        client = server.client
        client.drop(NAME)
        client.create(ALIAS)
        with pytest.raises(TargetUnfit, match="live is a collection"):
            source_on(server.url).staging("tag", tmp_path / "one").fill(artifacts)
        client.alias(NAME, ALIAS)
        client.create("elsewhere")
        with pytest.raises(TargetUnfit, match="memories is an alias"):
            source_on(server.url).staging("tag", tmp_path / "two").fill(artifacts)

    def test_what_is_no_backup_of_qdrant_is_refused(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        source = source_on(server.url)
        snapshot, _collections, aliases = artifacts
        for wrong in (
            [rewritten(snapshot, b"no archive at all")],
            [rewritten(aliases, b"no document")],
        ):
            assert source.inspect(wrong, tmp_path).problems
            staged = source.staging("tag", tmp_path / "staging")
            with pytest.raises((TargetUnfit, ServerFailed)):
                staged.fill(wrong)
            staged.revert()
        assert source.inspect([aliases], tmp_path).problems

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
    def test_a_full_disk_of_the_server_changes_nothing(
        self, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        with qdrant_server(megabytes=150) as small:
            small.client.create(NAME, vectors={"size": 128, "distance": "Dot"})
            fill(small.client, range(1000))
            before = small.client.everything()
            with small.filled():
                with pytest.raises(ServerFailed), source_on(small.url).freeze(tmp_path):
                    pytest.fail("it was frozen")
                staged = source_on(small.url).staging("tag", tmp_path / "staging")
                with pytest.raises((ServerFailed, ConnectionLost)):
                    staged.fill(artifacts)
                assert small.client.everything() == before
            staged.revert()
            assert small.client.everything() == before
            assert litter(small) == {f"collection {NAME}"}


class TestTwins:
    def test_a_twin_beside_the_live_collections_leaves_nothing(
        self, server: QdrantServer, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        before = look(server)
        source = source_on(server.url, server=tmp_path / "none")
        with source.scratch(tmp_path) as twin:
            assert not any(twin.facts().counts.values())
            staged = twin.staging("tag", tmp_path / "staging")
            staged.fill(artifacts)
            staged.activate()
            staged.settle(None)
            assert twin.facts() == source.facts()
            assert server.client.content(NAME) == before[0][0][NAME]  # type: ignore[index]
        assert look(server) == before

    def test_a_twin_of_a_process_that_died_is_removed_by_the_next(
        self, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = look(server)
        source = source_on(server.url, server=tmp_path / "none")
        with source.scratch(tmp_path) as twin:
            left = f"{NAME}{twin.names.suffix}"  # type: ignore[attr-defined]
        server.client.create(left)
        with source.scratch(tmp_path):
            assert left in server.client.names()  # its process lives
        server.client.create(left)
        dead(monkeypatch)
        with source.scratch(tmp_path):
            assert left not in server.client.names()
        assert look(server) == before

    def test_a_server_of_its_own_ends_with_us(self, server: QdrantServer, tmp_path: Path) -> None:
        source = source_on(server.url, server=program())
        with source.scratch(tmp_path) as twin:
            assert twin.where != source.where
            assert twin.probe().reachable
        assert not twin.probe().reachable

    def test_a_program_that_does_not_start_is_no_twin(
        self, server: QdrantServer, tmp_path: Path
    ) -> None:
        broken = tmp_path / "qdrant"
        broken.write_text("#!/bin/sh\necho 'cannot start'\nexit 1\n")
        broken.chmod(0o755)
        source = source_on(server.url, server=broken)
        with pytest.raises(NoScratch, match="cannot start"), source.scratch(tmp_path):
            pytest.fail("there is a twin")


def killing(server: QdrantServer, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a call during which the server dies: it has got the request, and not answered."""

    def call(*arguments: Any, **named: Any) -> Any:
        server.freeze(on=True)
        threading.Timer(0.2, server.kill).start()
        return original(*arguments, **named)

    return call


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server say that it was started a while after what went before: it counts seconds."""
    original = Qdrant.started
    monkeypatch.setattr(Qdrant, "started", lambda self: original(self) + timedelta(seconds=3))


def dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what this process did before be taken for the doing of one that died."""
    monkeypatch.setattr(_qdrant_taking, "_start_of", lambda _process: time.monotonic_ns())


def rewritten(artifact: Artifact, data: bytes) -> Stream:
    @contextmanager
    def opened() -> Iterator[Iterator[bytes]]:
        yield iter([data])

    assert isinstance(artifact, Stream)
    labels = {name: value for name, value in artifact.labels.items() if name != "sha256"}
    return replace(artifact, open=opened, labels=labels, path=None)
