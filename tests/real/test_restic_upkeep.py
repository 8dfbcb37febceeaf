"""Upkeep beside real restics: what we prune is whole for them, what they prune for us."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.errors import LOCKED, RepositoryLocked
from holdfast.model.artifact import EntryKind, Tree, TreeItems
from holdfast.model.manifest import Manifest
from holdfast.sources._survey import Survey
from holdfast.sources._walk import walk
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import read_tree, silent
from holdfast.testing.vault_contract import INSTANT
from holdfast.testing.vault_contract import keep as keep_artifacts
from holdfast.vaults.repository.vault import RepositoryVault
from tests.restic_world import RESTICS, made, restic
from tests.upkeep_world import (
    contents,
    keep,
    keep_three,
    leave_strange_pack,
    new_vault,
    small_packs,
    vault_on,
)

pytestmark = [pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - tmpfs on every Linux


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "repository"


def vault_in(folder: Path) -> RepositoryVault:
    return vault_on(LocalStore(folder), lock_wait=0)


def trees(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder by their paths."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("version", RESTICS)
def test_restic_finds_what_we_pruned_whole(folder: Path, tmp_path: Path, version: str) -> None:
    vault = new_vault(LocalStore(folder))
    first, second, _third = keep_three(vault)
    tag = f"backup:{second.id}"
    restic(version, folder, "restore", "latest", "--tag", tag, "--target", str(tmp_path / "one"))
    vault.delete(first.id)
    leave_strange_pack(vault.repository)
    with small_packs():
        done = vault.prune(tolerated=0.0)
    assert done.repacked_packs
    restic(version, folder, "check", "--read-data")
    restic(version, folder, "restore", "latest", "--tag", tag, "--target", str(tmp_path / "two"))
    assert trees(tmp_path / "one") == trees(tmp_path / "two") != {}
    said = restic(version, folder, "prune", "--max-unused", "0", "--dry-run")
    assert "unused size after prune: 0 B" in said, "there is nothing left for it to do"


@pytest.mark.parametrize("version", RESTICS)
def test_what_restic_pruned_is_whole_for_us(folder: Path, version: str) -> None:
    vault = new_vault(LocalStore(folder))
    first, _second, _third = keep_three(vault)
    before = contents(vault)
    vault.delete(first.id)
    del before[first.id]
    restic(version, folder, "prune", "--max-unused", "0")
    assert contents(vault) == contents(vault_in(folder)) == before
    assert vault.check().sound
    assert vault.prune(tolerated=0.0).freed == 0


@pytest.mark.parametrize("version", RESTICS)
def test_packs_of_restic_are_pruned_and_never_rewritten_without_need(
    folder: Path, tmp_path: Path, version: str
) -> None:
    made(folder)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"{number}").write_bytes(Random(number).randbytes(3000))
    restic(version, folder, "backup", str(source))
    for number in range(20):
        (source / f"{number}").unlink()
    restic(version, folder, "backup", str(source))
    vault = vault_in(folder)
    packs = set(vault.repository.store.names("data"))
    assert vault.prune(tolerated=0.0).freed == 0
    assert set(vault.repository.store.names("data")) == packs
    restic(version, folder, "forget", "--keep-last", "1")
    assert vault.prune(tolerated=0.0).repacked_packs > 0
    restic(version, folder, "check", "--read-data")
    restic(version, folder, "restore", "latest", "--target", str(tmp_path / "out"))
    assert trees(tmp_path / "out" / source.relative_to("/")) == trees(source)
    assert vault.check().sound


@pytest.mark.parametrize("version", RESTICS)
def test_restic_restores_what_was_repaired(folder: Path, tmp_path: Path, version: str) -> None:
    vault = new_vault(LocalStore(folder))
    keep_three(vault)
    pack = max(folder.glob("data/*/*"), key=lambda path: path.stat().st_size)
    data = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(data[:20] + b"XX" + data[22:])
    restic(version, folder, "check", "--read-data", status=1)
    vault.repair_packs()
    done = vault.repair_snapshots(write=True, forget=True)
    assert done.losses
    restic(version, folder, "check", "--read-data")
    restic(version, folder, "restore", "latest", "--target", str(tmp_path / "out"))
    if version == "0.18":  # which works on no tree that it would write otherwise
        restic(version, folder, "rewrite", "--exclude", "nothing", "--dry-run")
    vault.prune()  # or the damaged pack would be listed again
    for file in folder.glob("index/*"):
        file.unlink()
    vault_in(folder).repair_index()
    restic(version, folder, "check", "--read-data")


# --- several at once ---


def test_a_pruner_and_restic_exclude_each_other(folder: Path) -> None:
    vault = new_vault(LocalStore(folder))
    keep_three(vault)
    with vault._upkeep():
        restic("0.18", folder, "check", status=11)
        restic("0.14", folder, "check", status=1)
    restic("0.18", folder, "check")


def test_two_writers_and_a_pruner_in_threads(folder: Path) -> None:
    """The pruner is refused while others write, or they are; nothing that was sealed is lost."""
    vault = new_vault(LocalStore(folder))
    keep(vault, 0, range(4))

    def write(lane: int) -> list[Manifest]:
        made = []
        own = vault_on(LocalStore(folder), lock_wait=30)
        for turn in range(4):
            made.append(keep(own, 10 * lane + turn, range(turn, turn + 6)))
            if turn % 2:
                own.delete(made.pop(0).id)
        return made

    def tidy() -> list[int]:
        refused = []
        for _turn in range(12):
            try:
                vault_in(folder).prune(tolerated=0.0)
            except RepositoryLocked as error:
                refused.append(error.exit_status)
        return refused

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, lane) for lane in (1, 2)]
        pruner = threads.submit(tidy)
        kept = [manifest.id for writer in writers for manifest in writer.result()]
        assert set(pruner.result()) <= {LOCKED}
    assert set(kept) < contents(vault_in(folder)).keys()
    vault_in(folder).prune(tolerated=0.0)
    assert set(kept) < contents(vault_in(folder)).keys()
    restic("0.18", folder, "check", "--read-data")


WORKER = """
import sys
from pathlib import Path
from holdfast.errors import RepositoryLocked
from holdfast.stores.local import LocalStore
from tests.upkeep_world import keep, vault_on
what, folder = sys.argv[1], Path(sys.argv[2])
vault = vault_on(LocalStore(folder), lock_wait=60)
for turn in range(3):
    if what == "prune":
        vault.prune(tolerated=0.0)
    else:
        print(keep(vault, int(what) * 10 + turn, range(turn, turn + 5)).id)
