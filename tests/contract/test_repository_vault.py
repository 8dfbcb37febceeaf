"""The repository vault keeps the promises of vaults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.model.manifest import Form, Stored
from holdfast.ports import Vault
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import silent
from holdfast.testing.vault_contract import VaultContract, keep
from holdfast.vaults.repository import gear
from holdfast.vaults.repository.blobs import Kind
from holdfast.vaults.repository.index import Place
from holdfast.vaults.repository.options import RepositoryOptions
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.snapshots import Snapshot, snapshots
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.vaults.repository.walk import find, walk

PASSWORD = "a password of tests"


def make_vault(folder: Path) -> RepositoryVault:
    """Return an empty vault in a folder."""
    options = RepositoryOptions(url=folder, password=PASSWORD)
    vault = RepositoryVault("offsite", LocalStore(folder), options)
    vault.init()
    return vault


class TestRepositoryVault(VaultContract):
    def make_vault(self, folder: Path) -> Vault:
        return make_vault(folder)

    def damage(self, vault: Vault, stored: Stored, change: Callable[[bytes], bytes]) -> None:
        """Change the first blob of an artifact's content where it lies; others stay in place."""
        assert isinstance(vault, RepositoryVault)
        place = first_blob(vault, stored)
        path = vault_path(vault, pack_name(place.pack))
        before = path.read_bytes()
        start, end = place.blob.offset, place.blob.offset + place.blob.length
        changed = change(before[start:end]).ljust(end - start, b"\0")
        path.write_bytes(before[:start] + changed + before[end:])

    def damage_manifest(self, vault: Vault, backup_id: str) -> None:
        assert isinstance(vault, RepositoryVault)
        vault.repository.load_index()
        snapshot = snapshot_of(vault, backup_id)
        node = find(vault.repository, snapshot.tree, "metadata.json")
        assert node is not None
        place = vault.repository.places(Kind.DATA, node.content[0])[0]
        path = vault_path(vault, pack_name(place.pack))
        data = bytearray(path.read_bytes())
        data[place.blob.offset + 20] ^= 4
        path.write_bytes(data)
        vault._opened = None  # what another process finds; this one remembers what it read

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
        path = vault_path(vault, pack_name(place.pack))
        data = path.read_bytes()
        path.write_bytes(data[: place.blob.offset + place.blob.length - 1])
        assert vault.verify(manifest, silent, artifacts=False) != []
        path.unlink()
        assert vault.verify(manifest, silent, artifacts=False) != []

    def test_bytes_that_were_added_are_found_out(self, vault: Vault) -> None:
        """What stands behind a pack's end is in nobody's way: no wrong byte comes of it."""
        assert isinstance(vault, RepositoryVault)
        manifest = keep(vault)
        path = vault_path(vault, pack_name(first_blob(vault, manifest.artifacts[0]).pack))
        path.write_bytes(path.read_bytes() + b"more")
        assert vault.verify(manifest, silent) == []


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


def vault_path(vault: RepositoryVault, name: str) -> Path:
    """Return where a file of the repository lies."""
    path = vault.repository.store.path(name)
    assert path is not None
    return path


def test_a_slow_machine_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = make_vault(tmp_path / "repository")
    assert vault.notice() == ""
    monkeypatch.setattr(gear, "fastest", lambda: (gear.plain, "the program is not there"))
    assert "more slowly" in vault.notice()
    assert "not there" in vault.notice()
