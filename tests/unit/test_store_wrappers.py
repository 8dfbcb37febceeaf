"""Stores around stores: limits of the line, and what nobody may delete."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from holdfast.errors import AppendOnly, VaultUnavailable
from holdfast.ports import Adopting
from holdfast.stores.append_only import AppendOnlyStore
from holdfast.stores.limited import BURST, LimitedStore, Tokens
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import drain
from holdfast.testing.faults import Calls, FaultyStore
from holdfast.testing.memory import MemoryObjects, MemoryStore
from holdfast.testing.store_contract import StoreContract
from holdfast.vaults.plain import PlainVault
from tests.vault_world import all_whole, keep, make_vault

FAST = 1e12  # bytes a second


class TestLimitedStore(StoreContract):
    def make_store(self, folder: Path) -> LimitedStore:
        return LimitedStore(LocalStore(folder), Tokens(FAST), Tokens(FAST))


class TestLimitedObjects(StoreContract):
    def make_store(self, folder: Path) -> LimitedStore:
        return LimitedStore(MemoryObjects(), None, None)


class TestAppendOnlyStoreWhereEverythingPasses(StoreContract):
    def make_store(self, folder: Path) -> AppendOnlyStore:
        class Anything(frozenset[str]):
            def __contains__(self, _name: object) -> bool:
                return True

        store = AppendOnlyStore(LocalStore(folder), (), "here")
        store._passing = Anything()
        return store


class World:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds

    def tokens(self, rate: float) -> Tokens:
        return Tokens(rate, clock=self.clock, sleep=self.sleep)


def test_bytes_go_no_faster_than_allowed() -> None:
    world = World()
    store = LimitedStore(MemoryStore(), world.tokens(1000), world.tokens(500))
    store.put("value", (bytes(100) for _piece in range(50)))
    assert world.now == pytest.approx(5000 / 1000 - BURST)
    world.now = 100.0
    with store.get("value") as chunks:
        drain(chunks)
    assert world.now == pytest.approx(100 + 5000 / 500 - BURST)
    world.now = 200.0
    store.read("value")
    store.part("value", 0, 1000)
    assert world.now == pytest.approx(200 + 6000 / 500 - BURST)
    store.replace("value", bytes(3000))
    assert world.now == pytest.approx(200 + 6000 / 500 - BURST + 3000 / 1000 - BURST)


def test_what_was_not_used_is_kept_for_a_moment_only() -> None:
    world = World()
    tokens = world.tokens(100)
    world.now = 1e6
    tokens.take(int(100 * BURST))
    assert world.now == 1e6
    tokens.take(100)
    assert world.now == 1e6 + 1


def test_threads_share_one_rate() -> None:
    """Each waits for what all of them owe: none gets ahead by asking beside the others."""
    waited: list[float] = []
    tokens = Tokens(1000, clock=lambda: 0.0, sleep=waited.append)
    threads = [threading.Thread(target=tokens.take, args=(100,)) for _number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(waited) == pytest.approx(2000 / 1000 - BURST)


def test_wrappers_take_over_what_the_store_can(tmp_path: Path) -> None:
    assert LimitedStore(MemoryStore(), None, None).renames
    assert not LimitedStore(MemoryObjects(), None, None).renames
    file = tmp_path / "file"
    file.write_text("1")
    store = LimitedStore(LocalStore(tmp_path / "store"), Tokens(1), None)
    assert isinstance(store, Adopting)
    assert store.adopt("value", file)
    assert not LimitedStore(MemoryStore(), None, None).adopt("value", file)


@pytest.mark.parametrize("inner", [MemoryStore, MemoryObjects])
def test_an_append_only_store_keeps_everything_but_what_passes(inner: type[MemoryStore]) -> None:
    store = AppendOnlyStore(inner(), ("locks",), "s3://bucket")
    for name in ("data/one", "config", "locks/mine"):
        store.put(name, iter((b"1",)))
    for name in ("data/one", "data", "config"):
        with pytest.raises(AppendOnly, match=f"s3://bucket is append-only: {name} "):
            store.delete(name)
    with pytest.raises(AppendOnly):
        store.replace("config", b"2")
    store.delete("nothing")
    store.delete("data/nothing")
    store.delete("locks/mine")
    store.replace("locks/other", b"1")
    store.replace("locks/other", b"2")
    store.replace("new", b"1")
    assert sorted(store.names()) == ["config", "data/one", "locks/other", "new"]
    assert store.read("config") == b"1"


def test_in_an_append_only_store_a_draft_becomes_a_value_and_none_becomes_a_draft() -> None:
    store = AppendOnlyStore(MemoryStore(), (".holdfast",), "here")
    store.put(".holdfast/drafts/a/one", iter((b"1",)))
    store.rename(".holdfast/drafts/a", "a")
    for old, new in (("a", ".holdfast/trash/a"), ("a/one", "b")):
        with pytest.raises(AppendOnly):
            store.rename(old, new)
    with pytest.raises(FileNotFoundError):
        store.rename("nothing", "b")
    assert list(store.names()) == ["a/one"]


def test_a_backup_that_failed_where_nothing_may_go_keeps_nobody_from_the_next() -> None:
    store = AppendOnlyStore(MemoryObjects(), PlainVault.passing, "here")
    vault = make_vault(store, "boxed")
    assert isinstance(vault._store, AppendOnlyStore)
    failing = FaultyStore(store, Calls(fail_at=4, only=["put"], for_ever=True))
    with pytest.raises(VaultUnavailable):
        keep(make_vault(failing, "boxed"))
    left = [name for name in store.names() if not name.startswith(".holdfast/")]
    assert left
    [line] = vault.sweep()
    assert "stays: the vault at here is append-only" in line
    kept = keep(vault)
    assert all_whole(vault) == {kept.id}
    with pytest.raises(AppendOnly):
        vault.delete(kept.id)
    assert all_whole(vault) == {kept.id}