"""


def test_two_writers_and_a_pruner_in_processes(folder: Path) -> None:
    vault = new_vault(LocalStore(folder))
    first = keep(vault, 0, range(4))
    vault.delete(first.id)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, what, str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for what in ("1", "prune", "2")
    ]
    said = [process.communicate(timeout=100)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    kept = {line for text in said for line in text.split()}
    assert contents(vault_in(folder)).keys() == kept
    assert len(kept) == 6
    restic("0.14", folder, "check", "--read-data")


# --- at random ---


class Upkeep(RuleBasedStateMachine):
    """Trees that change, backed up, deleted and pruned in any order, read by both programs."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Path(tempfile.mkdtemp(prefix="holdfast-tests-", dir=MEMORY))
        self.source = self.work / "source"
        self.source.mkdir()
        self.folder = self.work / "repository"
        self.vault = new_vault(LocalStore(self.folder))
        self.kept: dict[str, dict[str, bytes]] = {}
        self.turn = 0

    @rule(
        name=st.sampled_from(["a", "b/a", "b/ä", "c/d/e"]),
        seed=st.integers(0, 5),
        size=st.sampled_from([0, 1, 3000, 700_000]),
    )
    def edit(self, name: str, seed: int, size: int) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Random(seed).randbytes(size))

    @rule(name=st.sampled_from(["a", "b", "c/d"]))
    def remove(self, name: str) -> None:
        path = self.source / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @rule()
    def back_up(self) -> None:
        self.turn += 1
        tree = Tree("files", self._entries, 0, 0)
        with small_packs():
            manifest = keep_artifacts(self.vault, INSTANT + timedelta(days=self.turn), [tree])
        self.kept[manifest.id] = trees(self.source)

    @contextmanager
    def _entries(self) -> Iterator[TreeItems]:
        yield walk(self.source, component="component", survey=Survey())

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.kept)))
        self.vault.delete(chosen)
        del self.kept[chosen]

    @rule(tolerated=st.sampled_from([0.0, 0.05, 0.5]))
    def prune(self, tolerated: float) -> None:
        with small_packs():
            self.vault.prune(tolerated=tolerated)

    @rule()
    def repair_the_index(self) -> None:
        for file in self.folder.glob("index/*"):
            file.unlink()
        self.vault.repair_index()

    @invariant()
    def the_same_backups_are_there(self) -> None:
        assert {manifest.id for manifest in self.vault.manifests()} == self.kept.keys()

    def teardown(self) -> None:
        """Read everything through both programs."""
        try:
            assert self.vault.check().sound
            restic("0.18", self.folder, "check", "--read-data")
            for number, (backup_id, files) in enumerate(sorted(self.kept.items())):
                manifest = self.vault.manifest(backup_id)
                assert self.vault.verify(manifest, silent) == []
                assert read_files(self.vault, manifest) == files
                if number == len(self.kept) - 1:
                    out = self.work / backup_id
                    tag = f"backup:{backup_id}"
                    restic(
                        "0.18", self.folder, "restore", "latest", "--tag", tag, "--target", str(out)
                    )
                    assert trees(out / "component" / "files") == files
        finally:
            shutil.rmtree(self.work)


def read_files(vault: RepositoryVault, manifest: Manifest) -> dict[str, bytes]:
    """Return the files of a backup by their paths, as Holdfast restores them."""
    tree = vault.artifact(manifest, manifest.artifacts[0])
    assert isinstance(tree, Tree)
    return {entry.path: data for entry, data in read_tree(tree) if entry.kind is EntryKind.FILE}


TestUpkeep = Upkeep.TestCase
TestUpkeep.settings = settings(
    max_examples=8,
    stateful_step_count=14,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
