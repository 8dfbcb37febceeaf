"""Copying backups between vaults: the same id, its own place, nothing twice, nothing wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.errors import BackupDamaged, BackupDiffers
from holdfast.model.events import Event
from holdfast.model.manifest import Manifest
from holdfast.model.marks import Level, Proof
from holdfast.ports import Vault
from holdfast.runtime.session import SystemClock
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import read_artifact, silent
from holdfast.testing.memory_vault import MemoryVault
from holdfast.testing.vault_contract import INSTANT, keep, samples
from holdfast.vaults.plain import PlainOptions, PlainVault
from holdfast.verbs.copy import copy
from holdfast.verbs.select import Listed
from holdfast.verbs.surroundings import Surroundings


def hear(_event: Event) -> None:
    """Say nothing."""


def plain(folder: Path) -> PlainVault:
    return PlainVault("plain", LocalStore(folder), PlainOptions(url=folder))


def copied(vault: Vault, manifest: Manifest, target: Vault, scratch: Path) -> Manifest | None:
    listed = Listed(vault, manifest, vault.marks(manifest.id))
    return copy(listed, target, [], Surroundings(SystemClock(), hear, scratch))


def test_a_copy_holds_the_same_and_is_made_once(tmp_path: Path) -> None:
    origin, target = MemoryVault("origin"), plain(tmp_path)
    manifest = keep(origin)
    found = copied(origin, manifest, target, tmp_path)
    assert found is not None
    assert replace(found, artifacts=(), sequence=1) == replace(manifest, artifacts=())
    assert target.verify(found, silent) == []
    assert [read_artifact(target.artifact(found, one)) for one in found.artifacts] == [
        read_artifact(artifact) for artifact in samples()
    ]
    assert copied(origin, manifest, target, tmp_path) is None
    assert list(target.manifests()) == [found]


def test_an_older_backup_takes_its_place_among_the_others(tmp_path: Path) -> None:
    origin, target = MemoryVault("origin"), plain(tmp_path)
    made = [keep(origin, INSTANT + timedelta(hours=hours)) for hours in range(3)]
    keep(target, INSTANT + timedelta(hours=9))
    for manifest in (made[2], made[0], made[1]):
        copied(origin, manifest, target, tmp_path)
    ids = [one.id for one in target.manifests()]
    assert ids[:3] == [one.id for one in made]
    assert len(ids) == 4


def test_the_order_of_a_vault_stays_though_its_clock_was_off(tmp_path: Path) -> None:
    """The first was made by a clock that was a day ahead, the second when that was set right."""
    origin, target = MemoryVault("origin"), plain(tmp_path)
    hours = (24, 0, 48, 23, 25)
    made = [keep(origin, INSTANT + timedelta(hours=hour)) for hour in hours]
    for manifest in made:
        copied(origin, manifest, target, tmp_path)
    assert [one.id for one in target.manifests()] == [one.id for one in made]
    newest = keep(target, INSTANT + timedelta(hours=1))
    assert list(target.manifests())[-1] == newest


def test_a_pin_goes_along_and_a_proof_does_not(tmp_path: Path) -> None:
    origin, target = MemoryVault("origin"), plain(tmp_path)
    manifest = keep(origin)
    proof = Proof(Level.CHECKSUMS, INSTANT, passed=True)
    origin.mark(manifest.id, lambda marks: replace(marks.with_proof(proof), pinned="for ever"))
    copied(origin, manifest, target, tmp_path)
    marks = target.marks(manifest.id)
    assert marks.pinned == "for ever"
    assert marks.proofs == ()


def test_another_backup_of_the_same_name_is_not_taken_for_it(tmp_path: Path) -> None:
    origin, target = MemoryVault("origin"), plain(tmp_path)
    manifest = keep(origin)
    keep(target, artifacts=samples()[:1])
    there = list(target.manifests())
    assert there[0].id == manifest.id
    with pytest.raises(BackupDiffers):
        copied(origin, replace(manifest, host="another"), target, tmp_path)
    assert list(target.manifests()) == there


def test_of_a_damaged_backup_nothing_is_made(tmp_path: Path) -> None:
    origin, target = MemoryVault("origin"), plain(tmp_path)
    manifest = keep(origin)
    box = origin.boxes[manifest.id]
    path = manifest.artifacts[0].path
    box.artifacts[path] = box.artifacts[path][:-1] + b"?"
    with pytest.raises(BackupDamaged):
        copied(origin, manifest, target, tmp_path)
    assert list(target.manifests()) == []
    assert target.sweep() == []
