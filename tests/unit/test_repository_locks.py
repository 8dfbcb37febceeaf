"""Locks: who may work at the same time, who is told to wait, and who is known to be gone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from holdfast.errors import (
    NoSpace,
    RepositoryDamaged,
    RepositoryLocked,
    RepositoryLockLost,
    VaultUnavailable,
)
from holdfast.model.artifact import Chunks
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import holders, keys, locks, opening
from holdfast.vaults.repository.locks import Times, is_dead, is_stale, locked, unlock
from holdfast.vaults.repository.repository import Repository
from tests.restic_world import CHEAP, NOW

DAY = timedelta(days=1)
HOST = holders.this_holder().host


class Clock:
    """A time that goes on only when it is told to; sleeping is waiting for it."""

    def __init__(self) -> None:
        self.at = 0.0
        self.slept: list[float] = []

    def times(self, refreshed: float = 3600.0) -> Times:
        return Times(
            lambda: NOW + timedelta(seconds=self.at), lambda: self.at, self.sleep, refreshed
        )

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setattr(keys, "OURS", CHEAP)
    return opening.init_repository(MemoryStore(), "memory", "pw", NOW)


def names(repository: Repository) -> list[str]:
    return repository.names("locks")


def left(repository: Repository, *, exclusive: object, **changes: object) -> str:
    """Leave a lock as somebody else's: restic's where it has no evidence."""
    document = json.loads(locks.encode_lock(exclusive=False, now=NOW))
    if isinstance(evidence := changes.get("holdfast"), dict):
        changes["holdfast"] = document["holdfast"] | evidence
    document |= changes | {"exclusive": exclusive}
    kept = {name: value for name, value in document.items() if value is not None}
    return repository.save("locks", json.dumps(kept).encode())


def ended_process() -> tuple[int, dict[str, object]]:
    """Return the number of a process that is over, and what its lock would say of it."""
    program = (
        "from holdfast.vaults.repository.holders import this_holder as t; import json;"
        "h = t(); print(json.dumps([h.pid, h.evidence()]))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    pid, evidence = json.loads(said)
    return pid, evidence


# --- together and alone --------------------------------------------------------------------------


def test_many_share_and_one_excludes(repository: Repository, clock: Clock) -> None:
    times = clock.times()
    with locked(repository, times=times), locked(repository, times=times):
        assert len(names(repository)) == 2
        with pytest.raises(RepositoryLocked), locked(repository, exclusive=True, times=times):
            pass
        assert len(names(repository)) == 2
    assert names(repository) == []
    with locked(repository, exclusive=True, times=times):
        for exclusive in (True, False):
            refused = pytest.raises(RepositoryLocked, match="exclusively")
            with refused as raised, locked(repository, exclusive=exclusive, times=times):
                pass
            assert raised.value.exit_status == 11
    assert names(repository) == []


def test_of_two_that_come_at_once_at_most_one_excludes(
    repository: Repository, clock: Clock
) -> None:
    """The other's lock is stored between our look and our own: we see it when we look again."""
    store = repository.store
    assert isinstance(store, MemoryStore)
    put = store.put
    came: list[str] = []

    def put_second(name: str, chunks: Chunks) -> int:
        if not came:
            came.append("")
            came[0] = left(repository, exclusive=False, hostname="elsewhere", holdfast=None)
        return put(name, chunks)

    store.put = put_second  # type: ignore[method-assign]
    with pytest.raises(RepositoryLocked), locked(repository, exclusive=True, times=clock.times()):
        pass
    assert names(repository) == came


def test_a_distant_store_is_given_time_to_list(repository: Repository, clock: Clock) -> None:
    with locked(repository, times=clock.times()):
        assert clock.slept == [locks.LATE]


def test_patience_waits_for_others_to_end(repository: Repository, clock: Clock) -> None:
    name = left(repository, exclusive=True, hostname="elsewhere", holdfast=None)
    times = clock.times()

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.at > 5:
            repository.store.delete(f"locks/{name}")

    with locked(repository, patience=60, times=replace(times, sleep=sleep)):
        assert clock.at < 10
    left(repository, exclusive=True, hostname="elsewhere", holdfast=None)
    with pytest.raises(RepositoryLocked), locked(repository, patience=60, times=times):
        pass
    assert clock.at > 60


