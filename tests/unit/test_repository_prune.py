"""Pruning: what nothing needs goes, what is needed stays, wholly used packs are not touched."""

from __future__ import annotations

from contextlib import suppress

import pytest

from holdfast.errors import (
    AppendOnly,
    RepositoryDamaged,
    RepositoryLocked,
    RepositoryLockLost,
    RetentionHolds,
)
from holdfast.model.events import Event, StepEnded, StepStarted
from holdfast.stores.append_only import AppendOnlyStore
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import locks
from holdfast.vaults.repository.blobs import Kind
from holdfast.vaults.repository.locks import locked
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.prune import prune
from holdfast.vaults.repository.vault import RepositoryVault
from tests.upkeep_world import (
    blobs_twice,
    contents,
    keep,
    keep_three,
    leave_strange_pack,
    new_vault,
    small_packs,
    vault_on,
)


@pytest.fixture(autouse=True)
def _no_wait_for_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LATE", 0.0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def vault(store: MemoryStore) -> RepositoryVault:
    return new_vault(store)


def packs(store: MemoryStore) -> set[str]:
    return set(store.names("data"))


def listed(vault: RepositoryVault) -> set[str]:
    repository = vault.repository.fresh()
    repository.load_index()
    return {pack_name(pack) for pack in repository.index.packs()}


def test_what_no_backup_needs_goes(vault: RepositoryVault, store: MemoryStore) -> None:
    first, _second, _third = keep_three(vault)
    before = contents(vault)
    vault.delete(first.id)
    del before[first.id]
    done = vault.prune(tolerated=0.0)
    assert contents(vault_on(store)) == contents(vault) == before
    assert done.unused > 1200
    assert done.left == 0
    assert done.repacked_packs > 0
    assert done.deleted_packs > 0
    assert packs(store) == listed(vault)
    again = vault.prune(tolerated=0.0)
    assert (again.unused, again.deleted_packs, again.repacked_packs) == (0, 0, 0)
    assert again.used == done.used
    assert again.index_files == 0


def test_wholly_used_packs_are_never_rewritten(vault: RepositoryVault, store: MemoryStore) -> None:
    keep_three(vault)
    before = packs(store)
    assert vault.prune(tolerated=0.0).freed == 0
    assert packs(store) == before
    assert len(list(store.names("index"))) == 1, "small index files are joined"
    third = set(store.names("index"))
    vault.prune(tolerated=0.0)
    assert set(store.names("index")) == third


