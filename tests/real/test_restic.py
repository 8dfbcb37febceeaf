"""Repositories that restic made, opened by us; and ours, checked and restored by restic."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import ConfigInvalid, RepositoryDamaged, RepositoryLocked, WrongPassword
from holdfast.model.artifact import Entry, EntryKind
from holdfast.sources._survey import Survey
from holdfast.sources._walk import walk as walk_folder
from holdfast.vaults.repository import gotext, keys, locks, nodes, passwords, snapshots, walk
from holdfast.vaults.repository.blobs import Kind
from holdfast.vaults.repository.locks import locked
from holdfast.vaults.repository.read import read_file, read_tree
from holdfast.vaults.repository.repository import Repository
from tests import tree_world
from tests.restic_world import (
    CHEAP,
    NOW,
    PASSWORD,
    RESTICS,
    files_of,
    keep,
    locked_status,
    made,
    opened,
    restic,
    strange_folder,
)
from tests.tree_world import picture

pytestmark = pytest.mark.skipif(
    not all(Path(program).exists() for program in RESTICS.values()), reason="a restic is absent"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original") / "strange"
    strange_folder(root)
    return root


@pytest.fixture(scope="module", params=sorted(RESTICS))
def theirs(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """Return a version, and a repository that it made: two snapshots, with changes between."""
    version: str = request.param
    place = tmp_path_factory.mktemp("theirs") / "repository"
    restic(version, place, "-q", "init")
    cheapen(opened(place))
    restic(version, place, "-q", "backup", str(folder / "d"), "--tag", "first")
    restic(version, place, "-q", "backup", str(folder), "--tag", "second", "--host", "elsewhere")
    return version, place


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of ours with two snapshots."""
    place = tmp_path_factory.mktemp("ours") / "repository"
    repository = made(place)
    keep(repository, {"files/strange": folder})
    keep(repository, {"files/strange": folder, "other/deep": folder / "d" / "e"})
    return place


def cheapen(repository: Repository) -> None:
    """Put a cheap key in the place of restic's, which costs it and us a second each time."""
    with patch.object(keys, "OURS", CHEAP):
        passwords.change_password(repository, PASSWORD, NOW)


def snapshot_of(repository: Repository, tag: str) -> snapshots.Snapshot:
    found = [one for one in snapshots.snapshots(repository) if not isinstance(one, Exception)]
    return next(one for one in found if tag in one.tags)


def contents(repository: Repository, root: nodes.Node) -> dict[str, tuple[Entry, bytes]]:
    def note(path: str, reason: str) -> None:
        raise AssertionError(f"{path}: {reason}")

    with read_tree(repository, root, note) as items:
        return {entry.path: (entry, b"".join(map(bytes, chunks))) for entry, chunks in items}


def as_it_is(folder: Path) -> dict[str, tuple[Entry, bytes]]:
    items = walk_folder(folder, component="test", survey=Survey())
    return {entry.path: (entry, b"".join(map(bytes, chunks))) for entry, chunks in items}


def comparable(entry: Entry, content: bytes, *, holes: bool) -> tuple[Any, ...]:
    """Return what must be equal of two entries of one path."""
    if entry.extents is not None and not holes:
        whole, position = bytearray(entry.size), 0
        for offset, length in entry.extents:
            whole[offset : offset + length] = content[position : position + length]
            position += length
        content = bytes(whole)
    return (
        (entry.mode, entry.mtime_ns, entry.size, entry.uid, entry.gid, entry.owner, entry.group),
        entry.target if entry.kind is EntryKind.SYMLINK else "",
        entry.extents if holes else None,
        (entry.inode, entry.ctime_ns),
        dict(entry.xattrs),
        content,
    )


def read_all(repository: Repository) -> None:
    for place in repository.index.everything():
        repository.blob(place.blob.kind, place.blob.id)


def groups(found: dict[str, tuple[Entry, bytes]]) -> set[frozenset[str]]:
    """Return which paths are names of one file."""
    same: dict[str, set[str]] = {}
    for path, (entry, _content) in found.items():
        first = entry.target if entry.kind is EntryKind.HARDLINK else path
        same.setdefault(first, set()).add(path)
    return {frozenset(paths) for paths in same.values() if len(paths) > 1}


def same(
    found: dict[str, tuple[Entry, bytes]], wanted: dict[str, tuple[Entry, bytes]], *, holes: bool
) -> None:
    assert set(found) == set(wanted)
    assert groups(found) == groups(wanted)
    for path, (entry, content) in found.items():
        expected, data = wanted[path]
        if EntryKind.HARDLINK in {entry.kind, expected.kind}:
            continue  # which of the names comes first is the reader's choice
        assert comparable(entry, content, holes=holes) == comparable(expected, data, holes=holes)


# --- restic's, read by us ------------------------------------------------------------------------


