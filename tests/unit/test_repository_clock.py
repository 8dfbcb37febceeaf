"""Clocks that are off by a day: what is locked stays so, nobody is in the way for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import pytest

from holdfast.errors import RepositoryLocked, RepositoryLockLost
from holdfast.model.artifact import Stream
from holdfast.model.events import Event, StepStarted
from holdfast.model.retention import Keep
from holdfast.testing.memory import MemoryStore
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.testing.vault_contract import keep as keep_artifacts
from holdfast.vaults.repository import holders, locks
from holdfast.vaults.repository.locks import Times, locked
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.verbs.prune import plan_pruning
from holdfast.verbs.select import find, list_backups
from tests.upkeep_world import content, contents, keep, keep_three, new_vault, vault_on

DAY = timedelta(days=1)
A_WHILE = timedelta(minutes=31)  # after which a lock may be stale
HERE = holders._place


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr(locks, "LATE", 0.0)
    return MemoryStore()


@pytest.fixture
def vault(store: MemoryStore) -> RepositoryVault:
    return new_vault(store)


@contextmanager
def elsewhere() -> Iterator[None]:
    """Be another machine for a while: what is locked meanwhile is not ours to judge."""
    with patch.object(holders, "_place", lambda: ("another machine", "its boot", "its numbers")):
        yield


# --- the order of backups ---


@pytest.mark.parametrize("off", [-DAY, DAY], ids=["behind", "ahead"])
def test_the_newest_is_the_one_that_was_made_last(vault: RepositoryVault, off: timedelta) -> None:
    days = [0, 1, 1 + off.days, 2]  # the third was made right after the second
    made = [keep(vault, day, range(number, number + 2)).id for number, day in enumerate(days)]
    assert [one.manifest.id for one in list_backups(vault, "stack").backups] == made
    vault.delete(made.pop())
    assert find([vault], "stack", "latest").manifest.id == made[-1]
    pruning = plan_pruning(list_backups(vault, "stack"), Keep(last=1), "UTC")
    assert [one.manifest.id for one in pruning.doomed] == made[:-1]
    for listed in pruning.doomed:
        vault.delete(listed.manifest.id)
    vault.prune(tolerated=0.0)
    assert list(contents(vault)) == made[-1:]


# --- locks ---


@pytest.mark.parametrize("off", [-DAY, DAY], ids=["behind", "ahead"])
def test_a_lock_of_a_machine_whose_clock_is_off_is_respected(
    vault: RepositoryVault, store: MemoryStore, off: timedelta
) -> None:
    times = Times(now=lambda: datetime.now(UTC) + off)
    with (
        elsewhere(),
        locked(vault_on(store).repository, times=times),
        patch.object(holders, "_place", HERE),
    ):
        with pytest.raises(RepositoryLocked):
            vault.prune()
        keep(vault, 0, range(3))  # which is in nobody's way
        assert vault.sweep() == []
    vault.prune()


@pytest.mark.parametrize("off", [-DAY, timedelta(0), DAY], ids=["behind", "right", "ahead"])
def test_a_lock_that_a_dead_machine_left_ends_on_request(
    vault: RepositoryVault, off: timedelta
) -> None:
    now = datetime.now(UTC)
    with elsewhere():
        locks._store(vault.repository, exclusive=True, now=now + off)
    with pytest.raises(RepositoryLocked):
        vault.prune()
    assert locks.unlock(vault.repository, now + max(off, timedelta(0)) + A_WHILE) != []
    vault.prune()


def test_a_process_that_lives_keeps_its_lock_when_the_clock_is_set(vault: RepositoryVault) -> None:
    with locked(vault.repository, exclusive=True) as held:
        assert locks.unlock(vault.repository, datetime.now(UTC) + DAY) == []
        held.confirm()


def test_a_lock_that_is_replaced_just_now_is_still_held(vault: RepositoryVault) -> None:
    with locked(vault.repository) as held:
        part = vault.repository.store.part

        def replaced(name: str, start: int, length: int) -> bytes:
            vault.repository.store.part = part  # type: ignore[method-assign]
            held._replace()
            return part(name, start, length)

        vault.repository.store.part = replaced  # type: ignore[method-assign]
        held.confirm()
        held.confirm()


# --- what a lock that was removed all the same must not cost ---


def unlocked_by_another(store: MemoryStore) -> None:
    """Remove the locks that a machine takes for old whose clock is a day ahead."""
    repository = vault_on(store).repository
    with patch.object(holders, "_place", HERE):
        assert locks.unlock(repository, datetime.now(UTC) + DAY) != []


def test_a_backup_whose_lock_was_removed_is_not_sealed(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    """A pruner may have come in the meantime, and taken what was stored for left over."""
    kept = keep(vault, 0, range(3))

    def come_between() -> Iterator[bytes]:
        yield b"rows"
        unlocked_by_another(store)
        vault_on(store).prune(tolerated=0.0)

    late = Stream("rows", lambda: nullcontext(come_between()), 0)
    with elsewhere(), pytest.raises(RepositoryLockLost, match="removed"):
        keep_artifacts(vault, INSTANT + DAY, [*samples(content(500), {}), late])
    again = vault_on(store)
    assert contents(again).keys() == {kept.id}
    assert again.check().sound


def test_a_pruner_whose_lock_was_removed_removes_nothing_needed(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    """A backup began in the meantime, which finds stored what was about to go."""
    first, *_others = keep_three(vault)
    vault.delete(first.id)
    before = set(store.names("data"))

    def hear(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "repack":
            unlocked_by_another(store)

    with elsewhere(), pytest.raises(RepositoryLockLost, match="removed"):
        vault.prune(tolerated=0.0, observer=hear)
    assert before <= set(store.names("data"))
    again = keep(vault_on(store), 9, range(8))
    assert again.id in contents(vault_on(store))
    assert vault_on(store).check().sound