def test_a_lock_that_is_replaced_while_we_look_is_not_missed(repository: Repository) -> None:
    name = left(repository, exclusive=False, hostname="elsewhere", holdfast=None)
    load: Callable[..., bytes] = repository.load

    def replaced(folder: str, wanted: str, limit: int) -> bytes:
        if wanted == name in names(repository):
            left(repository, exclusive=False, hostname="elsewhere", holdfast=None, pid=7)
            repository.store.delete(f"locks/{name}")
        return load(folder, wanted, limit)

    repository.load = replaced  # type: ignore[method-assign,assignment]
    assert [lock.holder.pid for lock in locks.locks(repository)] == [7]


# --- who is gone ---------------------------------------------------------------------------------


def test_the_lock_of_a_process_that_ended_is_passed_over(
    repository: Repository, clock: Clock
) -> None:
    pid, evidence = ended_process()
    left(repository, exclusive=True, pid=pid, holdfast=evidence)
    with locked(repository, exclusive=True, times=clock.times()):
        assert len(names(repository)) == 1
    assert names(repository) == []


def test_a_number_that_another_process_has_now_is_no_life(repository: Repository) -> None:
    me = holders.this_holder()
    left(repository, exclusive=True, holdfast=me.evidence() | {"started": me.started - 1})
    with locked(repository):
        pass


REBOOTED = {"boot": "another"}
NAMESAKE = {"boot": "another", "machine": "another of this name"}