def test_restics_trees_are_read_as_they_were(theirs: tuple[str, Path], folder: Path) -> None:
    _version, place = theirs
    repository = opened(place)
    snapshot = snapshot_of(repository, "second")
    root = walk.find(repository, snapshot.tree, str(folder)[1:])
    assert root is not None
    same(contents(repository, root), as_it_is(folder), holes=False)
    assert (snapshot.hostname, snapshot.paths) == ("elsewhere", (str(folder),))


def test_restics_snapshots_are_listed_as_restic_does(theirs: tuple[str, Path]) -> None:
    version, place = theirs
    repository = opened(place)
    said = json.loads(restic(version, place, "snapshots", "--json"))
    listed = {one["id"]: (one["tree"], one["tags"], one["paths"]) for one in said}
    found = {
        one.name: (one.tree.hex(), list(one.tags), list(one.paths))
        for one in snapshots.snapshots(repository)
        if not isinstance(one, Exception)
    }
    assert found == listed
    assert {gotext.time_of(one["time"]) for one in said} == {
        one.time for one in snapshots.snapshots(repository) if not isinstance(one, Exception)
    }


def test_restics_trees_are_written_again_byte_by_byte(theirs: tuple[str, Path]) -> None:
    _version, place = theirs
    repository = opened(place)
    trees = 0
    for place_ in repository.index.everything():
        if place_.blob.kind is Kind.TREE:
            document = repository.blob(Kind.TREE, place_.blob.id)
            found = list(nodes.decode_tree(document))
            assert nodes.joined(map(nodes.encode_node, found)) == document
            trees += 1
    assert trees > 5


def test_a_single_file_is_read(theirs: tuple[str, Path], folder: Path) -> None:
    _version, place = theirs
    repository = opened(place)
    tree = snapshot_of(repository, "first").tree
    path = str(folder / "d" / "e" / "f" / "big")[1:]
    node = walk.find(repository, tree, path)
    assert node is not None
    assert b"".join(map(bytes, read_file(repository, node))) == Path("/" + path).read_bytes()
    assert walk.find(repository, tree, path + "/no file") is None
    assert walk.find(repository, tree, "no/folder") is None


def test_what_we_add_to_a_repository_of_restics_is_sound(
    theirs: tuple[str, Path], folder: Path, tmp_path: Path
) -> None:
    version, place = theirs
    both = tmp_path / "both"
    shutil.copytree(place, both)
    repository = opened(both)
    keep(repository, {"added": folder / "d"})
    restic(version, both, "check", "--read-data")
    restic(
        version, both, "restore", "latest", "--tag", "stack:x", "--target", str(tmp_path / "out")
    )
    assert picture(tmp_path / "out" / "added") == picture(folder / "d")


def test_a_repository_of_version_1_is_read_but_not_added_to(folder: Path, tmp_path: Path) -> None:
    restic("0.14", tmp_path, "-q", "init", "--repository-version", "1")
    cheapen(opened(tmp_path))
    restic("0.14", tmp_path, "-q", "backup", str(folder / "d"), "--tag", "old")
    repository = opened(tmp_path)
    root = walk.find(repository, snapshot_of(repository, "old").tree, str(folder / "d")[1:])
    assert root is not None
    same(contents(repository, root), as_it_is(folder / "d"), holes=False)
    with locked(repository):
        assert len(restic("0.14", tmp_path, "list", "locks", "--no-lock").split()) == 1
    with pytest.raises(ConfigInvalid, match="version 1"):
        keep(repository, {"more": folder / "d"})
    assert "no errors were found" in restic("0.14", tmp_path, "check")


# --- ours, read by restic ------------------------------------------------------------------------


@pytest.mark.parametrize("version", sorted(RESTICS))
def test_restic_finds_no_error_in_ours(ours: Path, version: str) -> None:
    assert "no errors were found" in restic(version, ours, "check", "--read-data")


@pytest.mark.parametrize("version", sorted(RESTICS))
def test_restic_restores_ours(ours: Path, folder: Path, version: str, tmp_path: Path) -> None:
    sparse = [] if version == "0.14" else ["--sparse"]
    restic(version, ours, "restore", "latest", "--target", str(tmp_path), *sparse)
    restored = picture(tmp_path / "files" / "strange")
    assert dense(restored) == dense(picture(folder))
    if sparse:
        assert restored[b"sparse"][-1] <= 64, "the hole was filled"


def dense(found: dict[bytes, tuple[Any, ...]]) -> dict[bytes, tuple[Any, ...]]:
    """Leave out how many blocks a file takes: restic makes holes of all longer zeros."""
    return {
        name: one[:-1] if len(one) > 6 else one
        for name, one in found.items()
    }  # fmt: skip


def test_we_read_ours_with_the_holes_there_were(ours: Path, folder: Path) -> None:
    repository = opened(ours)
    for snapshot in snapshots.snapshots(repository):
        assert not isinstance(snapshot, Exception)
        root = walk.find(repository, snapshot.tree, "files/strange")
        assert root is not None
        same(contents(repository, root), as_it_is(folder), holes=True)


