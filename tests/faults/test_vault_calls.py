"""Every call of a store may fail, before it is made or after it: nothing half-made is ever seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import NoSpace
from holdfast.ports import Exporting, Store, Vault
from holdfast.stores.local import LocalStore
from holdfast.testing._entries import in_chunks
from holdfast.testing.export_contract import exported
from holdfast.testing.faults import Calls, FaultyStore, StoreWithoutRenames
from holdfast.testing.memory import MemoryStore
from tests.vault_world import (
    LAYOUTS,
    all_whole,
    assert_no_strangers,
    keep,
    keep_earlier,
    keep_two,
    make_vault,
)

STORES: dict[str, Callable[[Path], Store]] = {
    "local": LocalStore,
    "memory": lambda _folder: MemoryStore(),
    "objects": lambda _folder: StoreWithoutRenames(MemoryStore(), Calls()),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("store_kind", STORES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for-ever"])
class TestEveryCall:
    """``make_store`` is wrapped so that its n-th call fails, for every n there is."""

    def each_failure(
        self,
        in_memory: Path,
        store_kind: str,
        layout: str,
        *,
        work: Callable[[Exporting], object],
        look: Callable[[Vault, Store, bool], None],
        after: bool,
        for_ever: bool,
        prepare: Callable[[Vault], object],
    ) -> None:
        counting = Calls()
        self.trial(in_memory / "0", store_kind, layout, counting, prepare=prepare, work=work)
        assert counting.total > 3
        for number in range(1, counting.total + 1):
            calls = Calls(
                fail_at=number, after=after, for_ever=for_ever, error=lambda: NoSpace(path="x")
            )
            folder = in_memory / str(number)
            store, failed = self.trial(
                folder, store_kind, layout, calls, prepare=prepare, work=work
            )
            look(make_vault(store, layout), store, failed)

    def trial(
        self,
        folder: Path,
        store_kind: str,
        layout: str,
        calls: Calls,
        *,
        prepare: Callable[[Vault], object],
        work: Callable[[Exporting], object],
    ) -> tuple[Store, bool]:
        store = STORES[store_kind](folder)
        prepare(make_vault(store, layout))
        try:
            work(make_vault(FaultyStore(store, calls), layout))
        except NoSpace:
            return store, True
        return store, False

    def test_sealing(
        self, in_memory: Path, store_kind: str, layout: str, *, after: bool, for_ever: bool
    ) -> None:
        def look(vault: Vault, store: Store, failed: bool) -> None:  # noqa: FBT001
            assert all_whole(vault) >= {"backup_20260203_120000"}
            swept = vault.sweep()
            assert failed or not swept
            assert vault.sweep() == []
            assert_no_strangers(vault, store)
            assert keep(vault).id in all_whole(vault)

        self.each_failure(
            in_memory,
            store_kind,
            layout,
            work=keep,
            look=look,
            after=after,
            for_ever=for_ever,
            prepare=keep_earlier,
        )

    def test_deleting(
        self, in_memory: Path, store_kind: str, layout: str, *, after: bool, for_ever: bool
    ) -> None:
        gone = "backup_20260203_120000"

        def look(vault: Vault, store: Store, failed: bool) -> None:  # noqa: FBT001
            left = all_whole(vault)
            assert failed or gone not in left
            vault.sweep()
            assert all_whole(vault) == left
            assert vault.sweep() == []
            assert_no_strangers(vault, store)
            if gone in left:
                vault.delete(gone)
                assert gone not in all_whole(vault)

        self.each_failure(
            in_memory,
            store_kind,
            layout,
            work=lambda vault: vault.delete(gone),
            look=look,
            after=after,
            for_ever=for_ever,
            prepare=keep_two,
        )

    def test_taking_in(
        self, in_memory: Path, store_kind: str, layout: str, *, after: bool, for_ever: bool
    ) -> None:
        origin = make_vault(MemoryStore(), layout)
        data = exported(origin, keep(origin))

        def look(vault: Vault, store: Store, failed: bool) -> None:  # noqa: FBT001
            found = all_whole(vault)
            assert failed or len(found) == 2
            vault.sweep()
            assert vault.sweep() == []
            assert all_whole(vault) == found
            assert_no_strangers(vault, store)

        self.each_failure(
            in_memory,
            store_kind,
            layout,
            work=lambda vault: vault.take(in_chunks(data)),
            look=look,
            after=after,
            for_ever=for_ever,
            prepare=keep_earlier,
        )
