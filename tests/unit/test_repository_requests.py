"""How often a distant repository is asked, counted: with few backups, and with many.

A call of the store is one request to S3, but for what is larger than 8 MiB, for lists of more than
a thousand names, and for deleting, which looks whether it is a folder: that takes two.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.errors import BackupDamaged, RepositoryDamaged
from holdfast.model.artifact import Artifact, Entry, EntryKind, Tree, TreeItems
from holdfast.model.manifest import FILE_NAME, Manifest, encode
from holdfast.testing._trips import read_artifact, silent
from holdfast.testing.faults import Calls, FaultyStore
from holdfast.testing.memory import MemoryObjects
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.testing.vault_contract import keep as keep_artifacts
from holdfast.vaults.repository import index, locks, nodes
from holdfast.vaults.repository.backups import tags_of
from holdfast.vaults.repository.blobs import Kind, blob_id, seal_blob
from holdfast.vaults.repository.nodes import Node
from holdfast.vaults.repository.packs import Pack, finish, pack_name
from holdfast.vaults.repository.repository import INDEX, Repository
from holdfast.vaults.repository.snapshots import new_snapshot, save_snapshot
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.verbs.select import list_backups
from tests.upkeep_world import content, new_vault, small_packs, vault_on

OPENING = Counter(part=1, names=1, get=2)  # is it there, its keys; a key, the config


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LATE", 0.0)


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin without copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(params=[1, 100, 1000])
def backups(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


@pytest.fixture
def store(backups: int) -> MemoryObjects:
    """Return a store with so many backups, of which the newest was made as all are."""
    store = MemoryObjects()
    store.held = dict(history(backups))
    return store


@functools.cache
def history(backups: int) -> dict[str, bytes]:
    store = MemoryObjects()
    vault = new_vault(store, cache=False)
    first = backup(vault, 0, range(4))
    if backups > 1:
        older(vault.repository, first, backups - 1)
    return store.held


def backup(vault: RepositoryVault, day: int, files: range) -> Manifest:
    named = {f"{number:02}": content(number) for number in files}
    return keep_artifacts(vault, INSTANT + timedelta(days=day), samples(content(1000), named))


def older(repository: Repository, first: Manifest, count: int) -> None:
    """Add backups, each with a manifest and a root in packs of its own, in one index file."""
    packs: list[Pack] = []

    def stored(kind: Kind, plain: bytes) -> bytes:
        pack = finish(repository.key, [seal_blob(repository.key, kind, blob_id(plain), plain)])
        repository.store.put(pack.name, pack.chunks())
        packs.append(pack.pack)
        return blob_id(plain)

    for day in range(1, count + 1):
        instant = first.created_at - timedelta(days=day)
        manifest = replace(first, id=f"older_{day}", created_at=instant, artifacts=())
        text = encode(manifest)
        node = Node(FILE_NAME, nodes.FILE, size=len(text), content=[stored(Kind.DATA, text)])
        tree = stored(Kind.TREE, nodes.joined([nodes.encode_node(node)]))
        tags = tags_of(manifest.id, manifest.stack)
        save_snapshot(repository, new_snapshot(instant, tree, [], tags, "test"))
    repository.save(INDEX, index.encode(packs))


def asked(
    store: MemoryObjects, work: Callable[[RepositoryVault], object], **options: object
) -> Counter[str]:
    """Return how often each kind of call was made by a process that did this."""
    calls = Calls()
    work(vault_on(FaultyStore(store, calls), **options))
    return calls.counts - OPENING


def listed(vault: RepositoryVault) -> None:
    assert not list_backups(vault, "stack").damaged


def test_a_list_is_read_once(store: MemoryObjects, backups: int) -> None:
    """Each backup costs three requests the first time, and none from then on."""
    index_files = len(list(store.names("index")))
    seldom = Counter(names=3)  # snapshots twice, marks
    assert asked(store, listed) == seldom + Counter(
        names=1, get=backups + index_files, part=2 * backups
    )
    assert asked(store, listed) == seldom


def test_a_list_without_copies_reads_as_often_each_time(
    store: MemoryObjects, backups: int, copies: Path
) -> None:
    once = asked(store, listed, cache=False)
    assert once["part"] == 2 * backups
    assert asked(store, listed, cache=False) == once
    assert list(copies.iterdir()) == []


def test_marks_are_read_once(store: MemoryObjects, backups: int) -> None:
    vault = vault_on(store)
    marked = [one.id for one in vault.manifests() if isinstance(one, Manifest)][:50]
    for backup_id in marked:
        vault.mark(backup_id, lambda marks: replace(marks, pinned="why"))
    assert asked(store, listed)["get"] == len(marked)
    assert "get" not in asked(store, listed)
    vault.mark(marked[0], lambda marks: replace(marks, pinned=None))
    assert vault_on(store).marks_of(marked)[marked[0]].pinned is None
    assert vault_on(store).marks_of([*marked, "none"])["none"].pinned is None
    elsewhere = MemoryObjects()
    elsewhere.held = {name: data for name, data in store.held.items() if "marks" not in name}
    twin = vault_on(elsewhere, url="/elsewhere")
    twin.mark(marked[-1], lambda marks: marks)
    assert twin.marks_of(marked)[marked[-1]].pinned is None, "it is another's, marked apart"


def test_a_backup_of_nothing_new_costs_as_much_whatever_there_is(store: MemoryObjects) -> None:
    backup(vault_on(store), 1, range(4))
    found = asked(store, lambda vault: backup(vault, 2, range(4)))
    assert found == Counter(
        names=5,  # snapshots thrice, the index twice
        sizes=2,  # locks
        part=2,  # the manifest of the backup before; whether the lock is still there
        put=5,  # a lock, a pack with the manifest, one with the root, an index file, the snapshot
        delete=1,  # the lock
    )


def test_each_new_pack_costs_one_request(store: MemoryObjects) -> None:
    backup(vault_on(store), 1, range(4))
    with small_packs(4):
        found = asked(store, lambda vault: backup(vault, 2, range(100, 140)))
    assert found == Counter(names=5, sizes=2, part=2, put=5 + 10, delete=1)


def test_a_restore_reads_what_it_restores(store: MemoryObjects) -> None:
    vault = vault_on(store)
    newest = max(
        (one for one in vault.manifests() if isinstance(one, Manifest)),
        key=lambda one: one.created_at,
    )

    def every(vault: RepositoryVault) -> None:
        for stored in newest.artifacts:
            read_artifact(vault.artifact(newest, stored))

    found = asked(store, every)
    index_files, trees = len(list(store.names("index"))), 1
    assert found["get"] == index_files + trees, "never a copy of them, but of what lists backups"
    assert found["part"] <= 4 * len(newest.artifacts)


@pytest.mark.parametrize("backups", [1], indirect=True)
def test_what_proves_reads_no_copy(store: MemoryObjects) -> None:
    """Whatever is lost there is missed, however much of it there is here."""
    vault = vault_on(store)
    manifest = max(
        (one for one in vault.manifests() if isinstance(one, Manifest)),
        key=lambda one: one.created_at,
    )
    vault.prune(dry_run=True)  # which makes copies of all trees
    assert vault_on(store).check().problems == []
    assert vault_on(store).verify(manifest, silent) == []
    for name in list(store.names()):
        if name.startswith(("index/", "data/", "snapshots/")):
            kept = store.held[name]
            store.held[name] = bytes(len(kept))
            problems: list[str] = []
            try:
                problems = vault_on(store).verify(manifest, silent)
            except RepositoryDamaged as error:
                problems = [str(error)]
            assert problems, name
            assert vault_on(store).check().problems, name
            store.held[name] = kept


def test_a_plan_to_prune_reads_trees_once(store: MemoryObjects, backups: int) -> None:
    seldom = Counter(names=2, sizes=3, put=1, delete=1)  # snapshots, index; locks, packs; a lock
    first = asked(store, lambda vault: vault.prune(dry_run=True))
    assert first - seldom == Counter(get=first["get"])
    index_files, trees = len(list(store.names("index"))), first["get"] - backups
    assert backups <= trees - index_files <= backups + 4
    assert asked(store, lambda vault: vault.prune(dry_run=True)) == seldom


def test_a_vault_that_was_pruned_elsewhere_is_seen_as_it_is(store: MemoryObjects) -> None:
    """Copies of what is gone are gone too, and nothing that was removed counts as stored."""
    here, there = vault_on(store), vault_on(store, cache=False)
    kept = backup(here, 1, range(200, 204))
    there.delete(kept.id)
    there.prune(tolerated=0.0)
    again = backup(here, 2, range(200, 204))
    assert vault_on(store).verify(again, silent) == []
    assert kept.id not in {one.id for one in here.manifests()}


# --- folders -------------------------------------------------------------------------------------

FOLDERS = 60


def folders() -> list[Artifact]:
    """Return a tree of many folders, as a source gives it."""

    @contextmanager
    def tree() -> Iterator[TreeItems]:
        yield items()

    def items() -> TreeItems:
        yield Entry(".", EntryKind.FOLDER), iter(())
        for number in range(FOLDERS):
            yield Entry(f"{number:02}", EntryKind.FOLDER), iter(())
            yield Entry(f"{number:02}/file", EntryKind.FILE, size=4), iter((b"%4d" % number,))

    return [Tree("files", tree, 4 * FOLDERS, 2 * FOLDERS + 1)]


@pytest.fixture
def deep() -> tuple[MemoryObjects, Manifest]:
    store = MemoryObjects()
    return store, keep_artifacts(new_vault(store, cache=False), INSTANT, folders())


def restored(vault: RepositoryVault, manifest: Manifest) -> Sequence[object]:
    try:
        read_artifact(vault.artifact(manifest, manifest.artifacts[0]))
    except BackupDamaged as error:
        return [error]
    return []


Verb = Callable[[RepositoryVault, Manifest], Sequence[object]]
READING: dict[str, Verb] = {  # each returns what it finds wrong
    "restore": restored,
    "verify": lambda vault, manifest: vault.verify(manifest, silent),
    "present": lambda vault, manifest: vault.verify(manifest, silent, artifacts=False),
    "repair": lambda vault, _manifest: vault.repair_snapshots().losses,
    "check": lambda vault, _manifest: vault.check(share=None).problems,
}


@pytest.mark.parametrize("verb", READING)
def test_folders_are_read_pack_by_pack(deep: tuple[MemoryObjects, Manifest], verb: str) -> None:
    """And they are read there, whoever has what copies."""
    store, manifest = deep
    vault_on(store).prune(dry_run=True)
    found = asked(store, lambda vault: READING[verb](vault, manifest))
    assert found.total() < FOLDERS / 2
    (trees,) = {
        pack_name(place.pack)
        for place in loaded(store).index.everything()
        if place.blob.kind is Kind.TREE
    }
    assert READING[verb](vault_on(store), manifest) == []
    store.held[trees] = bytes(len(store.held[trees]))
    assert READING[verb](vault_on(store), manifest) != []


def loaded(store: MemoryObjects) -> Repository:
    repository = vault_on(store, cache=False).repository
    repository.load_index()
    return repository


def test_folders_that_did_not_change_cost_nothing(deep: tuple[MemoryObjects, Manifest]) -> None:
    """The packs of trees that a backup stores are at hand when the next one looks at them."""
    store, _manifest = deep

    def again(day: int) -> Counter[str]:
        instant = INSTANT + timedelta(days=day)
        return asked(store, lambda vault: keep_artifacts(vault, instant, folders()))

    first, second = again(1), again(2)
    assert first["get"] - second["get"] >= 1
    assert second["part"] == 2, "the manifest of the backup before; whether the lock is there"