def test_restic_backs_up_into_ours_and_prunes_it(ours: Path, folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(ours, both)
    restic("0.18", both, "-q", "backup", str(folder / "d"), "--host", "restic")
    restic("0.18", both, "forget", "--tag", "backup:y", "--keep-last", "1", "--prune",
        "--group-by", "host")  # fmt: skip
    assert "no errors were found" in restic("0.14", both, "check", "--read-data")
    repository = opened(both)
    left = [one for one in snapshots.snapshots(repository) if not isinstance(one, Exception)]
    assert len(left) == 2
    for snapshot in left:
        path = "files/strange/d" if "backup:y" in snapshot.tags else str(folder / "d")[1:]
        root = walk.find(repository, snapshot.tree, path)
        assert root is not None
        same(contents(repository, root), as_it_is(folder / "d"), holes=False)


def test_restic_writes_our_trees_again_unchanged(ours: Path, tmp_path: Path) -> None:
    """It refuses to, where it would not write the same bytes."""
    both = tmp_path / "both"
    shutil.copytree(ours, both)
    restic("0.18", both, "rewrite", "--exclude", "nothing has this name")
    restic("0.18", both, "rewrite", "--exclude", "plain")
    restic("0.18", both, "check")


@settings(max_examples=8)
@given(shapes=st.lists(st.tuples(tree_world.trees, tree_world.looks), min_size=1, max_size=3))
def test_any_tree_comes_back_through_us_and_through_restic(shapes: list[Any]) -> None:
    """Several random trees in one repository, each as a snapshot of its own."""
    with TemporaryDirectory() as place:
        repository = made(Path(place) / "repository")
        kept = []
        for number, (shape, look) in enumerate(shapes):
            root = Path(place) / f"tree{number}"
            tree_world.grow(root, shape, look)
            kept.append((keep(repository, {f"a/tree{number}": root}), root))
        for snapshot, root in kept:
            node = walk.find(repository, snapshot.tree, f"a/{root.name}")
            assert node is not None
            same(contents(repository, node), as_it_is(root), holes=True)
            out = Path(place) / "out"
            restic(
                "0.18", Path(place) / "repository", "restore", snapshot.name, "--target", str(out)
            )
            assert dense(picture(out / "a" / root.name)) == dense(picture(root))
        restic("0.14", Path(place) / "repository", "check", "--read-data")


# --- passwords and locks -------------------------------------------------------------------------


def test_a_key_that_we_add_opens_for_restic(
    theirs: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, place = theirs
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    repository = opened(copy)
    monkeypatch.setattr(keys, "OURS", CHEAP)
    passwords.add_key(repository, "another", NOW)
    assert opened(copy, "another").key == repository.key
    monkeypatch.setattr("tests.restic_world.PASSWORD", "another")
    restic(version, copy, "cat", "config")
    passwords.change_password(repository, "a third", NOW)
    with pytest.raises(WrongPassword):
        opened(copy)


@pytest.mark.parametrize("version", sorted(RESTICS))
def test_restic_respects_our_locks(ours: Path, version: str) -> None:
    repository = opened(ours)
    with locked(repository, exclusive=True):
        assert "already locked exclusively by PID" in restic(
            version, ours, "snapshots", status=locked_status(version)
        )
    with locked(repository):
        restic(version, ours, "snapshots")
        restic(version, ours, "prune", status=locked_status(version))
    restic(version, ours, "prune", "--dry-run")
    assert list(locks.locks(repository)) == []


def test_we_respect_restics_locks(ours: Path) -> None:
    """A lock as restic writes it, of a process on another machine."""
    repository = opened(ours)
    document = json.loads(locks.encode_lock(exclusive=False, now=NOW))
    del document["holdfast"]
    name = repository.save("locks", json.dumps(document | {"hostname": "elsewhere"}).encode())
    with locked(repository):
        pass
    with pytest.raises(RepositoryLocked, match="elsewhere"), locked(repository, exclusive=True):
        pass
    assert restic("0.18", ours, "list", "locks", "--no-lock").split() == [name]
    restic("0.18", ours, "unlock")
    assert list(locks.locks(repository)) == []


# --- damage --------------------------------------------------------------------------------------


def test_damage_that_restic_finds_is_found_by_us(ours: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ours, copy)
    pack = max(files_of(copy / "data"), key=lambda path: path.stat().st_size)
    stored = bytearray(pack.read_bytes())
    stored[len(stored) // 3] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(stored)
    restic("0.18", copy, "check", "--read-data", status=1)
    repository = opened(copy)
    with pytest.raises(RepositoryDamaged, match=pack.name):
        read_all(repository)


def test_the_password_is_restics(theirs: tuple[str, Path]) -> None:
    _version, place = theirs
    with pytest.raises(WrongPassword, match="none of the 1 keys") as raised:
        opened(place, PASSWORD + " ")
    assert raised.value.exit_status == 12
    assert os.fspath(place) in str(raised.value)
