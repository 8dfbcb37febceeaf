"""Checking: what is damaged anywhere is found and named, and shares reach everything in time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from hashlib import sha256
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import RepositoryDamaged, RepositoryLocked, VaultUnavailable
from holdfast.model import upkeep
from holdfast.model.events import Event, Progress, StepStarted
from holdfast.model.marks import Marks
from holdfast.model.upkeep import EVERYTHING, Share, share_at
from holdfast.testing.faults import Calls, FaultyStore
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import check as checking
from holdfast.vaults.repository import keys, locks
from holdfast.vaults.repository.blobs import Kind, blob_id, seal_blob
from holdfast.vaults.repository.check import check
from holdfast.vaults.repository.locks import locked
from holdfast.vaults.repository.packs import finish, pack_name
from holdfast.vaults.repository.passwords import add_key
from holdfast.vaults.repository.vault import RepositoryVault
from tests.restic_world import CHEAP, NOW, put
from tests.upkeep_world import (
    content,
    keep,
    keep_three,
    leave_strange_pack,
    new_vault,
    small_packs,
    vault_on,
)

OTHER = "another password"
FLIPS = 12  # in each file


@pytest.fixture(autouse=True)
def _no_wait_for_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LATE", 0.0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def vault(store: MemoryStore) -> RepositoryVault:
    return new_vault(store)


def found(store: MemoryStore, share: Share | None = EVERYTHING) -> list[str]:
    """Check what another process finds; what cannot even be opened is found, too."""
    try:
        return vault_on(store).check(share=share).problems
    except RepositoryDamaged as error:
        return [str(error)]


def test_a_sound_repository_has_no_problem(vault: RepositoryVault, store: MemoryStore) -> None:
    first, *_others = keep_three(vault)
    done = vault.check()
    assert done.sound
    assert done.hints == []
    assert (done.snapshots, done.packs) == (3, len(list(store.names("data"))))
    assert (done.packs_read, done.bytes_read) == (
        done.packs,
        sum(size for _name, size in store.sizes("data")),
    )
    vault.delete(first.id)
    leave_strange_pack(vault.repository)
    done = vault.check(share=None)
    assert done.sound, "what nothing needs is no problem"
    assert (done.packs_read, len(done.hints)) == (0, 1)
    vault.prune(tolerated=0.0)
    assert vault.check().sound
    assert vault.check().hints == []


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "shorter": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}


def flips(data: bytes, chosen: random.Random) -> Iterator[bytes]:
    for _flip in range(FLIPS):
        at = chosen.randrange(len(data) * 8)
        yield data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]


def test_any_change_of_any_file_is_found(vault: RepositoryVault, store: MemoryStore) -> None:
    with small_packs(5):
        backup = keep(vault, 1, range(10))
    vault.mark(backup.id, lambda _marks: Marks(pinned="a reason"))
    with patch.object(keys, "OURS", CHEAP):
        add_key(vault.repository, OTHER, NOW)
    seed = random.randrange(1 << 32)
    chosen, whole = random.Random(seed), dict(store.held)
    assert found(store) == []
    for name, data in sorted(whole.items()):
        changed = [*flips(data, chosen), *(change(data) for change in CHANGES.values())]
        for spoilt in changed:
            store.held = whole | {name: spoilt}
            assert found(store), (seed, name, spoilt)
        assert len({folder.partition("/")[0] for folder in whole}) == 6


def test_whatever_is_missing_is_found(vault: RepositoryVault, store: MemoryStore) -> None:
    keep(vault, 1, range(4))
    whole = dict(store.held)
    for name in whole:
        if name.startswith(("data", "index")):
            store.held = {other: data for other, data in whole.items() if other != name}
            assert any(name in problem or "index" in problem for problem in found(store)), name


def test_a_damaged_blob_and_the_pack_it_is_in_are_named(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    keep(vault, 1, range(4))
    name = next(store.names("data"))
    store.held[name] = store.held[name][:20] + b"X" + store.held[name][21:]
    problems = found(store)
    assert any(name in problem and "blob" in problem for problem in problems)
    assert any(name in problem and "named for" in problem for problem in problems)


def test_problems_end_nothing(vault: RepositoryVault, store: MemoryStore) -> None:
    """One damaged file of each kind, and each is told."""
    keep_three(vault)
    spoilt = [min(store.names("index")), min(store.names("snapshots")), *store.names("data")]
    for name in spoilt:
        store.held[name] = b"?" * len(store.held[name])
    text = "\n".join(found(store))
    assert all(name in text for name in spoilt[:2])
    assert sum(name in text for name in spoilt[2:]) > 5


def test_a_pack_with_other_blobs_than_the_index_says(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    """Whole and signed, but not what was listed: whoever wrote this had the key."""
    repository = vault.repository
    texts = [b"one of them", b"the other 1"]
    put(repository, Kind.DATA, *texts)
    assert found(store) == []
    sealed = [seal_blob(repository.key, Kind.DATA, blob_id(text), text) for text in texts]
    other = finish(repository.key, sealed[::-1])
    (place,) = repository.places(Kind.DATA, sealed[0].id)
    store.held[pack_name(place.pack)] = b"".join(other.chunks())
    problems = found(store)
    assert any("named for" in problem for problem in problems)
    assert sum("the index does not list" in problem for problem in problems) == 2


def test_a_manifest_that_swears_to_another_artifact(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    keep(vault, 1, range(4))
    with patch.object(checking, "digest_of", lambda _node: sha256(b"other").hexdigest()):
        problems = check(vault.repository).problems
    assert len(problems) == 2
    assert all("not the one of the manifest" in problem for problem in problems)


def test_more_problems_than_can_be_told_are_counted(
    vault: RepositoryVault, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_three(vault)
    for name in list(store.names("data")):
        del store.held[name]
    monkeypatch.setattr(upkeep, "MOST_TOLD", 3)
    done = vault_on(store).check()
    assert (len(done.problems), done.sound) == (3, False)
    assert done.more > 3


def test_a_store_that_cannot_be_read_is_an_error_not_a_problem(store: MemoryStore) -> None:
    keep_three(new_vault(store))
    calls = Calls()
    vault_on(FaultyStore(store, calls)).check()
    for fail_at in range(1, calls.total, 3):
        broken = FaultyStore(store, Calls(fail_at=fail_at, for_ever=True))
        with pytest.raises(VaultUnavailable):
            vault_on(broken).check()


def test_a_pruner_at_work_refuses_it(vault: RepositoryVault) -> None:
    with locked(vault.repository, exclusive=True), pytest.raises(RepositoryLocked):
        vault.check()
    with locked(vault.repository):
        assert vault.check().sound


def test_progress_is_told(vault: RepositoryVault) -> None:
    keep_three(vault)
    heard: list[Event] = []
    done = vault.check(observer=heard.append)
    [begun] = [one for one in heard if isinstance(one, StepStarted) and one.step == "data"]
    told = [one.done for one in heard if isinstance(one, Progress) and one.step == "data"]
    assert begun.total == sum(told) == done.bytes_read


# --- shares ---


@given(st.binary(min_size=32, max_size=32), st.integers(1, 400), st.integers(0, 1 << 20))
def test_every_pack_has_one_turn_in_any_days(pack: bytes, days: int, start: int) -> None:
    turns = [day for day in range(start, start + days) if Share(day, days).has(pack)]
    assert len(turns) == 1


def test_shares_are_even() -> None:
    packs = [sha256(b"%d" % number).digest() for number in range(20_000)]
    sizes = [sum(Share(day, 7).has(pack) for pack in packs) for day in range(7)]
    assert sum(sizes) == 20_000
    assert max(abs(size - 20_000 / 7) for size in sizes) < 5 * (20_000 / 7) ** 0.5


def test_the_day_begins_at_midnight() -> None:
    assert share_at(86_400 * 20_000 - 1, 30) == Share(19_999, 30)
    assert share_at(86_400 * 20_000, 30) == Share(20_000, 30)
    with pytest.raises(ValueError, match="0 days"):
        share_at(0, 0)


def test_damage_is_found_when_its_turn_comes(vault: RepositoryVault, store: MemoryStore) -> None:
    """Packs come and go meanwhile."""
    keep_three(vault)
    vault.repository.load_index()
    [place] = vault.repository.places(Kind.DATA, blob_id(content(0)))
    name = pack_name(place.pack)
    store.held[name] = store.held[name][:40] + b"XX" + store.held[name][42:]
    seen = [day for day in range(10) if _names_it(found(store, Share(day, 5)), name)]
    assert len(seen) == 2
    assert seen[1] - seen[0] == 5
    keep(vault, 9, range(20, 26))
    assert [day for day in range(10) if _names_it(found(store, Share(day, 5)), name)] == seen


def _names_it(problems: list[str], name: str) -> bool:
    return any(name in problem for problem in problems)
