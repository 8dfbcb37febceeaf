"""kill -9 before every change of the file system while a repository is tidied: nothing is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from holdfast.stores.local import LocalStore
from holdfast.testing.crashes import every_crash
from holdfast.vaults.repository import listing
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.vault import RepositoryVault
from tests.restic_world import restic
from tests.upkeep_world import (
    blobs_twice,
    contents,
    keep,
    leave_strange_pack,
    new_vault,
    small_packs,
    vault_on,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Scene:
    """A repository with two backups and the rests of a third, made anew for each kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self._kept = folder / "kept"
        vault = new_vault(LocalStore(self.folder))
        with small_packs(2):
            first, *_others = (keep(vault, day, range(day, 24, day + 1)) for day in range(3))
        vault.delete(first.id)
        leave_strange_pack(vault.repository)
        self.contents = contents(vault)
        shutil.copytree(self.folder, self._kept)

    def again(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._kept, self.folder)

    @property
    def vault(self) -> RepositoryVault:
        return vault_on(LocalStore(self.folder))


def tidy(vault: RepositoryVault) -> None:
    """Nothing is left that nobody needs, and nothing is there twice."""
    assert blobs_twice(vault) == 0
    repository = vault.repository.fresh()
    repository.load_index()
    assert {pack_name(pack) for pack in repository.index.packs()} == {
        *repository.store.names("data")
    }
    assert vault.prune(tolerated=0.0, dry_run=True).unused == 0
    assert list(repository.store.names("locks")) == []


def test_killed_while_pruning(in_memory: Path) -> None:
    scene = Scene(in_memory)
    steps = 0
    for step in every_crash(lambda: _prune(scene.vault)):
        assert contents(scene.vault) == scene.contents, step
        if step % 25 == 1:
            restic("0.18", scene.folder, "unlock")
            restic("0.18", scene.folder, "check", "--read-data")
        _prune(scene.vault)
        scene.vault.sweep()
        assert contents(scene.vault) == scene.contents, step
        tidy(scene.vault)
        scene.again()
        steps = step
    assert steps > 40


def _prune(vault: RepositoryVault) -> None:
    with small_packs(2), patch.object(listing, "BLOBS_PER_FILE", 9):
        vault.prune(tolerated=0.0)
