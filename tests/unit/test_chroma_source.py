"""The Chroma source beyond its contract: what it copies, counts, refuses and hands out."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.errors import (
    ExtraMissing,
    SourceCorrupt,
    SourceMissing,
    SourceUnfit,
    TargetInUse,
    TargetUnfit,
    UnknownName,
    UsageInvalid,
)
from holdfast.model.artifact import Tree
from holdfast.model.facts import Facts
from holdfast.sources import _chroma_fence, _chroma_open, _mounts
from holdfast.sources import _chroma_folder as chroma_module
from holdfast.sources._chroma_folder import ChromaFolder
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.sources._mounts import shared_file_system
from holdfast.sources._tree import tree_of, write_tree
from tests.chroma_world import Writer, content_of, make_store
from tests.nowhere import NOWHERE

HOLD = """
import sys, time
held = open(sys.argv[1])
print("open", flush=True)
time.sleep(60)
"""
TENANTS = """
import sys, chromadb
from chromadb.config import Settings
settings = Settings(anonymized_telemetry=False)
admin = chromadb.AdminClient(
    Settings(is_persistent=True, persist_directory=sys.argv[1], anonymized_telemetry=False)
)
admin.create_tenant("acme")
admin.create_database("archive", tenant="acme")
client = chromadb.PersistentClient(sys.argv[1], settings, tenant="acme", database="archive")
prose = client.create_collection("prose", embedding_function=None)
prose.add(ids=["a", "b"], embeddings=[[1.0] * 16, [2.0] * 16], metadatas=[{"row": 1}, {"row": 2}])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "chroma", seed=41, operations=30)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "chroma"))


@pytest.fixture
def source(store: Path) -> ChromaFolder:
    return source_of(store)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return workspace


def source_of(path: Path) -> ChromaFolder:
    return ChromaFolder("memory", ChromaOptions(path=path))


def restored(source: ChromaFolder, workspace: Path) -> Path:
    """Return the folder that a backup of ``source`` becomes."""
    target = workspace / "restored"
    with source.freeze(workspace) as frozen:
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        write_tree(tree, target)
        frozen.facts()
    return target


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def keys(source: ChromaFolder, options: Mapping[str, str]) -> list[str]:
    with source.keys(options) as found:
        return sorted(found)


def execute(store: Path, sql: str, *parameters: object) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection, connection:
        connection.execute(sql, parameters)


# --- what is copied ------------------------------------------------------------------------------


def test_other_files_are_copied_too_but_no_journals(
    source: ChromaFolder, store: Path, workspace: Path
) -> None:
    (store / "notes").mkdir()
    (store / "notes" / "read me.txt").write_text("kept")
    (store / "notes" / "empty").mkdir()
    (store / "link").symlink_to("notes")
    (store / "chroma.sqlite3-shm").write_text("not kept")
    copy = restored(source, workspace)
    assert names(copy) == names(store) - {"chroma.sqlite3-shm"}
    assert (copy / "notes" / "empty").is_dir()
    assert (copy / "notes" / "read me.txt").read_text() == "kept"


def test_owner_mode_and_time_are_kept(source: ChromaFolder, store: Path, workspace: Path) -> None:
    database = store / "chroma.sqlite3"
    database.chmod(0o640)
    store.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(database, 1234, 1235)
    copy = restored(source, workspace)

    def seen(path: Path) -> tuple[int, ...]:
        status = path.stat()
        return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns

    for name in ("chroma.sqlite3", *(name for name in names(store) if name.endswith(".bin"))):
        assert seen(copy / name) == seen(store / name)
    assert copy.stat().st_mode == store.stat().st_mode


def test_a_database_with_a_write_ahead_log_is_copied_whole(
    source: ChromaFolder, store: Path, workspace: Path
) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("INSERT INTO tenants VALUES ('only in the log')")
        connection.commit()
        assert (store / "chroma.sqlite3-wal").stat().st_size
        copy = restored(source, workspace)
    with closing(sqlite3.connect(copy / "chroma.sqlite3")) as connection:
        assert connection.execute("SELECT 1 FROM tenants WHERE id LIKE 'only%'").fetchone()
    assert not any(name.endswith(("-wal", "-shm")) for name in names(copy))


def test_a_transaction_that_a_crash_left_behind_is_not_copied(
    store: Path, tmp_path: Path, workspace: Path
) -> None:
    crash = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size=1')\n"
        "c.execute('BEGIN')\n"
        "c.execute('DELETE FROM embeddings_queue')\n"
        "c.execute('DELETE FROM embeddings')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    before = content_of(store)
    subprocess.run([sys.executable, "-c", crash, str(store / "chroma.sqlite3")], check=False)
    assert (store / "chroma.sqlite3-journal").stat().st_size
    assert content_of(restored(source_of(store), workspace)) == before


