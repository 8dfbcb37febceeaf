"""Every store earns the same contract."""

from __future__ import annotations

from pathlib import Path

from holdfast.stores.local import LocalStore
from holdfast.testing.memory import MemoryObjects, MemoryStore
from holdfast.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    def make_store(self, folder: Path) -> MemoryStore:
        return MemoryStore()


class TestMemoryObjects(StoreContract):
    def make_store(self, folder: Path) -> MemoryObjects:
        return MemoryObjects()


class TestLocalStore(StoreContract):
    def make_store(self, folder: Path) -> LocalStore:
        return LocalStore(folder)
