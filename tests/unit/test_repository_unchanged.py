"""Files that did not change since the last backup are not read again, and all others are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

from holdfast.errors import RepositoryDamaged
from holdfast.model.artifact import Tree
from holdfast.model.manifest import Manifest
from holdfast.sources import _walk
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.testing import _trips
from holdfast.testing._trips import back_up, read_tree, silent
from holdfast.vaults.repository import draft, parent, walk
from holdfast.vaults.repository.repository import Repository
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.vaults.repository.write import Writer
from tests.contract.test_repository_vault import make_vault

LARGE = 3 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "one.txt").write_bytes(b"1" * 1000)
    (folder / "deep" / "two.txt").write_bytes(b"2" * 2000)
    (folder / "deep" / "er" / "large.bin").write_bytes(os.urandom(LARGE))
    (folder / "empty").touch()
    return folder


@pytest.fixture
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RepositoryVault:
    monkeypatch.setattr(parent, "TICK", 0)  # or tests would have to wait for it
    return make_vault(tmp_path / "repository")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The paths whose content was read, to be cleared at will."""
    paths: set[str] = set()
    pread = _walk._Walker._pread

    def noted(self: _walk._Walker, fd: int, size: int, offset: int, path: str) -> bytes:
        paths.add(path)
        return pread(self, fd, size, offset, path)

    monkeypatch.setattr(_walk._Walker, "_pread", noted)
    return paths


def backed_up(
    vault: RepositoryVault, folder: Path, name: str = "uploads", off: timedelta = timedelta(0)
) -> Manifest:
    """Back a folder up; the clock may be off."""
    source = FilesSource(name, FilesOptions(path=folder))
    with patch.object(_trips, "datetime", Mock(now=lambda zone: datetime.now(zone) + off)):
        manifest = back_up([source], vault, folder.parent / "workspace")
    assert vault.verify(manifest, silent) == []
    return manifest


def contents(vault: RepositoryVault, manifest: Manifest) -> dict[str, tuple[int, bytes]]:
    artifact = vault.artifact(manifest, manifest.artifacts[0])
    assert isinstance(artifact, Tree)
    return {
        entry.path: (entry.mode, data)
        for entry, data in read_tree(artifact)
        if entry.kind == "file"
    }


def files_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode & 0o7777, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def names(paths: Iterable[str]) -> set[str]:
    return {path.rpartition("/")[2] for path in paths}


def test_what_did_not_change_is_not_read(
    vault: RepositoryVault, folder: Path, read: set[str]
) -> None:
    first = backed_up(vault, folder)
    assert names(read) == {"one.txt", "two.txt", "large.bin", "empty"}
    read.clear()
    second = backed_up(vault, folder)
    assert read == set()
    assert contents(vault, second) == files_in(folder)
    assert first.components[0].facts == second.components[0].facts
    assert first.artifacts[0].sha256 == second.artifacts[0].sha256


def test_what_changed_is_read_and_nothing_else(
    vault: RepositoryVault, folder: Path, read: set[str]
) -> None:
    backed_up(vault, folder)
    (folder / "deep" / "two.txt").write_bytes(b"another")
    (folder / "new").write_bytes(b"new")
    (folder / "empty").unlink()
    read.clear()
    manifest = backed_up(vault, folder)
    assert names(read) == {"two.txt", "new"}
    assert contents(vault, manifest) == files_in(folder)


def test_the_same_size_and_time_do_not_hide_a_change(
    vault: RepositoryVault, folder: Path, read: set[str]
) -> None:
    file = folder / "one.txt"
    before = file.stat()
    backed_up(vault, folder)
    read.clear()
    file.write_bytes(b"x" * 1000)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    manifest = backed_up(vault, folder)
    assert names(read) == {"one.txt"}
    assert contents(vault, manifest) == files_in(folder)


def test_another_file_in_its_place_is_read(
    vault: RepositoryVault, folder: Path, read: set[str]
) -> None:
    file = folder / "one.txt"
    backed_up(vault, folder)
    (folder / "other").write_bytes(b"y" * 1000)
    (folder / "other").rename(file)
    read.clear()
    manifest = backed_up(vault, folder)
    assert names(read) == {"one.txt"}
    assert contents(vault, manifest) == files_in(folder)


