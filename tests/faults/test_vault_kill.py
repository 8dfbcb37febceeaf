"""kill -9 before every change of the file system: a backup is whole or is not there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.model.marks import Marks
from holdfast.ports import Store, Vault
from holdfast.stores.local import LocalStore
from holdfast.testing._entries import in_chunks
from holdfast.testing.crashes import every_crash
from holdfast.testing.export_contract import exported
from holdfast.testing.faults import Calls, StoreWithoutRenames
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.plain import PlainVault
from tests.vault_world import (
    EARLIER,
    LATER,
    LAYOUTS,
    all_whole,
    assert_no_strangers,
    keep,
    keep_earlier,
    keep_two,
    make_vault,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
STORES: dict[str, Callable[[Path], Store]] = {
    "local": LocalStore,
    "without-renames": lambda folder: StoreWithoutRenames(LocalStore(folder), Calls()),
}


class Trial:
    """A vault that is made anew for each kill."""

    def __init__(self, folder: Path, store_kind: str, layout: str) -> None:
        self.folder = folder / "vault"
        self._store_kind = store_kind
        self._layout = layout

    @property
    def store(self) -> Store:
        return STORES[self._store_kind](self.folder)

    @property
    def vault(self) -> PlainVault:
        return make_vault(self.store, self._layout)

    def again(self, prepare: Callable[[Vault], object]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        prepare(self.vault)


@pytest.fixture(params=STORES)
def store_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=LAYOUTS)
def trial(request: pytest.FixtureRequest, in_memory: Path, store_kind: str) -> Trial:
    return Trial(in_memory, store_kind, str(request.param))


def look(trial: Trial, allowed: list[set[str]]) -> set[str]:
    """See that what is there is allowed, whole, and stays so when it is swept; return it."""
    before = all_whole(trial.vault)
    assert before in allowed
    trial.vault.sweep()
    assert all_whole(trial.vault) == before
    assert trial.vault.sweep() == []
    assert_no_strangers(trial.vault, trial.store)
    return before


def test_killed_while_a_backup_is_made(trial: Trial) -> None:
    trial.again(keep_earlier)
    seen = []
    for _step in every_crash(lambda: keep(trial.vault)):
        seen.append(look(trial, [{EARLIER}, {EARLIER, LATER}]))
        if LATER not in seen[-1]:
            keep(trial.vault)
            assert all_whole(trial.vault) == {EARLIER, LATER}
        trial.again(keep_earlier)
    assert len(seen) > 10
    assert seen[0] == {EARLIER}
    assert seen[-1] == {EARLIER, LATER}
    assert seen == sorted(seen, key=len), "a backup that existed must not vanish again"


def test_killed_while_a_backup_is_deleted(trial: Trial) -> None:
    trial.again(keep_two)
    seen = []
    for _step in every_crash(lambda: trial.vault.delete(EARLIER)):
        seen.append(look(trial, [{EARLIER, LATER}, {LATER}]))
        if EARLIER in seen[-1]:
            trial.vault.delete(EARLIER)
        assert_no_strangers(trial.vault, trial.store)
        trial.again(keep_two)
    assert len(seen) > 3
    assert seen[-1] == {LATER}
    assert seen == sorted(seen, key=len, reverse=True), "what was deleted must not come back"


def test_killed_while_an_export_is_taken_in(trial: Trial, request: pytest.FixtureRequest) -> None:
    origin = make_vault(MemoryStore(), "flat" if "flat" in request.node.name else "boxed")
    data = exported(origin, keep(origin))
    trial.again(keep_earlier)
    seen = []
    for _step in every_crash(lambda: trial.vault.take(in_chunks(data))):
        seen.append(look(trial, [{EARLIER}, {EARLIER, LATER}]))
        trial.again(keep_earlier)
    assert seen[-1] == {EARLIER, LATER}


def test_killed_while_sweeping(trial: Trial) -> None:
    """A sweep finishes what a killed sweep began."""

    def leave_rests(vault: Vault) -> None:
        keep_two(vault)
        assert isinstance(trial.store, LocalStore | StoreWithoutRenames)
        trial.store.put(".holdfast/drafts/dead/new/x", iter((b"1",)))
        trial.store.put(".holdfast/trash/gone/x", iter((b"1",)))
        trial.store.put(".holdfast/marks/gone.json", iter((b"1",)))

    trial.again(leave_rests)
    for _step in every_crash(trial.vault.sweep):
        look(trial, [{EARLIER, LATER}])
        trial.again(leave_rests)


def test_killed_while_marking(in_memory: Path) -> None:
    trial = Trial(in_memory, "local", "boxed")
    trial.again(lambda vault: pin(vault, keep(vault).id, "first"))
    seen = []
    for _step in every_crash(lambda: pin(trial.vault, LATER, "second")):
        look(trial, [{LATER}])
        seen.append(trial.vault.marks(LATER).pinned)
        trial.again(lambda vault: pin(vault, keep(vault).id, "first"))
    assert set(seen) == {"first", "second"}


def pin(vault: Vault, backup_id: str, reason: str) -> Marks:
    return vault.mark(backup_id, lambda _marks: Marks(pinned=reason))
