"""kill -9 before every change of the file system while a repository is tidied: nothing is lost."""

from __future__ import annotations

import faulthandler
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from holdfast.stores.local import LocalStore
from holdfast.testing.crashes import every_crash
from holdfast.vaults.repository import listing
from holdfast.vaults.repository.blobs import Kind, blob_id
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.vault import RepositoryVault
from tests.restic_world import restic
from tests.upkeep_world import (
    blobs_twice,
    content,
    contents,
    keep,
    leave_strange_pack,
    new_vault,
    small_packs,
    vault_on,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def crashes(work: Callable[[], object], stride: int = 1) -> Iterator[int]:
    """Kill a run at each step, but begin none while a thread of ours is still on its way out.

    What such a thread holds in a library, such as OpenSSL's list of threads, would stay locked in
    the child for ever.
    """

    def watched() -> None:
        faulthandler.dump_traceback_later(60)  # a child that hangs shall say where
        work()

    resting = _threads()
    for step in every_crash(watched, stride=stride):
        yield step
        deadline = time.monotonic() + 10
        while _threads() > resting and time.monotonic() < deadline:
            time.sleep(0.001)


def _threads() -> int:
    """Return how many threads this process has, as the kernel counts them."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - a hot loop


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
    for step in crashes(lambda: _prune(scene.vault)):
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


REPAIRS: dict[str, Callable[[RepositoryVault], object]] = {
    "index": RepositoryVault.repair_index,
    "packs": RepositoryVault.repair_packs,
    "snapshots": lambda vault: vault.repair_snapshots(write=True, forget=True),
}


def _repair(vault: RepositoryVault, name: str) -> None:
    with small_packs(2), patch.object(listing, "BLOBS_PER_FILE", 9):
        REPAIRS[name](vault)


def test_killed_while_the_index_is_repaired(in_memory: Path) -> None:
    scene = Scene(in_memory)
    (gone,) = sorted(scene.folder.glob("index/*"))[:1]
    for step in crashes(lambda: _repair(scene.vault, "index")):
        _repair(scene.vault, "index")
        assert contents(scene.vault) == scene.contents, step
        assert scene.vault.check().problems == []
        scene.again()
        gone.write_bytes(b"damaged")


def test_killed_while_packs_and_snapshots_are_repaired(in_memory: Path) -> None:
    """What was sound before is sound after; what was lost is named each time."""
    scene = Scene(in_memory)
    lost = _spoil(scene)
    for repair in ("packs", "snapshots"):
        for step in crashes(lambda repair=repair: _repair(scene.vault, repair), stride=3):  # type: ignore[misc]
            _repair(scene.vault, "packs")
            named = {loss.path for loss in scene.vault.repair_snapshots().losses}
            assert named <= {lost}, step
            _repair(scene.vault, "snapshots")
            assert scene.vault.check().problems == [], step
            left = contents(scene.vault)
            assert len(left) == len(scene.contents), step
            assert sum(left.get(name) == found for name, found in scene.contents.items()) == 1
            scene.again()
            assert _spoil(scene) == lost
            if repair == "snapshots":
                _repair(scene.vault, "packs")


def _spoil(scene: Scene) -> str:
    """Damage a file that one of the two backups has; returns its path."""
    repository = scene.vault.repository
    repository.load_index()
    [place] = repository.places(Kind.DATA, blob_id(content(8)))
    path = scene.folder / pack_name(place.pack)
    data = bytearray(path.read_bytes())
    data[place.blob.offset + 20] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    return "component/files/08"
