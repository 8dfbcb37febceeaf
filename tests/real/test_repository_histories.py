"""Histories: random trees, edited, backed up, forgotten and pruned, come back by both programs.

What files held is compared with pictures that were taken when they were backed up, whatever was
stored of it only once, left unread because it had not changed, or moved by `prune` since.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from holdfast.model.artifact import Tree
from holdfast.model.manifest import Manifest
from holdfast.sources._tree import write_tree
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.testing._trips import silent
from holdfast.testing.vault_contract import keep
from holdfast.vaults.repository import locks, packs
from holdfast.vaults.repository.vault import RepositoryVault
from tests import tree_world
from tests.contract.test_repository_vault import make_vault
from tests.restic_world import RESTICS, restic
from tests.tree_world import picture

pytestmark = [
    pytest.mark.skipif(
        not all(Path(program).exists() for program in RESTICS.values()), reason="a restic is absent"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]

which = st.integers(0, 1000)  # of what is there, by its place among all
edits = st.one_of(
    st.tuples(st.just("write"), which, st.integers(0, 80_000), st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("cut"), which, st.integers(0, 3000)),
    st.tuples(st.just("remove"), which),
    st.tuples(st.just("rename"), which, which),
    st.tuples(st.just("look"), which, tree_world.looks),
    st.tuples(st.just("grow"), which, tree_world.trees, tree_world.looks),
)
upkeeps = st.sampled_from(["", "", "prune", "forget", "both"])
rounds = st.tuples(st.lists(edits, max_size=6), upkeeps)
histories = st.tuples(
    tree_world.trees, tree_world.looks, st.lists(rounds, min_size=2, max_size=4)
)  # fmt: skip


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories)
def test_every_backup_of_a_history_comes_back_through_both(history: Any) -> None:
    shape, look, following = history
    with TemporaryDirectory() as place, small_packs():
        trial = Trial(Path(place))
        tree_world.grow(trial.root, shape, look)
        trial.back_up()
        for changes, upkeep in following:
            for change in changes:
                trial.edit(*change)
            trial.back_up()
            if upkeep in {"forget", "both"}:
                trial.forget_one()
            if upkeep in {"prune", "both"}:
                event(f"pruned: {trial.prune() > 0}")
        trial.compare()


@contextmanager
def small_packs() -> Iterator[None]:
    """Let packs hold few blobs, so that there is something to prune; and wait for no listing."""
    with patch.object(packs, "MOST_BLOBS", 3), patch.object(locks, "LATE", 0.0):
        yield


Picture = dict[bytes, tuple[Any, ...]]
Data = dict[str, set[int]]


class Trial:
    """One folder and what its backups must be."""

    def __init__(self, place: Path) -> None:
        self.root = place / "root"
        self._place = place
        self._vault: RepositoryVault = make_vault(place / "repository")
        self._source = FilesSource("uploads", FilesOptions(path=self.root))
        self._kept: list[tuple[Manifest, Picture, Data]] = []

    # --- what happens ---

    def back_up(self) -> None:
        """Back up as the command does, unchanged files unread, and take a picture."""
        workspace = self._place / "workspace"
        workspace.mkdir()
        with self._source.freeze(workspace) as frozen:
            manifest = keep(self._vault, datetime.now(UTC), frozen.artifacts)
        workspace.rmdir()
        self._kept.append((manifest, taken(self.root), data_of(self.root)))

    def forget_one(self) -> None:
        """Delete the oldest backup but one, or the oldest: never the newest."""
        if len(self._kept) > 1:
            manifest, *_ = self._kept.pop(min(1, len(self._kept) - 2))
            self._vault.delete(manifest.id)

    def prune(self) -> int:
        """Remove what no backup needs; returns how many packs that were."""
        pruned = self._vault.prune(tolerated=0.0)
        return pruned.deleted_packs + pruned.repacked_packs

    def edit(self, kind: str, number: int, *rest: Any) -> None:
        """Change something that is there, if there is anything."""
        there = sorted(path for path in _below(self.root) if not path.is_symlink())
        path = there[number % len(there)] if there else self.root
        getattr(self, f"_{kind}")(path, *rest)

    def _write(self, path: Path, offset: int, data: bytes) -> None:
        if path.is_file():
            with path.open("r+b") as file:
                file.seek(offset % (path.stat().st_size + 1))
                file.write(data)

    def _cut(self, path: Path, size: int) -> None:
        if path.is_file():
            os.truncate(path, size)

    def _remove(self, path: Path) -> None:
        if path == self.root:
            return
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def _rename(self, path: Path, to: int) -> None:
        if path != self.root:
            path.rename(path.parent / f"renamed {to}")

    def _look(self, path: Path, look: tuple[int, int, int]) -> None:
        tree_world._dress(path, look)

    def _grow(self, path: Path, shape: dict[str, Any], look: tuple[int, int, int]) -> None:
        folder = path if path.is_dir() else path.parent
        name = next(name for n in range(1000) if not (folder / (name := f"grown {n}")).exists())
        tree_world.grow(folder / name, shape, look)

    # --- what must be so ---

    def compare(self) -> None:
        """Restore every backup that is left by both programs, and compare."""
        assert not self._vault.check().problems
        repository = self._place / "repository"
        assert "no errors were found" in restic("0.18", repository, "check", "--read-data")
        assert [one.id for one in self._vault.manifests()] == [kept[0].id for kept in self._kept]
        for manifest, was, data in self._kept:
            assert self._vault.verify(manifest, silent) == []
            (stored,) = manifest.artifacts
            artifact = self._vault.artifact(manifest, stored)
            assert isinstance(artifact, Tree)
            ours = self._place / f"ours {manifest.id}"
            assert write_tree(artifact, ours) == []
            assert differences(taken(ours), was) == []
            assert all(blocks <= data[path] for path, blocks in data_of(ours).items())
            theirs = self._place / f"theirs {manifest.id}"
            tag = f"backup:{manifest.id}"
            restic("0.18", repository, "restore", "latest", "--tag", tag, "--target", str(theirs))
            assert differences(taken(theirs / stored.path), was) == []


def taken(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Take a picture of a folder, without how many blocks of the disk each file takes."""
    return {name: one[:-1] if len(one) > 6 else one for name, one in picture(root).items()}


def data_of(root: Path) -> dict[str, set[int]]:
    """Return which blocks of files have data, by path: those that do not lie in holes."""
    return {
        str(path.relative_to(root)): set(_blocks(path))
        for path in _below(root)
        if stat.S_ISREG(os.lstat(path).st_mode)
    }


def _below(root: Path) -> Iterator[Path]:
    """Give all that is below a folder, without following any link."""
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in [*folders, *files])


def _blocks(path: Path) -> Iterator[int]:
    with path.open("rb") as file:
        end = 0
        with suppress(OSError):  # behind the last data
            while True:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                yield from range(start // 4096, -(-end // 4096))


def differences(
    found: dict[bytes, tuple[Any, ...]], wanted: dict[bytes, tuple[Any, ...]]
) -> list[str]:
    """Return what is not the same, one line each."""
    return [
        f"{name!r}: {found.get(name)!r:.500} instead of {wanted.get(name)!r:.500}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
