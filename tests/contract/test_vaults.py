"""Every vault earns the same contract: the plain one in each layout, with and without renames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from holdfast.model.manifest import Stored
from holdfast.ports import Store, Vault
from holdfast.stores.local import LocalStore
from holdfast.testing.export_contract import ExportContract
from holdfast.testing.memory import MemoryObjects, MemoryStore
from holdfast.testing.memory_vault import MemoryVault
from holdfast.vaults.plain import PlainOptions, PlainVault


class TestMemoryVault(ExportContract):
    swears_to_the_guide = False

    def make_vault(self, folder: Path) -> MemoryVault:
        return MemoryVault()

    def damage(self, vault: Vault, stored: Stored, change: Callable[[bytes], bytes]) -> None:
        assert isinstance(vault, MemoryVault)
        for box in vault.boxes.values():
            box.artifacts[stored.path] = change(box.artifacts[stored.path])

    def damage_manifest(self, vault: Vault, backup_id: str) -> None:
        assert isinstance(vault, MemoryVault)
        metadata = vault.boxes[backup_id].metadata
        vault.boxes[backup_id].metadata = metadata.replace(b'"host": ""', b'"host": "x"')

    def leftovers(self, vault: Vault) -> object:
        assert isinstance(vault, MemoryVault)
        return len(vault._drafts), len(vault._marks)


class PlainVaultContract(ExportContract):
    layout: ClassVar[str] = "{backup_id}/{artifact}"
    home: ClassVar[str] = ""

    def make_store(self, folder: Path) -> Store:
        return LocalStore(folder)

    def make_vault(self, folder: Path) -> PlainVault:
        options = PlainOptions(url=folder, layout=self.layout)
        return PlainVault("plain", self.make_store(folder), options)

    def damage(self, vault: Vault, stored: Stored, change: Callable[[bytes], bytes]) -> None:
        rewrite(store_of(vault), stored.path, change)

    def damage_manifest(self, vault: Vault, backup_id: str) -> None:
        path = f"{self.home}{backup_id}/metadata.json"
        rewrite(store_of(vault), path, lambda data: data.replace(b'"host": ""', b'"host": "x"'))

    def leftovers(self, vault: Vault) -> object:
        """Return every name in the vault but those of sealed backups."""
        owned = {found.id for found in vault.manifests()}
        return {
            name
            for name in store_of(vault).names()
            if not owned & set(name.split("/")) and not name.startswith(("component", "good"))
        } - {".holdfast/marks.lock"}


def store_of(vault: Vault) -> Store:
    assert isinstance(vault, PlainVault)
    return vault._store


def rewrite(store: Store, name: str, change: Callable[[bytes], bytes]) -> None:
    data = store.read(name)
    assert change(data) != data
    store.replace(name, change(data))


class TestPlainVault(PlainVaultContract):
    pass


class TestFlatPlainVault(PlainVaultContract):
    layout = "{component}/{database}/{stem}_{timestamp}{suffix}"
    home = "manifests/"


class TestFlatPlainVaultNamedByBackup(PlainVaultContract):
    layout = "component-{stack}/{backup_id}.{artifact}"
    home = "manifests/"


class TestPlainVaultInMemory(PlainVaultContract):
    def make_store(self, folder: Path) -> Store:
        return MemoryStore()


class TestPlainVaultWithoutRenames(PlainVaultContract):
    def make_store(self, folder: Path) -> Store:
        return MemoryObjects()


class TestFlatPlainVaultWithoutRenames(TestFlatPlainVault):
    def make_store(self, folder: Path) -> Store:
        return MemoryObjects()
