"""What a local folder adds to the contract of stores: modes, links, renames, adoption, litter."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import BackupExists, VaultUnavailable
from holdfast.model.artifact import CHUNK
from holdfast.stores import _rename
from holdfast.stores.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


@pytest.fixture
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_nobody_else_may_look(tmp_path: Path, wide_umask: None) -> None:
    store = LocalStore(tmp_path / "new" / "root")
    store.put("a/b/file", iter((b"1",)))
    store.replace("a/mark", b"1")
    given = tmp_path / "given"
    given.write_bytes(b"1")
    given.chmod(0o644)
    assert store.adopt("a/adopted", given)
    for name in ("a/b/file", "a/mark", "a/adopted"):
        assert mode(store.root / name) == 0o600
    for folder in (tmp_path / "new", store.root, store.root / "a", store.root / "a" / "b"):
        assert mode(folder) == 0o700


def test_links_to_files_and_folders_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("keep", iter((b"1",)))
    (store.root / "folder").symlink_to(outside)
    (store.root / "file").symlink_to(outside / "secret")
    for name in ("folder/secret", "file"):
        with pytest.raises(FileNotFoundError):
            store.read(name)
        assert store.path(name) is None
    for write in (
        lambda: store.put("folder/x", iter((b"1",))),
        lambda: store.replace("folder/x", b""),
    ):
        with pytest.raises(VaultUnavailable, match="symbolic link"):
            write()
    assert list(store.folders()) == []
    assert set(store.names()) == {"keep", "folder", "file"}
    store.delete("folder/secret")
    with pytest.raises((VaultUnavailable, FileNotFoundError)):
        store.rename("folder/secret", "stolen")
    with pytest.raises(BackupExists):
        store.put("file", iter((b"1",)))
    store.delete("folder")
    store.delete("file")
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    LocalStore(tmp_path / "link").put("name", iter((b"1",)))
    assert (tmp_path / "real" / "name").read_bytes() == b"1"


def test_a_pipe_in_the_vault_holds_nobody_up(store: LocalStore) -> None:
    store.put("keep", iter((b"1",)))
    os.mkfifo(store.root / "pipe")
    with pytest.raises(FileNotFoundError):
        store.read("pipe")


def test_a_file_on_the_same_disk_is_adopted_without_copying(
    store: LocalStore, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    given.write_bytes(b"content")
    inode = given.stat().st_ino
    assert store.adopt("a/name", given)
    assert not given.exists()
    assert (store.root / "a/name").stat().st_ino == inode
    given.write_bytes(b"second")
    with pytest.raises(BackupExists):
        store.adopt("a/name", given)
    assert given.read_bytes() == b"second"
    assert store.read("a/name") == b"content"


def test_what_cannot_be_moved_is_left_for_copying(store: LocalStore, tmp_path: Path) -> None:
    other_disk = Path("/dev/shm") / f"holdfast-test-{os.getpid()}"  # noqa: S108 - another file system
    target = tmp_path / "target"
    target.write_bytes(b"1")
    (tmp_path / "link").symlink_to(target)
    assert not store.adopt("name", tmp_path / "link")
    assert not store.adopt("name", tmp_path / "missing")
    assert not store.adopt("name", tmp_path / "missing" / "file")
    if Path("/dev/shm").stat().st_dev != tmp_path.stat().st_dev:  # noqa: S108
        other_disk.write_bytes(b"far")
        try:
            assert not store.adopt("name", other_disk)
            assert other_disk.read_bytes() == b"far"
        finally:
            other_disk.unlink()
    assert list(store.names()) == []
    assert target.read_bytes() == b"1"


def test_without_the_flag_renames_still_never_overwrite(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where the kernel refuses RENAME_NOREPLACE."""

    def refused(*_arguments: object) -> None:
        raise OSError(errno.EINVAL, "not supported")

    monkeypatch.setattr(_rename, "_renameat2", refused)
    store.put("a/x", iter((b"x",)))
    store.put("b/y", iter((b"y",)))
    store.put("c", iter((b"c",)))
    with pytest.raises(BackupExists):
        store.put("c", iter((b"2",)))
    for old, new in (("a", "b"), ("c", "a/x"), ("a", "c")):
        with pytest.raises(BackupExists):
            store.rename(old, new)
    store.rename("a", "d")
    store.rename("c", "e")
    assert {name: store.read(name) for name in store.names()} == {
        "b/y": b"y",
        "d/x": b"x",
        "e": b"c",
    }


def test_what_a_dead_writer_left_is_swept_and_never_seen(store: LocalStore) -> None:
    store.put("folder/keep", iter((b"1",)))

    def dying() -> Iterator[bytes]:
        yield bytes(3 * CHUNK)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        store.put("folder/name", dying())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert list(store.names()) == ["folder/keep"]
    assert len(list((store.root / "folder").iterdir())) == 2
    assert len(store.sweep()) == 1
    assert [path.name for path in (store.root / "folder").iterdir()] == ["keep"]
    assert store.sweep() == []


def test_a_root_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"1")
    with pytest.raises((VaultUnavailable, BackupExists)):
        LocalStore(tmp_path / "root").put("name", iter((b"1",)))
    assert (tmp_path / "root").read_bytes() == b"1"


def test_reading_a_vault_that_is_not_there_makes_nothing(store: LocalStore) -> None:
    assert list(store.names()) == []
    assert list(store.folders()) == []
    assert store.sweep() == []
    assert store.free()
    store.delete("name")
    with pytest.raises(FileNotFoundError):
        store.read("name")
    assert not store.root.exists()


def test_files_are_closed_on_every_path(store: LocalStore, tmp_path: Path) -> None:
    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def breaking() -> Iterator[bytes]:
        yield b"1"
        raise EOFError

    store.put("a/name", iter((b"1",)))
    before = opened()
    with pytest.raises(EOFError):
        store.put("a/other", breaking())
    with pytest.raises(BackupExists):
        store.put("a/name", iter(()))
    with pytest.raises(FileNotFoundError):
        store.read("a/b/c/d")
    with store.get("a/name") as chunks:
        next(chunks)
    store.rename("a/name", "b")
    store.replace("b", b"2")
    list(store.names())
    store.delete("a")
    assert not store.adopt("name", tmp_path / "missing")
    assert opened() == before