@pytest.fixture(autouse=True)
def _known_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the machine an id: containers often have none, and so nothing to prove it by."""
    (tmp_path / "machine-id").write_text("0123456789abcdef\n")
    monkeypatch.setattr(holders, "_MACHINE", tmp_path / "machine-id")
    holders._place.cache_clear()
    yield
    holders._place.cache_clear()


@pytest.mark.parametrize(
    ("changes", "later", "dead", "stale"),
    [
        ({}, timedelta(0), False, False),  # we ourselves
        ({}, DAY, False, False),  # we live, however old the lock: somebody set the clock
        ({"holdfast": REBOOTED}, timedelta(minutes=29), False, False),
        ({"holdfast": REBOOTED}, timedelta(minutes=31), True, True),
        ({"holdfast": REBOOTED, "hostname": "elsewhere"}, DAY, False, True),
        ({"holdfast": NAMESAKE}, DAY, False, True),
        ({"holdfast": None}, DAY, False, True),  # restic's
        ({"holdfast": None, "pid": 2**22 + 5}, timedelta(0), False, True),
        ({"holdfast": None, "hostname": "elsewhere"}, timedelta(0), False, False),
        ({"holdfast": None, "hostname": "elsewhere"}, DAY, False, True),  # its clock, or ours
        ({"holdfast": None, "hostname": "elsewhere"}, -DAY, False, False),
        ({"holdfast": "nonsense"}, timedelta(0), False, False),
        ({"holdfast": {"boot": 7}}, timedelta(0), False, False),
    ],
)
def test_who_is_taken_for_dead_and_who_for_stale(
    repository: Repository, changes: dict[str, object], later: timedelta, *, dead: bool, stale: bool
) -> None:
    left(repository, exclusive=True, **changes)
    (lock,) = locks.locks(repository)
    assert (is_dead(lock, NOW + later), is_stale(lock, NOW + later)) == (dead, stale)


def test_the_first_error_is_the_one_that_is_raised(repository: Repository) -> None:
    store = repository.store
    assert isinstance(store, MemoryStore)

    def away(name: str) -> None:
        raise VaultUnavailable(vault="memory", path=name, reason="away")

    def fail() -> None:
        raise NoSpace(path="disk")

    store.delete = away  # type: ignore[method-assign]
    with pytest.raises(NoSpace), locked(repository):
        fail()
    with pytest.raises(VaultUnavailable), locked(repository):
        pass


@pytest.mark.parametrize("off", [-DAY, DAY])
def test_a_clock_that_is_off_by_a_day_takes_nobody_for_dead(
    repository: Repository, off: timedelta
) -> None:
    left(repository, exclusive=False, holdfast=NAMESAKE)
    times = Times(now=lambda: NOW + off, sleep=lambda _seconds: None)
    with pytest.raises(RepositoryLocked), locked(repository, exclusive=True, times=times):
        pass


def test_stale_locks_are_removed_on_request(repository: Repository) -> None:
    left(repository, exclusive=False, hostname="elsewhere", holdfast=None)
    kept = left(repository, exclusive=False)
    assert unlock(repository, NOW) == []
    repository.store.delete(f"locks/{kept}")
    (removed,) = unlock(repository, NOW + DAY)
    assert "elsewhere" in removed
    left(repository, exclusive=True, hostname="elsewhere", holdfast=None)
    assert len(unlock(repository, NOW, everything=True)) == 1
    assert names(repository) == []


def test_a_lock_that_cannot_be_read_is_in_the_way(repository: Repository) -> None:
    repository.store.put("locks/" + "ab" * 32, iter((b"x" * 100,)))
    with pytest.raises(RepositoryDamaged, match="locks/abab"), locked(repository):
        pass
    with pytest.raises(RepositoryDamaged, match="locks/abab"):
        unlock(repository, NOW)
    assert len(unlock(repository, NOW, everything=True)) == 1
    with locked(repository):
        pass


def test_empty_lock_files_are_nobodys(repository: Repository) -> None:
    repository.store.put("locks/" + "ab" * 32, iter(()))
    with locked(repository, exclusive=True):
        pass


@pytest.mark.parametrize(
    "changes",
    [{"hostname": 7}, {"pid": "x"}, {"exclusive": None}, {"exclusive": 1}, {"time": "x"}],
)
def test_what_is_no_lock_is_refused(repository: Repository, changes: dict[str, object]) -> None:
    left(repository, **{"exclusive": False, **changes})
    with pytest.raises(RepositoryDamaged):
        list(locks.locks(repository))


# --- holding on ----------------------------------------------------------------------------------


def test_a_lock_is_replaced_by_younger_ones(repository: Repository) -> None:
    store = repository.store
    assert isinstance(store, MemoryStore)
    seen: list[int] = []
    twice = threading.Event()
    delete = store.delete

    def deleting(name: str) -> None:
        seen.append(len(names(repository)))
        delete(name)
        if len(seen) == 2:
            twice.set()

    store.delete = deleting  # type: ignore[method-assign]
    with locked(repository, times=Times(refreshed=0.001)) as held:
        assert twice.wait(30)
        held.check()
    assert names(repository) == []
    assert seen[:2] == [2, 2], "there was a moment without a lock"


def test_a_lock_that_somebody_removed_is_lost(repository: Repository) -> None:
    lost: list[RepositoryLockLost] = []
    told = threading.Event()

    def tell(error: RepositoryLockLost) -> None:
        lost.append(error)
        told.set()

    with locked(repository, lost=tell, times=Times(refreshed=0.01)) as held:
        while not told.is_set():
            for name in names(repository):
                repository.store.delete(f"locks/{name}")
            told.wait(0.001)
        with pytest.raises(RepositoryLockLost, match="removed"):
            held.check()
    assert len(lost) == 1
    assert lost[0].exit_status == 11
    assert names(repository) == []


def test_a_lock_that_could_not_be_renewed_in_time_is_lost(
    repository: Repository, clock: Clock
) -> None:
    """A machine that slept, or whose store was away: others have taken it for stale by now."""
    with locked(repository, times=clock.times()) as held:
        clock.at += locks.LOST - 1
        held.check()
        clock.at += 2
        with pytest.raises(RepositoryLockLost, match="renewed"):
            held.check()


def test_a_store_that_is_away_for_a_while_costs_no_lock(repository: Repository) -> None:
    store = repository.store
    assert isinstance(store, MemoryStore)
    put = store.put
    failures = [VaultUnavailable(vault="memory", path="locks", reason="away")] * 3
    back = threading.Event()

    def flaky(name: str, chunks: Chunks) -> int:
        if name.startswith("locks/") and failures:
            raise failures.pop()
        size = put(name, chunks)
        back.set()
        return size

    with locked(repository, times=Times(refreshed=0.001)) as held:
        store.put = flaky  # type: ignore[method-assign]
        assert back.wait(30)
        held.check()
    assert names(repository) == []


def test_locks_say_who_holds_them(repository: Repository) -> None:
    with locked(repository, exclusive=True):
        (lock,) = locks.locks(repository)
    assert HOST in str(lock)
    assert str(lock.holder.pid) in str(lock)
    assert datetime.now(UTC).strftime("since %Y-") in str(lock)
