"""The order of syncs and renames: what a name stands for is on the disk before the name is.

A power cut cannot be had here; what can be seen is every sync and every rename, in their order.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.stores import _rename
from holdfast.stores.local import LocalStore
from tests.vault_world import LATER, LAYOUTS, keep, make_vault


class Log:
    """What was synced (by inode) and renamed (the inode, and the inode of the new folder)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, int]] = []

    def synced(self, inode: int, start: int = 0) -> list[int]:
        return [
            place
            for place, (what, node, _folder) in enumerate(self.events)
            if what == "sync" and node == inode and place >= start
        ]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    sync, rename, plain = os.fsync, _rename._renameat2, os.rename

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        log.events.append(("sync", os.fstat(descriptor).st_ino, 0))

    def renameat2(old: str, new: str, old_folder: int, new_folder: int) -> None:
        inode = os.stat(old, dir_fd=old_folder, follow_symlinks=False).st_ino
        rename(old, new, old_folder, new_folder)
        log.events.append(("rename", inode, os.fstat(new_folder).st_ino))

    def os_rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        inode = os.stat(old, dir_fd=src_dir_fd, follow_symlinks=False).st_ino
        plain(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        log.events.append(("rename", inode, os.fstat(dst_dir_fd).st_ino))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", os_rename)
    monkeypatch.setattr(_rename, "_renameat2", renameat2)
    return log


def assert_ordered(log: Log, *, folders: set[int]) -> None:
    """See that each file was synced before it was renamed, and the folder it came to after."""
    events = enumerate(log.events)
    renames = [(place, node, folder) for place, (what, node, folder) in events if what == "rename"]
    assert renames
    for place, inode, folder in renames:
        if inode not in folders:
            assert any(synced < place for synced in log.synced(inode)), "renamed, but not synced"
        assert log.synced(folder, start=place), "the folder was not synced after the rename"


def folders_below(root: Path) -> set[int]:
    return {path.stat().st_ino for path in root.rglob("*") if path.is_dir()}


def test_values_are_synced_before_their_names_and_folders_after(tmp_path: Path, log: Log) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b/name", iter((b"1",)))
    store.replace("a/mark", b"1")
    store.replace("a/mark", b"2")
    given = tmp_path / "given"
    given.write_bytes(b"1")
    assert store.adopt("a/adopted", given)
    store.rename("a/b", "c")
    assert_ordered(log, folders=folders_below(tmp_path))
    for folder in (tmp_path, tmp_path / "a"):
        assert log.synced(folder.stat().st_ino), "the folder of a new folder was not synced"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_seal_appears_after_everything_in_it_is_on_the_disk(
    tmp_path: Path, log: Log, layout: str
) -> None:
    keep(make_vault(LocalStore(tmp_path), layout))
    folders = folders_below(tmp_path)
    assert_ordered(log, folders=folders)
    home = tmp_path / ("" if layout == "boxed" else "manifests") / LATER
    place = next(
        place
        for place, event in enumerate(log.events)
        if event[0] == "rename" and event[1] == home.stat().st_ino
    )
    for path in [home, *(path for path in tmp_path.rglob("*") if path.is_file())]:
        if ".holdfast" not in path.parts:
            assert log.synced(path.stat().st_ino)[0] < place, path
    assert not [event for event in log.events[place + 1 :] if event[0] == "rename"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_deletion_is_on_the_disk_before_bytes_go(
    tmp_path: Path, log: Log, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = make_vault(LocalStore(tmp_path), layout)
    manifest = keep(vault)
    home = tmp_path / ("" if layout == "boxed" else "manifests")
    inode = (home / LATER).stat().st_ino
    log.events.clear()
    unlink = os.unlink
    gone: list[int] = []

    def watched(name: str, *, dir_fd: int | None = None) -> None:
        unlink(name, dir_fd=dir_fd)
        gone.append(len(log.events))

    monkeypatch.setattr(os, "unlink", watched)
    vault.delete(manifest.id)
    ended = next(i for i, event in enumerate(log.events) if event[:2] == ("rename", inode))
    synced = log.synced(home.stat().st_ino, start=ended)[0]
    bytes_gone = [at for at in gone if at > ended]
    assert len(bytes_gone) >= 5
    assert min(bytes_gone) > synced, "bytes went before the end of the backup was on the disk"