def test_a_store_without_any_collection_is_copied(tmp_path: Path, workspace: Path) -> None:
    store = make_store(tmp_path / "fresh", seed=1, operations=0, plan={"names": []})
    copy = restored(source_of(store), workspace)
    assert source_of(copy).facts().counts == {"collections": 0}


# --- what is counted -----------------------------------------------------------------------------


def test_counts_and_details_are_chromas(source: ChromaFolder, store: Path) -> None:
    content = content_of(store)
    facts = source.facts()
    vectors = {f"vectors/{name}": len(records) for name, records in content.items()}
    assert facts.counts == vectors | {"collections": len(content)}
    details = facts.details["collections"]
    assert isinstance(details, dict)
    assert details["speech"] == {"dimension": 16, "metric": "cosine", "sync_threshold": 1000}


def test_ids_that_wait_in_the_queue_are_counted_and_given(
    source: ChromaFolder, store: Path
) -> None:
    before = keys(source, {"collection": "prose"})
    copied = (
        "INSERT INTO embeddings_queue (operation, topic, id, vector, encoding, metadata)"
        " SELECT ?, topic, ?, vector, encoding, ? FROM embeddings_queue"
        " WHERE id LIKE 'prose%' AND vector IS NOT NULL LIMIT 1"
    )
    for operation, name, metadata in (
        (0, "new", {"shelf": "N"}),
        (0, before[0], {"shelf": "ignored"}),
        (1, "absent", {"shelf": "ignored"}),
        (1, before[1], {"shelf": "U"}),
        (2, "newer", {"shelf": "M"}),
        (3, before[2], {}),
        (3, "newer", {}),
    ):
        execute(store, copied, operation, name, json.dumps(metadata))
    expected = sorted({*before, "new"} - {before[2]})
    assert keys(source, {"collection": "prose"}) == expected
    assert source.facts().counts["vectors/prose"] == len(expected)
    shelves = keys(source, {"collection": "prose", "metadata": "shelf"})
    assert len(shelves) == len(expected)
    assert {"N", "U"} < set(shelves)
    assert not {"M", "ignored"} & set(shelves)


def test_metadata_values_are_given_as_text(source: ChromaFolder, store: Path) -> None:
    records = content_of(store)["prose"].values()
    for key in ("stamp", "shelf", "weight"):
        expected = sorted(str(record["metadata"][key]) for record in records)
        assert keys(source, {"collection": "prose", "metadata": key}) == expected
    assert keys(source, {"collection": "prose", "metadata": "none"}) == []


def test_keys_do_not_hold_writers_while_they_are_taken(source: ChromaFolder, store: Path) -> None:
    with source.keys({"collection": "prose"}) as found:
        next(found)
        execute(store, "UPDATE acquire_write SET lock_status = 5")


@pytest.mark.parametrize("options", [{}, {"metadata": "x"}, {"collection": "prose", "where": "x"}])
def test_keys_refuse_options_that_they_do_not_know(
    source: ChromaFolder, options: dict[str, str]
) -> None:
    with pytest.raises(UsageInvalid), source.keys(options):
        pass


def test_keys_of_an_unknown_collection_name_the_known_ones(source: ChromaFolder) -> None:
    with pytest.raises(UnknownName) as caught, source.keys({"collection": "proze"}):
        pass
    assert "prose" in caught.value.hint


def test_collections_of_other_tenants_are_told_apart(
    source: ChromaFolder, store: Path, workspace: Path
) -> None:
    subprocess.run([sys.executable, "-c", TENANTS, str(store)], check=True, capture_output=True)
    assert source.facts().counts["vectors/acme/archive/prose"] == 2
    assert keys(source, {"collection": "acme/archive/prose"}) == ["a", "b"]
    assert keys(source, {"collection": "acme/archive/prose", "metadata": "row"}) == ["1", "2"]
    with source.freeze(workspace) as frozen:
        inner = workspace / "inspection"
        inner.mkdir()
        inspection = source.inspect(frozen.artifacts, inner)
    assert inspection.problems == ()
    assert inspection.facts.counts["vectors/acme/archive/prose"] == 2


# --- what is refused -----------------------------------------------------------------------------


def test_a_folder_without_a_database_is_unfit(tmp_path: Path, workspace: Path) -> None:
    (tmp_path / "other").mkdir()
    source = source_of(tmp_path / "other")
    assert source.facts() == Facts()
    assert not source.probe().reachable
    with pytest.raises(SourceUnfit, match=r"no chroma\.sqlite3"), source.freeze(workspace):
        pass


def test_a_missing_folder_is_missing(tmp_path: Path, workspace: Path) -> None:
    with pytest.raises(SourceMissing), source_of(tmp_path / "none").freeze(workspace):
        pass


