"""The wrappers of the testing kit do what they say, and nothing when they are told nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.errors import NoSpace, VaultUnavailable
from holdfast.model.artifact import Stream
from holdfast.ports import Queryable, Source, Store, Vault
from holdfast.testing._trips import back_up, drain, read_artifact, silent, stored_artifacts
from holdfast.testing.chunks import broken, corrupted, slowed, through_artifact, truncated
from holdfast.testing.crashes import ChildFailedError, every_crash, killed_before
from holdfast.testing.faults import Calls, FaultySource, FaultyStore, FaultyVault
from holdfast.testing.memory import MemoryObjects, MemoryStore
from holdfast.testing.memory_source import MemorySource, World
from holdfast.testing.memory_vault import MemoryVault
from holdfast.testing.source_contract import SourceContract
from holdfast.testing.store_contract import StoreContract
from holdfast.testing.vault_contract import samples


class TestIdleStoreWrapper(StoreContract):
    def make_store(self, folder: Path) -> Store:
        return FaultyStore(MemoryStore(), Calls())


class TestIdleSourceWrapper(SourceContract):
    discoverable = False

    @pytest.fixture(autouse=True)
    def world(self) -> World:
        self._world: World = {}
        return self._world

    def make_source(self, name: str, folder: Path) -> Source:
        return FaultySource(MemorySource(name, folder / "ledger", self._world), Calls())

    def create(self, source: Source) -> None:
        inner(source).content = {"first": b"1" * 300, "second": b""}

    def change(self, source: Source) -> None:
        inner(source).content = {"first": b"1"}

    def content(self, source: Source) -> object:
        return inner(source).content

    def guided_content(self, source: Source, target: Path) -> object:
        return {path.name: path.read_bytes() for path in (target / "values").iterdir()}

    def make_vault(self, folder: Path) -> Vault:
        return FaultyVault(MemoryVault(), Calls())


def inner(source: Source) -> MemorySource:
    assert isinstance(source, FaultySource)
    assert isinstance(source.source, MemorySource)
    return source.source


def test_wrappers_take_over_what_the_class_says() -> None:
    assert not FaultyStore(MemoryObjects(), Calls()).renames
    assert FaultyStore(MemoryStore(), Calls()).renames
    source = FaultySource(MemorySource("n", Path("p"), {}), Calls())
    assert (source.kind, source.role) == (MemorySource.kind, MemorySource.role)
    assert not isinstance(source, Queryable)


def test_calls_are_counted_and_one_of_them_fails() -> None:
    calls = Calls(fail_at=2, error=lambda: NoSpace(path="x"), only=["put"])
    store = FaultyStore(MemoryStore(), calls)
    store.put("a", iter((b"1",)))
    store.read("a")
    with pytest.raises(NoSpace):
        store.put("b", iter((b"1",)))
    store.put("c", iter((b"1",)))
    assert sorted(store.names()) == ["a", "c"]
    assert calls.counts == {"put": 3}


def test_a_call_can_fail_after_it_was_made_and_for_ever() -> None:
    store = FaultyStore(MemoryStore(), Calls(fail_at=1, after=True, for_ever=True))
    for name in ("a", "b"):
        with pytest.raises(VaultUnavailable):
            store.put(name, iter((b"1",)))
    assert isinstance(store.store, MemoryStore)
    assert sorted(store.store.names()) == ["a", "b"]


def test_content_is_spoilt_in_the_ways_that_are_asked_for() -> None:
    data = bytes(range(100))

    def chunks() -> list[bytes]:
        return [data[:30], data[30:31], data[31:]]

    assert drain(corrupted(30)(iter(chunks()))) == data[:30] + bytes([31]) + data[31:]
    for size in (0, 30, 31, 99):
        assert drain(truncated(size)(iter(chunks()))) == data[:size]
    with pytest.raises(EOFError):
        drain(broken(50, EOFError)(iter(chunks())))
    assert drain(slowed(0.001)(iter(chunks()))) == data


def test_spoilt_artifacts_are_noticed_by_a_vault() -> None:
    for artifact in samples():
        spoilt = through_artifact(artifact, corrupted(10))
        assert read_artifact(spoilt) != read_artifact(artifact)
        assert isinstance(spoilt, Stream) == isinstance(artifact, Stream)


def test_a_spoilt_store_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    world: World = {}
    source = MemorySource("ledger", tmp_path / "x", world)
    source.content = {"key": b"value"}
    vault = FaultyVault(MemoryVault(), Calls(), reading=truncated(3))
    manifest = back_up([source], vault, tmp_path)
    assert vault.verify(manifest, silent) == []
    good = [read_artifact(a) for a in stored_artifacts(vault.vault, manifest, "ledger")]
    assert [read_artifact(a) for a in stored_artifacts(vault, manifest, "ledger")] != good


def test_the_killer_kills_before_the_change_it_is_told(tmp_path: Path) -> None:
    def work() -> None:
        for number in range(3):
            (tmp_path / str(number)).mkdir()

    seen = []
    for step in every_crash(work):
        seen.append((step, len(list(tmp_path.iterdir()))))
        for path in tmp_path.iterdir():
            path.rmdir()
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 3)]
    assert not killed_before(99, lambda: None)


def test_work_that_fails_is_not_taken_for_a_kill(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise EOFError(os.getpid())

    with pytest.raises(ChildFailedError):
        killed_before(1, fail)
    assert "EOFError" in capfd.readouterr().err