def test_a_plan_says_what_would_be_done_and_does_nothing(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    strange = leave_strange_pack(vault.repository)
    before = dict(store.held)
    plan = vault.prune(tolerated=0.0, dry_run=True)
    assert store.held == before
    sizes = sum(map(len, (before[name] for name in packs(store))))
    done = vault.prune(tolerated=0.0)
    assert (done.used, done.unused, done.repacked) == (plan.used, plan.unused, plan.repacked)
    assert plan.unlisted == strange.size
    after = sum(size for _name, size in store.sizes("data"))
    assert plan.used < after < sizes
    assert sizes - after == pytest.approx(plan.freed, abs=100 * plan.repacked_packs)


def test_a_share_of_unused_bytes_is_tolerated(vault: RepositoryVault, store: MemoryStore) -> None:
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    plans = {
        share: vault.prune(tolerated=share, dry_run=True) for share in (0.0, 0.02, 0.05, 0.5, 1.0)
    }
    left = [plan.left for plan in plans.values()]
    assert left == sorted(left)
    assert left[0] == 0 < left[-1]
    for share, plan in plans.items():
        assert plan.left <= share * (plan.used + plan.left)
    vault.prune(tolerated=1.0)
    trees = vault.repository.fresh()
    trees.load_index()
    kept = {place.pack for place in trees.index.everything() if place.blob.kind is Kind.TREE}
    done = vault.prune(tolerated=1.0, dry_run=True)
    assert kept, "packs of trees are tidy whatever is tolerated"
    assert done.repacked_packs == 0
    assert contents(vault_on(store))


def test_what_is_stored_twice_is_kept_once(vault: RepositoryVault, store: MemoryStore) -> None:
    """Two writers who did not know of each other."""
    with small_packs():
        keep(vault, 1, range(10))
        hidden = {name: store.held.pop(name) for name in list(store.names("index"))}
        snapshots = {name: store.held.pop(name) for name in list(store.names("snapshots"))}
        keep(vault_on(store), 2, range(5, 15))
    store.held |= hidden | snapshots
    before = contents(vault_on(store))
    assert blobs_twice(vault) > 5
    vault.prune(tolerated=0.0)
    assert blobs_twice(vault) == 0
    assert contents(vault_on(store)) == before


def test_nothing_is_removed_where_anything_is_lacking(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    manifests = keep_three(vault)
    vault.delete(manifests[0].id)
    leave_strange_pack(vault.repository)
    whole = dict(store.held)
    for name in [name for name in whole if name.startswith(("data", "index", "snapshots"))]:
        for change in (lambda _data: None, lambda data: data[:-1], lambda data: data[:30]):
            store.held = dict(whole)
            changed = change(whole[name])
            if changed is None:
                del store.held[name]
            else:
                store.held[name] = changed
            before = set(store.held)
            with suppress(RepositoryDamaged):
                vault_on(store).prune(tolerated=0.0)
                contents(vault_on(store))
                continue
            assert before <= set(store.held), (name, "nothing is removed")


def test_the_snapshot_that_lacks_something_is_named(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    keep(vault, 1, range(5))
    [snapshot] = store.names("snapshots")
    del store.held[min(packs(store))]
    with pytest.raises(RepositoryDamaged, match=f"{snapshot}: it needs the .* blob .*; nothing"):
        vault.prune()


def test_a_damaged_blob_that_is_to_be_moved_stops_it(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    whole = dict(store.held)
    stopped = 0
    for name in packs(store):
        store.held = dict(whole)
        store.held[name] = bytes([whole[name][0] ^ 1]) + whole[name][1:]
        before = set(store.held)
        try:
            vault_on(store, cache=False).prune(tolerated=0.0)
        except RepositoryDamaged:
            stopped += 1
            assert before <= set(store.held), "nothing is removed"
    assert stopped > 1


def test_an_append_only_vault_is_refused(store: MemoryStore) -> None:
    new_vault(store)
    keep_three(vault_on(store))
    closed = AppendOnlyStore(store, RepositoryVault.passing, "there")
    with pytest.raises(AppendOnly):
        vault_on(closed, append_only=True).prune()
    assert vault_on(closed, append_only=True).prune(dry_run=True).snapshots == 3
    leave_strange_pack(vault_on(store).repository)
    before = contents(vault_on(store))
    with pytest.raises(AppendOnly):
        vault_on(closed).prune()
    assert contents(vault_on(store)) == before


class Retaining(MemoryStore):
    """A bucket whose object lock keeps what a test says."""

    holds = ""

    def delete(self, name: str) -> None:
        if self.holds and name.startswith(self.holds):
            raise RetentionHolds(path=name, until="2027-01-01")
        super().delete(name)


def test_packs_under_object_lock_stay_a_while() -> None:
    store = Retaining()
    vault = new_vault(store)
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    before = contents(vault)
    store.holds = "data"
    held = vault.prune(tolerated=0.0).held
    assert held
    assert all(name in store.held for name in held)
    assert contents(vault_on(store)) == before
    again = vault.prune(tolerated=0.0)
    assert again.unlisted_packs == len(held)
    assert again.repacked_packs == 0
    store.holds = ""
    assert vault.prune().held == []
    assert not set(held) & packs(store)


def test_an_index_file_under_object_lock_stops_it() -> None:
    store = Retaining()
    vault = new_vault(store)
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    before = contents(vault)
    store.holds = "index"
    sizes = []
    for _run in range(3):
        with pytest.raises(RetentionHolds):
            vault.prune(tolerated=0.0)
        assert contents(vault_on(store)) == before
        sizes.append(len(packs(store)))
    assert sizes[1] == sizes[2], "it does not grow with each try"
    store.holds = ""
    vault.prune(tolerated=0.0)
    assert packs(store) == listed(vault)
    assert blobs_twice(vault) == 0


def test_it_is_told_when_others_have_the_repository(vault: RepositoryVault) -> None:
    keep_three(vault)
    with locked(vault.repository), pytest.raises(RepositoryLocked):
        vault.prune()
    with locked(vault.repository):
        assert vault.prune(dry_run=True).snapshots == 3


def test_a_lock_that_is_lost_ends_it_before_anything_goes(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    before = set(store.held)

    def lost() -> None:
        raise RepositoryLockLost(where="here", reason="a test")

    with pytest.raises(RepositoryLockLost):
        prune(vault.repository, still_ours=lost)
    assert set(store.held) == before


def test_a_backup_that_comes_in_spite_of_the_lock_is_not_harmed(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    """Somebody broke the lock, or a listing was late."""
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    kept = []

    def come(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "repack":
            kept.append(keep(vault_on(store), 9, range(8)))

    with pytest.raises(RepositoryLockLost):
        prune(vault.repository, tolerated=0.0, observer=come)
    assert kept[0].id in contents(vault_on(store))


def test_progress_is_told(vault: RepositoryVault) -> None:
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    heard: list[Event] = []
    vault.prune(tolerated=0.0, observer=heard.append)
    begun = [event.step for event in heard if isinstance(event, StepStarted)]
    assert begun == [event.step for event in heard if isinstance(event, StepEnded)]
    assert begun == [
        "index",
        "packs",
        "snapshots",
        "unlisted",
        "repack",
        "index",
        "index",
        "delete",
    ]


def test_an_empty_repository_is_pruned(vault: RepositoryVault, store: MemoryStore) -> None:
    assert vault.prune().snapshots == 0
    keep(vault, 1, range(3))
    vault.delete(next(iter(contents(vault))))
    done = vault.prune()
    assert done.used == 0
    assert packs(store) == set()
    assert set(store.names("index")) == set()
