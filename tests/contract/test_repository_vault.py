"""The repository vault keeps the promises of vaults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.model.manifest import Form, Stored
from holdfast.ports import Store, Vault
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import silent
from holdfast.testing.memory import MemoryStore
from holdfast.testing.vault_contract import VaultContract, keep
from holdfast.vaults.repository import gear, locks
from holdfast.vaults.repository.blobs import Kind
from holdfast.vaults.repository.index import Place
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.snapshots import Snapshot, snapshots
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.vaults.repository.walk import find, walk
from tests.upkeep_world import new_vault


def make_vault(folder: Path) -> RepositoryVault:
    """Return an empty vault in a folder."""
    return new_vault(LocalStore(folder))


class RepositoryVaultContract(VaultContract):
    """What repositories promise, on the store that `make_store` gives."""

    @pytest.fixture(autouse=True)
    def _listed_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait for no listing: the stores here have none that lags behind."""
        monkeypatch.setattr(locks, "LATE", 0.0)

    def make_store(self, folder: Path) -> Store:
        raise NotImplementedError

    def make_vault(self, folder: Path) -> Vault:
        return new_vault(self.make_store(folder))

    def damage(self, vault: Vault, stored: Stored, change: Callable[[bytes], bytes]) -> None:
        """Change the first blob of an artifact's content where it lies; others stay in place."""
        assert isinstance(vault, RepositoryVault)
        place = first_blob(vault, stored)
        start, end = place.blob.offset, place.blob.offset + place.blob.length

        def within(pack: bytes) -> bytes:
            return pack[:start] + change(pack[start:end]).ljust(end - start, b"\0") + pack[end:]

        rewrite(vault, place, within)

    def damage_manifest(self, vault: Vault, backup_id: str) -> None:
        assert isinstance(vault, RepositoryVault)
        vault.repository.load_index()
        snapshot = snapshot_of(vault, backup_id)
        node = find(vault.repository, snapshot.tree, "metadata.json")
        assert node is not None
        place = vault.repository.places(Kind.DATA, node.content[0])[0]
        at = place.blob.offset + 20
        rewrite(vault, place, lambda data: data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        vault._opened = None  # what another machine finds; this one remembers what it read
        shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"], "holdfast"), ignore_errors=True)

    def leftovers(self, vault: Vault) -> object:
        """Locks and marks; blobs that nothing needs are the next backup's to find."""
        assert isinstance(vault, RepositoryVault)
        names = vault.repository.store.names()
        return sorted(name for name in names if name.startswith(("locks/", "holdfast/")))

    def test_a_size_that_differs_shows_without_reading(self, vault: Vault) -> None:
        """A pack that is shorter than the index says, or gone, is missed."""
        assert isinstance(vault, RepositoryVault)
        manifest = keep(vault)
        assert vault.verify(manifest, silent, artifacts=False) == []
        place = first_blob(vault, manifest.artifacts[0])
        rewrite(vault, place, lambda data: data[: place.blob.offset + place.blob.length - 1])
        assert vault.verify(manifest, silent, artifacts=False) != []
        vault.repository.store.delete(pack_name(place.pack))
        assert vault.verify(manifest, silent, artifacts=False) != []

    def test_bytes_that_were_added_are_found_out(self, vault: Vault) -> None:
        """What stands behind a pack's end is in nobody's way: no wrong byte comes of it."""
        assert isinstance(vault, RepositoryVault)
        manifest = keep(vault)
        place = first_blob(vault, manifest.artifacts[0])
        rewrite(vault, place, lambda data: data + b"more")
        assert vault.verify(manifest, silent) == []


class TestRepositoryVault(RepositoryVaultContract):
    def make_store(self, folder: Path) -> Store:
        return LocalStore(folder)


class TestRepositoryVaultInMemory(RepositoryVaultContract):
    def make_store(self, folder: Path) -> Store:
        return MemoryStore()


def rewrite(vault: RepositoryVault, place: Place, change: Callable[[bytes], bytes]) -> None:
    """Change the pack that a blob lies in, behind the vault's back."""
    store, name = vault.repository.store, pack_name(place.pack)
    store.replace(name, change(store.read(name)))


def first_blob(vault: RepositoryVault, stored: Stored) -> Place:
    """Return where the first blob of an artifact's content lies."""
    repository = vault.repository
    repository.load_index()
    for found in snapshots(repository):
        assert isinstance(found, Snapshot)
        node = find(repository, found.tree, stored.path)
        assert node is not None
        if stored.form is Form.STREAM:
            return repository.places(Kind.DATA, node.content[0])[0]
        entries = walk(repository, node, lambda _path, _reason: None)
        return next(one.content[0][0] for one in entries if one.content)
    raise AssertionError("there is no backup")


def snapshot_of(vault: RepositoryVault, backup_id: str) -> Snapshot:
    """Return the snapshot of a backup."""
    found = (one for one in snapshots(vault.repository) if isinstance(one, Snapshot))
    return next(one for one in found if f"backup:{backup_id}" in one.tags)


def test_a_slow_machine_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault(tmp_path / "repository")
    assert vault.notice() == ""
    monkeypatch.setattr(gear, "fastest", lambda: (gear.plain, "the program is not there"))
    assert "more slowly" in vault.notice()
    assert "not there" in vault.notice()
