"""Repairing: only what is damaged is lost, and who lost what is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.errors import AppendOnly, BackupDamaged, RepositoryDamaged
from holdfast.model.artifact import Entry
from holdfast.model.manifest import Form, Manifest, Status
from holdfast.model.marks import Marks
from holdfast.testing._trips import read_artifact, silent
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import locks
from holdfast.vaults.repository.blobs import Kind, blob_id
from holdfast.vaults.repository.index import Place
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.repair_snapshots import Trees
from holdfast.vaults.repository.snapshots import Snapshot, load_snapshot, snapshots
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.vaults.repository.walk import find
from holdfast.vaults.repository.write import Writer
from tests.upkeep_world import content, contents, keep, keep_three, new_vault, small_packs, vault_on


@pytest.fixture(autouse=True)
def _no_wait_for_listings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LATE", 0.0)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def vault(store: MemoryStore) -> RepositoryVault:
    return new_vault(store)


def place_of(vault: RepositoryVault, kind: Kind, id_: bytes) -> Place:
    repository = vault.repository.fresh()
    repository.load_index()
    [place] = repository.places(kind, id_)
    return place


def spoil(store: MemoryStore, place: Place) -> str:
    """Change a byte in the middle of a blob; returns the name of the pack."""
    name = pack_name(place.pack)
    at = place.blob.offset + place.blob.length // 2
    data = store.held[name]
    store.held[name] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    return name


def spoil_file(store: MemoryStore, number: int) -> str:
    return spoil(store, place_of(vault_on(store), Kind.DATA, blob_id(content(number))))


def snapshot_of(vault: RepositoryVault, backup_id: str) -> Snapshot:
    found = (one for one in snapshots(vault.repository) if isinstance(one, Snapshot))
    return next(one for one in found if f"backup:{backup_id}" in one.tags)


# --- the index ---

INDEX_DAMAGE: dict[str, Callable[[MemoryStore, str], object]] = {
    "gone": lambda store, name: store.held.pop(name),
    "flipped": lambda store, name: store.held.update({name: b"?" + store.held[name][1:]}),
    "empty": lambda store, name: store.held.update({name: b""}),
}


@pytest.mark.parametrize("damage", INDEX_DAMAGE)
@pytest.mark.parametrize("count", [1, 3])
def test_the_index_is_made_anew(
    vault: RepositoryVault, store: MemoryStore, damage: str, count: int
) -> None:
    keep_three(vault)
    before = contents(vault)
    for name in sorted(store.names("index"))[:count]:
        INDEX_DAMAGE[damage](store, name)
    damaged = vault_on(store)
    done = damaged.repair_index()
    assert done.damaged_packs == []
    assert len(done.damaged_files) == (0 if damage == "gone" else count)
    assert contents(damaged) == contents(vault_on(store)) == before
    assert vault_on(store).check().sound
    assert vault_on(store).check().packs == done.packs
    assert len(list(store.names("index"))) == 1


def test_of_a_pack_whose_header_is_damaged_the_old_index_is_believed(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    keep_three(vault)
    before = contents(vault)
    name = pack_name(place_of(vault, Kind.DATA, blob_id(content(3))).pack)
    store.held[name] = store.held[name][:-1] + b"\xff"
    done = vault_on(store).repair_index()
    assert [name in line for line in done.damaged_packs] == [True]
    assert contents(vault_on(store)) == before
    repaired = vault_on(store).repair_packs()
    assert repaired.damaged.keys() == {name}
    assert repaired.lost == 0
    assert vault_on(store).check().sound
    assert name in store.held, "it stays until the repository is pruned"
    assert contents(vault_on(store)) == before
    vault_on(store).prune()
    assert name not in store.held
    assert contents(vault_on(store)) == before


# --- packs ---


def test_of_a_damaged_pack_only_what_is_damaged_is_lost(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    keep_three(vault)
    spoilt = {spoil_file(store, 0), spoil_file(store, 5)}
    done = vault_on(store).repair_packs()
    assert done.damaged.keys() == spoilt
    assert done.lost == 2
    assert done.moved == 3 * len(spoilt) - 2
    problems = vault_on(store).check().problems
    assert len(problems) == 2
    assert all("no index file lists it" in problem for problem in problems)
    again = vault_on(store).repair_packs()
    assert again.damaged == {}


@pytest.mark.parametrize("change", ["missing", "shorter", "longer", "zeros"])
def test_a_pack_of_another_size(vault: RepositoryVault, store: MemoryStore, change: str) -> None:
    keep_three(vault)
    before = contents(vault)
    name = pack_name(place_of(vault, Kind.DATA, blob_id(content(9))).pack)
    data = store.held.pop(name)
    if change != "missing":
        changes = {"shorter": data[:-60], "longer": data + b"x", "zeros": bytes(len(data))}
        store.held[name] = changes[change]
    done = vault_on(store).repair_packs()
    lost = {"missing": 3, "shorter": 0, "longer": 0, "zeros": 3}[change]
    assert done.lost == lost
    assert vault_on(store).check().sound == (not lost)
    if not lost:
        assert contents(vault_on(store)) == before


def test_a_blob_that_lies_elsewhere_too_is_not_lost(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    with small_packs():
        keep(vault, 1, range(6))
        hidden = {name: store.held.pop(name) for name in [*store.names("index")]}
        hidden |= {name: store.held.pop(name) for name in [*store.names("snapshots")]}
        first = place_of_hidden(store, hidden, 2)
        keep(vault_on(store), 2, range(6))
    store.held |= hidden
    before = contents(vault_on(store))
    spoil(store, first)
    done = vault_on(store).repair_packs()
    assert (done.lost, done.moved) == (0, 0), "all of it lies elsewhere"
    assert contents(vault_on(store)) == before


def place_of_hidden(store: MemoryStore, hidden: dict[str, bytes], number: int) -> Place:
    shown = MemoryStore()
    shown.held = store.held | hidden
    return place_of(vault_on(shown), Kind.DATA, blob_id(content(number)))


# --- snapshots ---


def names_in(vault: RepositoryVault, manifest: Manifest) -> set[str]:
    [stored] = [stored for stored in manifest.artifacts if stored.form is Form.TREE]
    entries = read_artifact(vault.artifact(manifest, stored))
    assert isinstance(entries, list)
    return {entry.path for entry, _data in entries if isinstance(entry, Entry)}


def test_who_lost_what_is_said_and_nothing_is_changed(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    first, second, third = keep_three(vault)
    spoil_file(store, 5)  # in the first and the second
    spoil_file(store, 13)  # in the third
    damaged = vault_on(store)
    damaged.repair_packs()
    before = dict(store.held)
    done = damaged.repair_snapshots()
    assert {(loss.backup, loss.artifact, loss.path) for loss in done.losses} == {
        (first.id, "component/files", "component/files/05"),
        (second.id, "component/files", "component/files/05"),
        (third.id, "component/files", "component/files/13"),
    }
    assert done.repaired == {}
    assert store.held == before


def test_what_is_left_becomes_a_backup_that_says_so(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    first, second, third = keep_three(vault)
    whole = contents(vault)
    spoil_file(store, 5)
    vault_on(store).repair_packs()
    done = vault_on(store).repair_snapshots(write=True)
    assert done.backups == {one.id: f"{one.id}-repaired" for one in (first, second)}
    repaired = vault_on(store)
    for before in (first, second):
        after = repaired.manifest(done.backups[before.id])
        assert repaired.verify(after, silent) == []
        assert (after.status, after.good) == (Status.PARTIAL, False)
        assert [one.evidence for one in after.components] == [True]
        assert any("component/files/05" in note for note in after.notes)
        assert before.id in "".join(after.notes)
        assert (after.sequence, after.created_at) == (before.sequence, before.created_at)
        assert "05" not in names_in(repaired, after)
        expected = {entry.path for entry, _ in whole[before.id][1]} - {"05"}  # type: ignore[index]
        assert names_in(repaired, after) == expected
        snapshot = snapshot_of(repaired, after.id)
        assert "repaired" in snapshot.tags
        assert repaired.verify(repaired.manifest(before.id), silent) != [], "it is not hidden"
    assert repaired.verify(repaired.manifest(third.id), silent) == []
    names = set(store.held)
    again = repaired.repair_snapshots(write=True)
    assert (again.backups, again.repaired) == (done.backups, done.repaired)
    assert set(store.held) == names, "it is done once"


def test_the_damaged_ones_are_forgotten_on_request_but_pinned_ones_are_not(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    first, second, third = keep_three(vault)
    vault.mark(first.id, lambda _marks: Marks(pinned="the first"))
    spoil_file(store, 5)
    vault_on(store).repair_packs()
    done = vault_on(store).repair_snapshots(write=True, forget=True)
    assert done.pinned == [first.id]
    repaired = vault_on(store)
    ids = {one.id for one in repaired.manifests()}
    assert ids == {first.id, f"{first.id}-repaired", f"{second.id}-repaired", third.id}
    repaired.mark(first.id, lambda _marks: Marks())
    repaired.delete(first.id)
    assert repaired.check().sound
    repaired.prune(tolerated=0.0)
    assert repaired.check().sound
    assert len(contents(vault_on(store))) == 3


def test_a_stream_that_lost_a_piece_is_no_artifact_any_more(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    backup = keep(vault, 1, range(3))
    spoil(store, place_of(vault, Kind.DATA, blob_id(content(1001))))
    vault_on(store).repair_packs()
    repaired = vault_on(store)
    done = repaired.repair_snapshots(write=True, forget=True)
    assert [loss.artifact for loss in done.losses] == ["component/data.db"]
    after = repaired.manifest(done.backups[backup.id])
    assert after.artifacts == ()
    assert [(one.status, bool(one.error)) for one in after.components] == [("failed", True)]
    assert vault_on(store).check().sound


def test_a_folder_that_cannot_be_read_is_lost_whole(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    backup = keep(vault, 1, range(3))
    vault.repository.load_index()
    node = find(vault.repository, snapshot_of(vault, backup.id).tree, "component/files")
    assert node is not None
    assert node.subtree is not None
    spoil(store, place_of(vault, Kind.TREE, node.subtree))
    vault_on(store).repair_packs()
    repaired = vault_on(store)
    done = repaired.repair_snapshots(write=True, forget=True)
    assert [loss.path for loss in done.losses] == ["component/files"]
    assert vault_on(store).check().sound
    assert [one.status for one in repaired.manifest(f"{backup.id}-repaired").components] == [
        "failed"
    ]


def test_a_backup_without_its_manifest_is_left_to_restic(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    with small_packs(1):
        backup = keep(vault, 1, range(3))
    vault.repository.load_index()
    node = find(vault.repository, snapshot_of(vault, backup.id).tree, "metadata.json")
    assert node is not None
    spoil(store, place_of(vault, Kind.DATA, node.content[0]))
    vault_on(store).repair_packs()
    repaired = vault_on(store)
    done = repaired.repair_snapshots(write=True, forget=True)
    assert done.backups == {}
    [name] = done.repaired.values()
    left = load_snapshot(repaired.repository, name)
    assert not any(tag.startswith("backup:") for tag in left.tags)
    assert "repaired" in left.tags
    assert list(repaired.manifests()) == []
    assert vault_on(store).check().sound


def test_a_snapshot_of_which_nothing_is_left(vault: RepositoryVault, store: MemoryStore) -> None:
    backup = keep(vault, 1, range(3))
    other = keep(vault, 2, range(3))
    found = snapshot_of(vault, backup.id)
    store.held[f"snapshots/{found.name}"] = b"?" * 200
    spoil(store, place_of(vault, Kind.TREE, snapshot_of(vault, other.id).tree))
    vault_on(store).repair_packs()
    done = vault_on(store).repair_snapshots()
    assert len(done.hopeless) == 2
    with pytest.raises(RepositoryDamaged):
        vault_on(store).prune()
    done = vault_on(store).repair_snapshots(write=True, forget=True)
    assert set(done.forgotten) == set(done.hopeless)
    assert vault_on(store).check().sound
    vault_on(store).prune()


def test_packs_are_repaired_first(vault: RepositoryVault, store: MemoryStore) -> None:
    keep(vault, 1, range(3))
    del store.held[next(store.names("data"))]
    with pytest.raises(RepositoryDamaged, match="repair packs first"):
        vault_on(store).repair_snapshots()


def test_a_sound_repository_stays_as_it_is(vault: RepositoryVault, store: MemoryStore) -> None:
    keep_three(vault)
    before = dict(store.held)
    assert vault.repair_packs().damaged == {}
    assert vault.repair_snapshots(write=True, forget=True).losses == []
    assert store.held == before
    vault.repair_index()
    assert vault.check().sound
    assert vault.check().hints == []


def test_an_append_only_vault_is_not_repaired(store: MemoryStore) -> None:
    keep_three(new_vault(store))
    closed = vault_on(store, append_only=True)
    for repair in (closed.repair_index, closed.repair_packs):
        with pytest.raises(AppendOnly):
            repair()
    with pytest.raises(AppendOnly):
        closed.repair_snapshots(write=True, forget=True)
    assert closed.repair_snapshots(write=True).losses == []


def test_a_backup_that_lost_something_cannot_be_read_as_if_it_were_whole(
    vault: RepositoryVault, store: MemoryStore
) -> None:
    backup = keep(vault, 1, range(3))
    spoil_file(store, 1)
    vault_on(store).repair_packs()
    repaired = vault_on(store)
    [stored] = [stored for stored in backup.artifacts if stored.form is Form.TREE]
    with pytest.raises(BackupDamaged):
        read_artifact(repaired.artifact(backup, stored))


def test_what_is_kept_keeps_its_very_bytes(vault: RepositoryVault) -> None:
    """What others wrote into nodes, and how: restic rewrites no tree that it would not write so."""
    saved: list[bytes] = []
    repository = vault.repository
    times = ",".join(f'"{name}":"2026-01-01T00:00:00Z"' for name in ("mtime", "atime", "ctime"))
    kept = (
        f'{{"name":"a\\u003cä","type":"file",{times},"content":[],"generic_attributes":{{"x":1}}}}'
    )
    lost = f'{{"name":"b","type":"file",{times},"content":["{"0" * 64}"]}}'
    with Writer(repository) as writer:
        inner = writer.tree(f'{{"nodes":[{kept},{lost}]}}\n'.encode())
        folder = f'{{"name":"ü","type":"dir",{times},"content":null,"subtree":"{{}}","new":true}}'
        root = writer.tree(f'{{"nodes":[{folder.replace("{}", inner.hex())}]}}\n'.encode())
        writer.finish()

    def save(document: bytes) -> bytes:
        saved.append(document)
        return blob_id(document)

    told: list[str] = []
    Trees(repository, save).repaired(root, lambda path, _reason: told.append(path))
    expected = f'{{"nodes":[{kept}]}}\n'.encode()
    around = folder.replace("{}", blob_id(expected).hex())
    assert saved == [expected, f'{{"nodes":[{around}]}}\n'.encode()]
    assert told == ["ü/b"]
