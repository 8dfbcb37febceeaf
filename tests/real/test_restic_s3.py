"""Repositories in buckets of a real S3 server, shared with real restics in both directions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from holdfast.errors import RepositoryLocked
from holdfast.model.artifact import Tree, TreeItems
from holdfast.model.manifest import Manifest
from holdfast.ports import Store
from holdfast.sources._survey import Survey
from holdfast.sources._walk import walk as walk_folder
from holdfast.testing._trips import read_artifact, silent
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.testing.vault_contract import keep as keep_artifacts
from holdfast.vaults.repository.locks import locked
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.vaults.repository.walk import find
from servers.s3 import shared_server
from tests.real.test_restic import as_it_is, cheapen, contents, dense, same, snapshot_of
from tests.restic_world import RESTICS, locked_status, opened_on, restic, strange_folder
from tests.stores_world import s3_store, shared_bucket
from tests.tree_world import picture
from tests.upkeep_world import new_vault, vault_on

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not all(Path(program).exists() for program in RESTICS.values()), reason="a restic is absent"
    ),
]


class Place(NamedTuple):
    """Where a repository lies, as we and restic call it."""

    store: Store
    url: str


@pytest.fixture
def place() -> Place:
    prefix = secrets.token_hex(6)
    url = f"s3:{shared_server().endpoint}/{shared_bucket()}/{prefix}"
    return Place(s3_store(prefix=f"{prefix}/"), url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original") / "strange"
    strange_folder(root)
    return root


def keep(vault: RepositoryVault, folder: Path, day: int = 0) -> Manifest:
    """Seal a backup of a folder, as the component's only tree, and of a stream."""

    @contextmanager
    def entries() -> Iterator[TreeItems]:
        yield walk_folder(folder, component="component", survey=Survey())

    tree = Tree("component", entries, 0, 0)
    rows = samples()[0]
    return keep_artifacts(vault, INSTANT + timedelta(days=day), [rows, tree])


@pytest.mark.parametrize("version", sorted(RESTICS))
def test_restic_checks_and_restores_ours(
    place: Place, folder: Path, tmp_path: Path, version: str
) -> None:
    manifest = keep(new_vault(place.store), folder)
    assert "no errors were found" in restic(version, place.url, "check", "--read-data")
    restic(version, place.url, "restore", "latest", "--tag", f"backup:{manifest.id}",
        "--target", str(tmp_path))  # fmt: skip
    trees = [stored for stored in manifest.artifacts if stored.name == "component"]
    restored = picture(tmp_path / trees[0].path)
    assert dense(restored) == dense(picture(folder))


def test_what_restic_made_is_listed_added_to_verified_and_pruned(
    place: Place, folder: Path, tmp_path: Path
) -> None:
    restic("0.18", place.url, "-q", "init")
    cheapen(opened_on(place.store))
    restic("0.18", place.url, "-q", "backup", str(folder), "--tag", "theirs")
    restic("0.18", place.url, "-q", "backup", str(folder / "d"), "--tag", "gone")
    vault = vault_on(place.store)
    assert list(vault.manifests()) == [], "they are no backups of a stack"
    assert vault.check().snapshots == 2
    repository = opened_on(place.store)
    root = find(repository, snapshot_of(repository, "theirs").tree, str(folder)[1:])
    assert root is not None
    same(contents(repository, root), as_it_is(folder), holes=False)

    manifest = keep(vault, folder / "d")
    assert list(vault_on(place.store).manifests()) == [manifest]
    assert vault.verify(manifest, silent) == []
    restic("0.14", place.url, "check", "--read-data")

    restic("0.18", place.url, "-q", "forget", "--tag", "gone", "--keep-last", "0",
        "--unsafe-allow-remove-all")  # fmt: skip
    done = vault_on(place.store).prune(tolerated=0.0)
    assert (done.snapshots, done.freed > 0) == (2, True)
    restic("0.18", place.url, "check", "--read-data")
    restic("0.18", place.url, "restore", "latest", "--tag", "theirs", "--target", str(tmp_path))
    assert dense(picture(tmp_path / folder.relative_to("/"))) == dense(picture(folder))
    found = vault_on(place.store)
    assert found.verify(manifest, silent) == []
    stream = found.artifact(manifest, manifest.artifacts[0])
    assert read_artifact(stream) == read_artifact(samples()[0])


def test_each_prunes_what_the_other_made(place: Place, folder: Path) -> None:
    vault = new_vault(place.store)
    first, second = keep(vault, folder), keep(vault, folder / "d", day=1)
    vault.delete(first.id)
    restic("0.18", place.url, "-q", "backup", str(folder / "d" / "e"), "--host", "restic")
    restic("0.14", place.url, "prune", "--max-unused", "0")
    again = vault_on(place.store)
    assert list(again.manifests()) == [second]
    assert again.verify(second, silent) == []
    assert again.check().sound
    assert again.prune(tolerated=0.0).freed == 0


@pytest.mark.parametrize("version", sorted(RESTICS))
def test_locks_are_respected_by_both(place: Place, version: str) -> None:
    vault = new_vault(place.store)
    with locked(vault.repository, exclusive=True):
        said = restic(version, place.url, "snapshots", status=locked_status(version))
        assert "already locked exclusively by PID" in said
    with locked(vault.repository):
        restic(version, place.url, "snapshots")
        restic(version, place.url, "prune", status=locked_status(version))
        with pytest.raises(RepositoryLocked):
            vault.prune()
    restic(version, place.url, "prune")
    assert list(place.store.names("locks")) == []
