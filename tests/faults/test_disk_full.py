"""A full disk: nothing half-made stays, the vault goes on, and the error says what it is."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import NoSpace, VaultUnavailable
from holdfast.model.artifact import CHUNK
from holdfast.stores.local import LocalStore
from holdfast.testing.vault_contract import keep as keep_large
from tests.vault_world import LAYOUTS, all_whole, assert_no_strangers, keep, make_vault


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_files() -> Iterator[int]:
    """Forbid this process files of more than 1 MiB: the kernel's own answer is then EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK, hard))
    try:
        yield CHUNK
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, CHUNK))
        size -= CHUNK


def test_a_full_disk_leaves_nothing_and_can_be_used_again(small_disk: Path) -> None:
    store = LocalStore(small_disk / "store")
    free = store.free()
    with pytest.raises(NoSpace, match="too-big"):
        store.put("too-big", zeros(6 * CHUNK))
    assert list(store.names()) == []
    assert store.free() == pytest.approx(free, abs=64 * 1024)
    store.put("fits", zeros(CHUNK))
    assert store.sweep() == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_backup_that_does_not_fit_is_not_there(small_disk: Path, layout: str) -> None:
    store = LocalStore(small_disk / "vault")
    vault = make_vault(store, layout)
    kept = keep(vault)
    store.put("filler", zeros(2 * CHUNK))
    with pytest.raises(NoSpace):
        keep_large(vault)
    assert all_whole(vault) == {kept.id}
    store.delete("filler")
    assert vault.sweep() == []
    assert_no_strangers(vault, store)
    keep_large(vault)
    assert len(all_whole(vault)) == 2


def test_deleting_works_on_a_full_disk(small_disk: Path) -> None:
    store = LocalStore(small_disk / "vault")
    vault = make_vault(store, "boxed")
    kept = keep(vault)
    with pytest.raises(NoSpace):
        store.put("filler", zeros(6 * CHUNK))
    fill_up(small_disk / "brim")
    vault.delete(kept.id)
    assert all_whole(vault) == set()


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        size = CHUNK
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def test_a_limit_on_files_is_no_space(tmp_path: Path, small_files: int) -> None:
    store = LocalStore(tmp_path / "store")
    with pytest.raises(NoSpace):
        store.put("too-big", zeros(small_files + CHUNK))
    with pytest.raises(NoSpace):
        store.replace("too-big", bytes(small_files + 1))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert store.put("fits", zeros(small_files)) == small_files


def test_a_folder_that_may_not_be_written_is_unavailable(tmp_path: Path) -> None:
    read_only = tmp_path / "disk"
    read_only.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(read_only)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        read_only.chmod(0o500)
        if os.geteuid() == 0:
            pytest.skip("as root without mounts, no folder refuses to be written")
        with pytest.raises(VaultUnavailable):
            LocalStore(read_only / "vault").put("name", iter((b"1",)))
        read_only.chmod(0o700)
        return
    try:
        with pytest.raises(VaultUnavailable, match="Read-only"):
            LocalStore(read_only / "vault").put("name", iter((b"1",)))
        with pytest.raises(VaultUnavailable, match="Read-only"):
            LocalStore(read_only).replace("name", b"1")
        assert list(make_vault(LocalStore(read_only), "boxed").manifests()) == []
    finally:
        subprocess.run(["umount", str(read_only)], check=True)
