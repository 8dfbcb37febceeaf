"""Repositories with backups that share content, to be pruned, checked and repaired."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from hashlib import shake_128
from pathlib import Path
from unittest.mock import patch

from holdfast.model.manifest import Manifest
from holdfast.ports import Store, Vault
from holdfast.testing._trips import read_artifact, silent
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.testing.vault_contract import keep as keep_artifacts
from holdfast.vaults.repository import keys, packs
from holdfast.vaults.repository.blobs import Kind, blob_id, seal_blob
from holdfast.vaults.repository.options import RepositoryOptions
from holdfast.vaults.repository.packs import FinishedPack, finish
from holdfast.vaults.repository.repository import Repository
from holdfast.vaults.repository.vault import RepositoryVault
from tests.restic_world import CHEAP, PASSWORD

FIRST, SECOND, THIRD = range(8), range(4, 12), range(8, 16)  # files of three backups


def vault_on(store: Store, **options: object) -> RepositoryVault:
    """Return the vault on a store."""
    settings = {"url": Path("/unused"), "password": PASSWORD, **options}
    return RepositoryVault("offsite", store, RepositoryOptions.model_validate(settings))


def new_vault(store: Store, **options: object) -> RepositoryVault:
    """Make a repository whose key costs nothing."""
    vault = vault_on(store, **options)
    with patch.object(keys, "OURS", CHEAP):
        vault.init()
    return vault


@contextmanager
def small_packs(blobs: int = 3) -> Iterator[None]:
    """Let packs be full when they have so many blobs."""
    with patch.object(packs, "MOST_BLOBS", blobs):
        yield


def content(number: int) -> bytes:
    """Return what is in a file."""
    return shake_128(b"%d" % number).digest(300)


def keep(vault: Vault, day: int, files: Iterable[int]) -> Manifest:
    """Seal a backup of files by their numbers, and of a stream."""
    named = {f"{number:02}": content(number) for number in files}
    return keep_artifacts(vault, INSTANT + timedelta(days=day), samples(content(1000 + day), named))


def keep_three(vault: RepositoryVault) -> list[Manifest]:
    """Seal three backups, each of which shares half of its files with the next."""
    with small_packs():
        return [keep(vault, day, files) for day, files in enumerate((FIRST, SECOND, THIRD))]


def leave_strange_pack(repository: Repository, text: bytes = b"left") -> FinishedPack:
    """Store a pack that no index file lists, as a run that died."""
    sealed = seal_blob(repository.key, Kind.DATA, blob_id(text), text)
    pack = finish(repository.key, [sealed])
    repository.store.put(pack.name, pack.chunks())
    return pack


def contents(vault: Vault) -> dict[str, object]:
    """Read every backup whole; returns what is in each."""
    found: dict[str, object] = {}
    for manifest in vault.manifests():
        assert isinstance(manifest, Manifest), manifest
        assert vault.verify(manifest, silent) == []
        found[manifest.id] = [
            read_artifact(vault.artifact(manifest, stored)) for stored in manifest.artifacts
        ]
    return found


def blobs_twice(vault: RepositoryVault) -> int:
    """Return how many blobs the index lists in two places."""
    repository = vault.repository.fresh()
    repository.load_index()
    every = [(place.blob.kind, place.blob.id) for place in repository.index.everything()]
    return len(every) - len(set(every))