def test_other_permissions_are_kept(vault: RepositoryVault, folder: Path) -> None:
    backed_up(vault, folder)
    (folder / "one.txt").chmod(0o751)
    assert contents(vault, backed_up(vault, folder))["one.txt"][0] == 0o751


def test_a_file_that_changed_while_it_was_backed_up_is_read_again(
    vault: RepositoryVault, folder: Path, read: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times may be the same after another change in the same moment: git calls that racy."""
    backed_up(vault, folder)
    monkeypatch.setattr(parent, "TICK", 3600 * 10**9)  # as if it had begun an hour earlier
    read.clear()
    backed_up(vault, folder)
    assert names(read) == {"one.txt", "two.txt", "large.bin", "empty"}


def test_what_is_not_stored_any_more_is_read(
    vault: RepositoryVault, folder: Path, read: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed_up(vault, folder)
    monkeypatch.setattr(Writer, "holds", lambda _self, ids: not list(ids))
    read.clear()
    manifest = backed_up(vault, folder)
    assert names(read) == {"one.txt", "two.txt", "large.bin"}
    assert contents(vault, manifest) == files_in(folder)


def test_links_and_holes_are_looked_at_closely(vault: RepositoryVault, folder: Path) -> None:
    os.link(folder / "one.txt", folder / "deep" / "again.txt")
    with (folder / "sparse").open("wb") as file:
        file.truncate(5 << 20)
        file.seek(2 << 20)
        file.write(b"in the middle")
    backed_up(vault, folder)
    again = backed_up(vault, folder)
    target = folder.parent / "restored"
    source = FilesSource("uploads", FilesOptions(path=target))
    staged = source.staging("1", folder.parent)
    staged.fill([vault.artifact(again, again.artifacts[0])])
    staged.activate()
    staged.settle(None)
    assert files_in(target) == files_in(folder)
    assert (target / "one.txt").stat().st_nlink == 2
    assert (target / "sparse").stat().st_blocks * 512 < LARGE


def test_a_backup_from_before_the_clock_was_set_back_is_no_measure(
    vault: RepositoryVault, folder: Path, read: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that seems to have begun before the files were made tells nothing of them."""
    backed_up(vault, folder)
    later = (datetime.now(UTC) + timedelta(days=1)).timestamp()
    for path in folder.rglob("*.txt"):
        os.utime(path, (later, later))
    backed_up(vault, folder)
    read.clear()
    backed_up(vault, folder)
    assert names(read) == {"one.txt", "two.txt"}


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(days=1)], ids=["behind", "ahead"])
def test_a_clock_that_was_off_by_a_day_hides_no_change_for_ever(
    vault: RepositoryVault, folder: Path, read: set[str], off: timedelta
) -> None:
    backed_up(vault, folder, off=off)
    (folder / "one.txt").write_bytes(b"x" * 1000)
    read.clear()
    second = backed_up(vault, folder)
    assert "one.txt" in names(read)
    assert contents(vault, second) == files_in(folder)
    read.clear()
    third = backed_up(vault, folder)
    assert read == set(), "it is compared with the second, whatever the clock of the first said"
    assert contents(vault, third) == files_in(folder)
    (folder / "one.txt").write_bytes(b"y" * 1000)
    read.clear()
    fourth = backed_up(vault, folder, off=off)
    assert names(read) >= {"one.txt"}
    assert contents(vault, fourth) == files_in(folder)


def test_a_backup_of_other_components_comes_in_between(
    vault: RepositoryVault, folder: Path, read: set[str]
) -> None:
    backed_up(vault, folder)
    backed_up(vault, folder / "deep", name="others")
    read.clear()
    manifest = backed_up(vault, folder)
    assert read == set()
    assert contents(vault, manifest) == files_in(folder)


def test_an_earlier_backup_that_is_damaged_is_no_obstacle(
    vault: RepositoryVault, folder: Path, read: set[str]
) -> None:
    """Its folder above the artifact cannot be read: then everything is."""
    first = backed_up(vault, folder)

    def damaged(repository: Repository, tree: bytes, path: str) -> object:
        if path == first.artifacts[0].path:
            raise RepositoryDamaged(where="here", path="data", reason="a test")
        return walk.find(repository, tree, path)

    read.clear()
    with patch.object(draft, "find", damaged):
        manifest = backed_up(vault, folder)
    assert names(read) == {"one.txt", "two.txt", "large.bin", "empty"}
    assert contents(vault, manifest) == files_in(folder)
