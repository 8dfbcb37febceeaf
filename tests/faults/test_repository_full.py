"""A store that fills up under a repository: a clear error, nothing half, and the next goes on."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from holdfast.errors import NoSpace
from holdfast.model.events import Event
from holdfast.model.manifest import Manifest
from holdfast.ports import Vault
from holdfast.runtime.session import SystemClock
from holdfast.stores.local import LocalStore
from holdfast.testing.crashes import killed_before
from holdfast.testing.memory import MemoryStore
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.testing.vault_contract import keep as keep_artifacts
from holdfast.vaults.plain import PlainOptions, PlainVault
from holdfast.vaults.repository import locks, write
from holdfast.verbs.copy import copy
from holdfast.verbs.select import list_backups
from holdfast.verbs.surroundings import Surroundings
from tests.faults.test_disk_full import small_disk, small_files
from tests.upkeep_world import contents, keep, keep_three, new_vault, small_packs, vault_on

__all__ = ["small_disk", "small_files"]  # fixtures
pytestmark = pytest.mark.timeout(120)
MIB = 1 << 20
FILES = range(40)


@pytest.fixture(autouse=True)
def _listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LATE", 0.0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@contextmanager
def room(store: MemoryStore, size: int) -> Iterator[None]:
    """Let there be room for so many more bytes, and afterwards for everything."""
    store._capacity = sum(map(len, store.held.values())) + size
    try:
        yield
    finally:
        store._capacity = None


def stored(store: MemoryStore) -> int:
    """Return how many bytes of packs there are."""
    return sum(size for _name, size in store.sizes("data"))


def keep_large(vault: Vault, day: int) -> Manifest:
    """Seal a backup of files whose packs are much larger than what lists them."""
    named = {f"{number:02}": random.Random(number).randbytes(20_000) for number in FILES}
    with small_packs(4):
        return keep_artifacts(vault, INSTANT + timedelta(days=day), samples(b"rows", named))


def test_a_backup_that_does_not_fit_is_not_there_and_the_next_goes_on(store: MemoryStore) -> None:
    vault = new_vault(store)
    kept = keep(vault, 0, range(3))
    before, begun = dict(store.held), stored(store)
    keep_large(vault, 1)
    whole = stored(store) - begun
    for size in range(1000, whole, whole // 12):
        store.held = dict(before)
        with pytest.raises(NoSpace), room(store, size):
            keep_large(vault_on(store), 1)
        assert list(vault_on(store).manifests()) == [kept], size
        left = stored(store) - begun
        second = keep_large(vault_on(store), 1)
        again = stored(store) - begun - left
        assert again < whole - left * 0.9 + 20_000, "what was stored is not stored again"
        assert contents(vault_on(store)).keys() == {kept.id, second.id}
        assert vault_on(store).check().sound


def test_a_backup_that_was_killed_is_gone_on_with(in_memory: Path) -> None:
    """By SIGKILL, so that nothing of it was tidied up; its index was saved a while before."""
    store = LocalStore(in_memory / "repository")
    whole_store = LocalStore(in_memory / "whole")
    keep_large(new_vault(whole_store), 1)
    whole = sum(size for _name, size in whole_store.sizes("data"))
    kept = keep(new_vault(store), 0, range(3))
    begun = sum(size for _name, size in store.sizes("data"))

    def back_up() -> None:
        with patch.object(write, "SAVED_EVERY", 0.0), patch.object(write, "UPLOADS", 1):
            keep_large(vault_on(store), 1)

    assert killed_before(60, back_up)
    assert list(vault_on(store).manifests()) == [kept]
    left = sum(size for _name, size in store.sizes("data")) - begun
    assert left > whole // 10, "it was killed in the middle"
    assert left < whole
    second = keep_large(vault_on(store), 1)
    again = sum(size for _name, size in store.sizes("data")) - begun - left
    assert again < whole - left + 100_000, "all but the last packs are reused"
    assert contents(vault_on(store)).keys() == {kept.id, second.id}


def test_a_prune_that_does_not_fit_loses_nothing_and_the_next_goes_on(store: MemoryStore) -> None:
    vault = new_vault(store)
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    before, kept = dict(store.held), contents(vault)
    with small_packs():
        needed = vault_on(store).prune(tolerated=0.0, dry_run=True).repacked
    refused, sizes = 0, range(0, 6 * needed, needed // 3)
    for size in sizes:
        store.held = dict(before)
        with room(store, size), small_packs():
            refused += not fits(lambda: vault_on(store).prune(tolerated=0.0))
        assert contents(vault_on(store)) == kept, size
        with small_packs():
            vault_on(store).prune(tolerated=0.0)
        assert contents(vault_on(store)) == kept, size
        assert vault_on(store).prune(tolerated=0.0).freed == 0
        assert list(store.names("locks")) == []
    assert 3 < refused < len(sizes)


def fits(work: Callable[[], object]) -> bool:
    """Do something; returns whether there was room for it."""
    try:
        work()
    except NoSpace:
        return False
    return True


def test_a_copy_that_does_not_fit_is_not_there_and_the_next_goes_on(
    store: MemoryStore, tmp_path: Path
) -> None:
    origin = new_vault(MemoryStore())
    first, _second = keep(origin, 0, range(3)), keep_large(origin, 1)
    around = Surroundings(SystemClock(), hear, tmp_path)

    def copy_all(target: Vault) -> None:
        with small_packs(4):
            for listed in list_backups(origin, "stack").backups:
                copy(listed, target, [], around)

    new_vault(store)
    before = dict(store.held)
    copy_all(vault_on(store))
    whole = stored(store)
    for size in range(5_000, whole, whole // 8):
        store.held = dict(before)
        with pytest.raises(NoSpace), room(store, size):
            copy_all(vault_on(store))
        there = contents(vault_on(store)).keys()
        assert there <= {first.id}, size
        left = stored(store)
        copy_all(vault_on(store))
        assert contents(vault_on(store)) == contents(origin)
        assert stored(store) - left < whole - left * 0.9 + 20_000


def hear(_event: Event) -> None:
    """Say nothing."""


def test_a_copy_to_a_plain_vault_that_does_not_fit_is_not_there(
    store: MemoryStore, tmp_path: Path
) -> None:
    origin = new_vault(MemoryStore())
    keep_large(origin, 0)
    target = PlainVault("plain", store, PlainOptions(url=tmp_path))
    [listed] = list_backups(origin, "stack").backups
    around = Surroundings(SystemClock(), hear, tmp_path)
    with pytest.raises(NoSpace), room(store, 100_000):
        copy(listed, target, [], around)
    assert list(target.manifests()) == []
    target.sweep()
    assert stored_names(store) == []
    assert copy(listed, target, [], around) is not None
    assert contents(origin) == contents(target)


def stored_names(store: MemoryStore) -> list[str]:
    return [name for name in store.names() if not name.startswith(".holdfast")]


# --- real disks ---


def test_a_limit_on_files_ends_a_backup_and_the_next_goes_on(
    tmp_path: Path, small_files: int
) -> None:
    store = LocalStore(tmp_path / "repository")
    vault = new_vault(store)
    kept = keep(vault, 0, range(3))
    large = samples(random.Random(1).randbytes(3 * small_files), {})
    with pytest.raises(NoSpace):
        keep_artifacts(vault, INSTANT + timedelta(days=1), large)
    assert list(vault_on(store).manifests()) == [kept]
    assert list(store.names("locks")) == []
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, soft))
    second = keep_artifacts(vault_on(store), INSTANT + timedelta(days=1), large)
    assert contents(vault_on(store)).keys() == {kept.id, second.id}


def test_room_can_be_made_on_a_full_disk(small_disk: Path) -> None:
    """Deleting and pruning need little room themselves: what a pack that did not fit leaves."""
    store = LocalStore(small_disk / "repository")
    vault = new_vault(store)
    first = keep_artifacts(vault, INSTANT, samples(random.Random(1).randbytes(MIB), {}))
    kept = keep(vault, 1, range(3))
    large = samples(random.Random(2).randbytes(3 * MIB), {})
    with pytest.raises(NoSpace):
        keep_artifacts(vault, INSTANT + timedelta(days=2), large)
    assert list(vault_on(store).manifests()) == [first, kept]
    vault = vault_on(store)
    vault.delete(first.id)
    vault.prune()
    second = keep_artifacts(vault, INSTANT + timedelta(days=2), large)
    assert contents(vault).keys() == {kept.id, second.id}
    assert vault.check().sound