def test_a_network_disk_is_refused(
    source: ChromaFolder, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_module, "shared_file_system", lambda _path: "nfs4")
    with pytest.raises(SourceUnfit, match="locks on nfs4"), source.freeze(workspace):
        pass
    assert "nfs4" in source.probe().problems[0]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", ""),
        ("/data/x", "nfs4"),
        ("/data", "nfs4"),
        ("/database", ""),
        ("/data/local disk/x", ""),
        ("/ssh/x", "fuse.sshfs"),
        ("/usb", ""),
        ("/over", "9p"),
    ],
)
def test_the_innermost_mount_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    lines = (
        "1 0 8:1 / / rw - ext4 /dev/sda rw",
        "2 1 0:5 / /data rw shared:1 - nfs4 server:/ rw",
        "3 2 8:2 / /data/local\\040disk rw - xfs /dev/sdb rw",
        "4 1 0:6 / /ssh rw - fuse.sshfs host:/ rw",
        "5 1 0:7 / /usb rw - fuseblk /dev/sdc rw",
        "6 1 8:1 / /over rw - ext4 /dev/sda rw",
        "7 6 0:8 / /over rw - 9p host rw",
    )
    (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(_mounts, "MOUNTS", tmp_path / "mountinfo")
    assert shared_file_system(Path(path)) == kind


# --- damage and evidence -------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chroma_fence, "PATIENCE_SECONDS", 0.5)


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """A store with an index that was half written when its writer died."""
    store = make_store(tmp_path / "chroma", seed=42, operations=40, threshold=100)
    pickle = next(store.glob("*/index_metadata.pickle"))
    pickle.write_bytes(pickle.read_bytes()[:-100])
    return store


def test_a_damaged_store_is_not_backed_up(torn: Path, workspace: Path, impatient: None) -> None:
    with (
        pytest.raises(SourceCorrupt, match=r"index_metadata\.pickle"),
        source_of(torn).freeze(workspace),
    ):
        pass


def test_a_damaged_store_is_kept_as_evidence(
    torn: Path, workspace: Path, tmp_path: Path, impatient: None
) -> None:
    source = source_of(torn)
    with source.freeze(workspace, evidence=True) as frozen:
        assert (frozen.evidence, frozen.exact) == (True, False)
        facts = frozen.facts()
        assert "index_metadata.pickle" in facts.notes[0]
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        write_tree(tree, tmp_path / "evidence")
        inner = workspace / "inspection"
        inner.mkdir()
        assert source.inspect(frozen.artifacts, inner).problems
        staged = source.at(tmp_path / "elsewhere").staging("t", NOWHERE)
        staged.fill(frozen.artifacts)
        staged.activate()
    for folder in (tmp_path / "evidence", tmp_path / "elsewhere"):
        assert names(folder) == names(torn)


def test_a_sound_store_is_no_evidence(source: ChromaFolder, workspace: Path) -> None:
    with source.freeze(workspace, evidence=True) as frozen:
        assert (frozen.evidence, frozen.exact) == (False, True)


def test_a_database_that_no_longer_opens_is_kept_as_evidence(
    source: ChromaFolder, store: Path, workspace: Path, tmp_path: Path
) -> None:
    (store / "chroma.sqlite3").write_bytes(b"junk" * 1000)
    with source.freeze(workspace, evidence=True) as frozen:
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        write_tree(tree, tmp_path / "evidence")
        assert frozen.facts().notes
    assert names(tmp_path / "evidence") == names(store)
    assert (tmp_path / "evidence" / "chroma.sqlite3").read_bytes() == b"junk" * 1000


def test_a_rotten_page_of_the_database_is_found_while_it_is_read(
    source: ChromaFolder, store: Path, workspace: Path
) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection:
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'embedding_metadata'"
        ).fetchone()[0]
    with (store / "chroma.sqlite3").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 200)
    with source.freeze(workspace) as frozen, pytest.raises(SourceCorrupt, match=r"chroma\.sqlite3"):
        frozen.facts()


# --- verification --------------------------------------------------------------------------------


def inspected(source: ChromaFolder, folder: Path, workspace: Path) -> tuple[str, ...]:
    return source.inspect([tree_of(folder, "chroma")], workspace).problems


def test_what_chroma_finds_itself_is_reported(
    source: ChromaFolder, store: Path, workspace: Path
) -> None:
    """The structure is sound, but Chroma cannot make sense of the content."""
    execute(store, "UPDATE collections SET schema_str = '{', config_json_str = '{'")
    problems = inspected(source, store, workspace)
    assert any("Chroma" in problem for problem in problems)


