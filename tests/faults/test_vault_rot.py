"""Every single flipped byte of a small backup is found out, and the sums are the program's own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import BackupDamaged, HoldfastError
from holdfast.model.manifest import Manifest, encode
from holdfast.model.marks import Level, Marks, Proof
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import read_artifact, silent
from holdfast.testing.memory import MemoryStore
from holdfast.testing.vault_contract import INSTANT
from holdfast.vaults._marks_text import UNREADABLE, encode_marks
from holdfast.vaults._plain_documents import MOST_DOCUMENT, documents
from tests.vault_world import LAYOUTS, keep, make_vault

# A flat layout may put artifacts anywhere but in places that the vault keeps for itself.
FLAT_MAY_HAVE = {
    "secret",
    "backup_20260204_120000_2/component_rows.db",
}
DOCUMENTS = ("metadata.json", "SHA256SUMS")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_flipped_byte_is_found_out(layout: str) -> None:
    store = MemoryStore()
    vault = make_vault(store, layout)
    manifest = keep(vault)
    for name, data in list(store.held.items()):
        for position in range(len(data)):
            for flipped in {data[position] ^ 1, data[position] ^ 0x80}:
                store.held[name] = data[:position] + bytes([flipped]) + data[position + 1 :]
                assert vault.verify(manifest, silent), f"{name} at {position}"
        store.held[name] = data
    assert vault.verify(manifest, silent) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_manifest_is_never_returned(layout: str) -> None:
    store = MemoryStore()
    vault = make_vault(store, layout)
    manifest = keep(vault)
    home = "" if layout == "boxed" else "manifests/"
    path = f"{home}{manifest.id}/metadata.json"
    data = store.held[path]
    for position in range(len(data)):
        store.held[path] = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(BackupDamaged):
            vault.manifest(manifest.id)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_cut_of_a_document_is_found_out(layout: str) -> None:
    store = MemoryStore()
    vault = make_vault(store, layout)
    manifest = keep(vault)
    for name in [name for name in store.held if name.endswith(DOCUMENTS)]:
        data = store.held[name]
        for size in range(len(data)):
            store.held[name] = data[:size]
            with pytest.raises(BackupDamaged):
                vault.manifest(manifest.id)
        store.held[name] = data


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_and_extra_files_are_found_out(layout: str) -> None:
    store = MemoryStore()
    vault = make_vault(store, layout)
    manifest = keep(vault)
    home = manifest.id if layout == "boxed" else f"manifests/{manifest.id}"
    for name, data in list(store.held.items()):
        del store.held[name]
        problems = vault.verify(manifest, silent)
        assert len(problems) == 1, name
        store.held[name] = data
    store.held[f"{home}/extra"] = b""
    assert len(vault.verify(manifest, silent)) == 1


def test_a_manifest_with_sums_to_match_may_not_reach_outside() -> None:
    """Whoever can write the documents can make them agree, but not lead out of the backup."""
    store = MemoryStore()
    vault = make_vault(store, "boxed")
    keep(vault)
    victim = keep(vault)
    store.held["secret"] = b"x"
    for path in ("secret", f"{victim.id}/component_rows.db", "manifests/x", ".holdfast/marks/x"):
        evil = replace(victim, id="evil", artifacts=(replace(victim.artifacts[0], path=path),))
        for home in ("evil", "manifests/evil"):
            if home != "evil" and path in FLAT_MAY_HAVE:
                continue
            store.held |= documents(evil, "", home)
            with pytest.raises(BackupDamaged):
                vault.manifest("evil")
            store.delete(home)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sha256sum_agrees(tmp_path: Path, layout: str) -> None:
    vault = make_vault(LocalStore(tmp_path), layout)
    manifest = keep(vault)
    home = tmp_path / ("" if layout == "boxed" else "manifests") / manifest.id
    done = sha256sum(home)
    assert done.returncode == 0, done.stderr
    checked = {line.split(": ")[0] for line in done.stdout.splitlines()}
    assert {"RESTORE.md", "metadata.json"} <= checked
    assert len(checked) == 2 + len(manifest.artifacts)
    (tmp_path / manifest.artifacts[0].path).write_bytes(b"rotten")
    assert sha256sum(home).returncode == 1


def sha256sum(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_damaged_marks_never_hide_a_pin() -> None:
    store = MemoryStore()
    vault = make_vault(store, "boxed")
    manifest = keep(vault)
    proof = Proof(Level.NATIVE, INSTANT, passed=True)
    vault.mark(manifest.id, lambda _marks: Marks(pinned="audit", proofs=(proof,)))
    name = f".holdfast/marks/{manifest.id}.json"
    data = store.held[name]
    for position in range(len(data)):
        store.held[name] = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        assert vault.marks(manifest.id).pinned == UNREADABLE
        with pytest.raises(HoldfastError, match=UNREADABLE):
            vault.delete(manifest.id)
    marked = vault.mark(manifest.id, lambda marks: marks.with_proof(proof))
    assert marked.pinned == UNREADABLE
    assert vault.marks(manifest.id) == marked
    for text in (b"", b"null", b"[]", b"{" * 5000, encode_marks(Marks()) + b" "):
        store.held[name] = text
        assert vault.marks(manifest.id).pinned == UNREADABLE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_links_in_a_vault_are_not_followed(tmp_path: Path, layout: str) -> None:
    vault = make_vault(LocalStore(tmp_path / "vault"), layout)
    manifest = keep(vault)
    stored = manifest.artifacts[0]
    path = tmp_path / "vault" / stored.path
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    assert vault.verify(manifest, silent)
    with pytest.raises(BackupDamaged):
        read_artifact(vault.artifact(manifest, stored))
    assert vault.artifact(manifest, stored).size_hint == stored.content_size
    vault.delete(manifest.id)
    assert outside.stat().st_size == stored.size


def test_a_damaged_backup_in_its_own_folder_can_be_deleted() -> None:
    store = MemoryStore()
    vault = make_vault(store, "boxed")
    manifest = keep(vault)
    store.held[f"{manifest.id}/metadata.json"] = b"{}"
    vault.delete(manifest.id)
    assert list(store.names()) == []


def test_a_damaged_flat_backup_is_left_for_a_person_to_look_at() -> None:
    store = MemoryStore()
    vault = make_vault(store, "flat")
    manifest = keep(vault)
    before = dict(store.held)
    store.held[f"manifests/{manifest.id}/metadata.json"] = b"{}"
    with pytest.raises(BackupDamaged):
        vault.delete(manifest.id)
    store.held[f"manifests/{manifest.id}/metadata.json"] = encode(manifest)
    assert store.held == before


def test_deleting_spares_what_another_backup_claims_too() -> None:
    """Two flat manifests that claim one file: the sweep that finishes a deletion leaves it."""
    store = MemoryStore()
    vault = make_vault(store, "flat")
    manifest = keep(vault)
    names = [stored.path for stored in manifest.artifacts]
    store.held[".holdfast/trash/gone.names/list"] = str(names).replace("'", '"').encode()
    assert vault.sweep() == ["half-deleted backup gone"]
    assert vault.verify(manifest, silent) == []
    assert isinstance(vault.manifest(manifest.id), Manifest)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_documents_that_are_far_too_large_are_not_read(layout: str) -> None:
    store = MemoryStore()
    vault = make_vault(store, layout)
    manifest = keep(vault)
    for name in [name for name in store.held if name.endswith((*DOCUMENTS, "RESTORE.md", ".meta"))]:
        data = store.held[name]
        store.held[name] = data + bytes(MOST_DOCUMENT)
        assert "too large" in vault.verify(manifest, silent)[0]
        store.held[name] = data
    assert vault.verify(manifest, silent) == []
