"""Repositories keep the contract in buckets and on SFTP servers, and are kept up there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.model.upkeep import Share
from holdfast.ports import Store
from holdfast.testing._trips import silent
from holdfast.vaults.repository import locks
from holdfast.vaults.repository.blobs import Kind, blob_id
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.vault import RepositoryVault
from tests.contract.test_repository_vault import RepositoryVaultContract
from tests.stores_world import s3_store, sftp_store
from tests.upkeep_world import (
    blobs_twice,
    content,
    contents,
    keep_three,
    leave_strange_pack,
    new_vault,
    small_packs,
    vault_on,
)

PLACES: dict[str, Callable[[], Store]] = {"s3": s3_store, "sftp": sftp_store}


class TestRepositoryOnS3(RepositoryVaultContract):
    def make_store(self, folder: Path) -> Store:
        return s3_store()


class TestRepositoryOnSftp(RepositoryVaultContract):
    def make_store(self, folder: Path) -> Store:
        return sftp_store()


# --- upkeep ---


@pytest.fixture(params=PLACES)
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(locks, "LATE", 0.0)
    return PLACES[request.param]()


def flip(store: Store, name: str, position: int) -> None:
    data = bytearray(store.read(name))
    data[position] ^= 1
    store.replace(name, bytes(data))


def test_it_is_pruned(store: Store) -> None:
    vault = new_vault(store)
    first, *_others = keep_three(vault)
    before = contents(vault)
    strange = leave_strange_pack(vault.repository)
    vault.delete(first.id)
    del before[first.id]
    planned = vault.prune(tolerated=0.0, dry_run=True)
    assert planned.unlisted == strange.size
    assert strange.name in set(store.names("data"))
    with small_packs():
        done = vault.prune(tolerated=0.0)
    assert done.repacked_packs
    assert done.freed == planned.freed
    assert contents(vault) == contents(vault_on(store)) == before
    assert blobs_twice(vault) == 0
    assert list(store.names("locks")) == []
    assert vault.prune(tolerated=0.0).freed == 0


def test_it_is_checked_whole_and_by_shares(store: Store) -> None:
    vault = new_vault(store)
    keep_three(vault)
    whole = vault.check()
    assert whole.sound
    assert whole.bytes_read == sum(size for _name, size in store.sizes("data"))
    place = place_of(vault, content(8))
    flip(store, pack_name(place[0]), place[1] + 20)
    found = vault.check().problems  # of the blob, and of its pack
    assert len(found) == 2
    assert all(place[0].hex() in problem for problem in found)
    shares = [vault.check(share=Share(day, 3)) for day in range(3)]
    assert sum(share.bytes_read for share in shares) == whole.bytes_read
    assert [problem for share in shares for problem in share.problems] == found
    assert vault.check(share=None).sound, "what is not read cannot be found out"


def test_its_index_is_repaired(store: Store) -> None:
    vault = new_vault(store)
    keep_three(vault)
    before = contents(vault)
    gone, *others = sorted(store.names("index"))
    store.delete(gone)
    for name in others:
        flip(store, name, 30)
    done = vault_on(store).repair_index()
    assert done.packs
    assert contents(vault_on(store)) == before
    assert vault_on(store).check().sound


def test_its_packs_and_backups_are_repaired(store: Store) -> None:
    vault = new_vault(store)
    first, second, third = keep_three(vault)
    pack, offset = place_of(vault, content(1))  # which only the first backup has
    flip(store, pack_name(pack), offset + 20)
    vault.repair_packs()
    done = vault.repair_snapshots(write=True, forget=True)
    assert {loss.path for loss in done.losses} == {"component/files/01"}
    left = [manifest.id for manifest in vault.manifests()]
    assert left == [f"{first.id}-repaired", second.id, third.id]
    again = vault_on(store)
    for backup_id in left:
        assert again.verify(again.manifest(backup_id), silent) == []
    assert again.check().sound


def place_of(vault: RepositoryVault, text: bytes) -> tuple[bytes, int]:
    """Return the pack that a file's only blob lies in, and where in it."""
    repository = vault.repository
    repository.load_index()
    [place] = repository.places(Kind.DATA, blob_id(text))
    return place.pack, place.blob.offset