def test_a_chroma_that_takes_too_long_is_ended(store: Path, workspace: Path) -> None:
    source = ChromaFolder("memory", ChromaOptions(path=store, open_timeout=0.05))
    assert inspected(source, store, workspace) == ("Chroma did not open the copy within 0.05 s",)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("raise SystemExit('no luck')", "no luck"),
        ("pass", "it ended with 0"),
    ],
)
def test_a_chroma_that_crashes_is_reported(  # noqa: PLR0917 - fixtures
    source: ChromaFolder,
    store: Path,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    expected: str,
) -> None:
    opener = workspace / "opener.py"
    opener.write_text(program)
    monkeypatch.setattr(_chroma_open, "OPENER", opener)
    (problem,) = inspected(source, store, workspace)
    assert expected in problem


def test_verifying_needs_chroma(
    source: ChromaFolder, store: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_open, "find_spec", lambda _name: None)
    with pytest.raises(ExtraMissing) as caught:
        inspected(source, store, workspace)
    assert "holdfast[chroma]" in caught.value.hint


# --- restoring -----------------------------------------------------------------------------------


def test_a_store_that_is_open_is_not_replaced(
    source: ChromaFolder, store: Path, workspace: Path
) -> None:
    before = names(store)
    staged = source.staging("t", NOWHERE)
    with source.freeze(workspace) as frozen:
        staged.fill(frozen.artifacts)
    header = next(store.glob("*/header.bin"))
    command = [sys.executable, "-c", HOLD, str(header)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert str(other.pid) in source.occupants()[0]
        with pytest.raises(TargetInUse, match=str(other.pid)):
            staged.activate()
        other.kill()
    staged.revert()
    assert names(store) == before


def test_a_store_that_chroma_has_open_has_an_occupant(store: Path, tmp_path: Path) -> None:
    with Writer(tmp_path, seed=43, path=store) as writer:
        writer.wait_for(2)
        assert source_of(store).occupants()


def test_a_lock_counts_even_if_its_owner_cannot_be_seen(
    source: ChromaFolder, store: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chroma_module, "open_by", lambda _paths: [])
    staged = source.staging("t", NOWHERE)
    with source.freeze(workspace) as frozen:
        staged.fill(frozen.artifacts)
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TargetInUse, match="lock on its database"):
            staged.activate()
    staged.activate()
    staged.settle(None)


def test_a_backup_with_a_broken_structure_is_not_staged(
    source: ChromaFolder, store: Path, tmp_path: Path
) -> None:
    execute(store, "DELETE FROM embeddings_queue")
    staged = source.at(tmp_path / "elsewhere").staging("t", NOWHERE)
    with pytest.raises(SourceCorrupt, match="has no vector"):
        staged.fill([tree_of(store, "chroma")])
    staged.revert()
    assert not (tmp_path / "elsewhere").exists()


def test_a_backup_of_something_else_is_not_staged(source: ChromaFolder) -> None:
    with pytest.raises(TargetUnfit, match="one Chroma folder"):
        source.staging("t", NOWHERE).fill([])


@pytest.mark.parametrize("form", ["tar.zst", "tar.gz", "tar", "folder"])
def test_the_guide_unpacks_every_form_of_archive(
    source: ChromaFolder, store: Path, tmp_path: Path, form: str
) -> None:
    archive, target = tmp_path / f"the store's.{form}", tmp_path / "by hand"
    target.mkdir()
    pack = {
        "tar.zst": ["tar", "--zstd", "-cf", str(archive), "-C", str(store), "."],
        "tar.gz": ["tar", "-czf", str(archive), "-C", str(store), "."],
        "tar": ["tar", "-cf", str(archive), "-C", str(store), "."],
        "folder": ["cp", "-a", str(store), str(archive)],
    }
    subprocess.run(pack[form], check=True)
    quoted = "'" + str(archive).replace("'", "'\"'\"'") + "'"
    script = "set -eu\n" + "\n".join(source.guide({"": quoted}))
    subprocess.run(["sh", "-c", script], check=True, env={**os.environ, "TARGET": str(target)})
    assert content_of(target) == content_of(store)


# --- finding -------------------------------------------------------------------------------------


def test_stores_are_found_below_a_folder(store: Path, tmp_path: Path) -> None:
    nested = tmp_path / "app" / "data" / "memory"
    nested.parent.mkdir(parents=True)
    shutil.copytree(store, nested)
    for hidden in (".cache", "node_modules"):
        shutil.copytree(store, tmp_path / hidden / "chroma")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "chroma.sqlite3").write_bytes(b"junk" * 100)
    found = list(ChromaFolder.discover(tmp_path))
    assert [(one.name, one.source, dict(one.options)) for one in found] == [
        ("memory", "chroma", {"path": "app/data/memory"}),
        ("chroma", "chroma", {"path": "chroma"}),
    ]
