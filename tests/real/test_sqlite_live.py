"""Copies of SQLite databases that other processes write to: each is the state after one commit."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import SourceLocked, TargetInUse
from holdfast.model.artifact import Stream
from holdfast.model.facts import Facts
from holdfast.sources import _sqlite_hold
from holdfast.sources.sqlite import SqliteOptions, SqliteSource
from tests.sqlite_world import Writer, commits_in, create, running, script, writing

PATIENCE = 5.0  # seconds; how long an application waits for a lock by default


def source_of(path: Path, **options: Any) -> SqliteSource:
    return SqliteSource("bank", SqliteOptions(path=path, **options))


def freeze_to(source: SqliteSource, folder: Path, *, slowly: float = 0) -> tuple[Path, Facts]:
    """Copy a database as a backup does, counting it meanwhile."""
    workspace = folder / "workspace"
    workspace.mkdir(parents=True)
    target = folder / "copy.db"
    with source.freeze(workspace) as frozen, ThreadPoolExecutor(1) as thread:
        counting = thread.submit(frozen.facts)
        (artifact,) = frozen.artifacts
        assert isinstance(artifact, Stream)
        with target.open("wb") as out, artifact.open() as chunks:
            for chunk in chunks:
                out.write(chunk)
                time.sleep(slowly)
        facts = counting.result()
    assert target.stat().st_size == artifact.size_hint
    return target, facts


def one_trial(writer: Writer, folder: Path, *, slowly: float = 0) -> None:
    before = writer.committed
    copy, facts = freeze_to(source_of(writer.path), folder, slowly=slowly)
    found = commits_in(copy)
    assert before <= found <= writer.begun
    assert facts.counts["rows/log"] == found
    assert not list(folder.glob("copy.db-*"))
    copy.unlink()


def several_trials(tmp_path: Path, trials: int, pages: int, **how: Any) -> dict[str, Any]:
    path = tmp_path / "bank.db"
    create(path, how["mode"], pages)
    with writing(path, tmp_path / "progress", **how) as writer:
        for number in range(trials):
            one_trial(writer, tmp_path / f"trial-{number}", slowly=0.03 * (number % 3))
    assert writer.report["commits"] > trials
    assert writer.report["longest"] < PATIENCE
    return writer.report


MODES = pytest.mark.parametrize(
    "how",
    [{"mode": "wal"}, {"mode": "wal", "grow": True}, {"mode": "delete"}, {"mode": "persist"}],
    ids=["wal-checkpointing", "wal-growing", "journal", "journal-kept"],
)


@MODES
def test_a_copy_is_the_state_after_one_commit(tmp_path: Path, how: dict[str, Any]) -> None:
    several_trials(tmp_path, 3, 1000, **how)


@pytest.mark.slow
@pytest.mark.timeout(300)
@MODES
def test_every_copy_of_twenty_is_the_state_after_one_commit(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    several_trials(tmp_path, 20, 5000, **how)


def test_a_writer_that_never_pauses_is_copied_too(tmp_path: Path) -> None:
    several_trials(tmp_path, 3, 1000, mode="wal", pause=0)


def test_the_counts_are_those_of_the_copy_however_fast_commits_come(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    with running("hammer", path=str(path)):
        for number in range(40):
            copy, facts = freeze_to(source_of(path), tmp_path / f"trial-{number}")
            with closing(sqlite3.connect(f"file:{copy}?immutable=1", uri=True)) as connection:
                ticks = connection.execute("SELECT count(*) FROM ticks").fetchone()[0]
            assert facts.counts["rows/ticks"] == ticks > number


def test_a_large_log_is_left_to_sqlite_to_copy(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal", 3000)
    with writing(path, tmp_path / "progress", mode="wal", grow=True, pause=0) as writer:
        largest = _sqlite_hold.LARGEST_LOG * 4096
        while path.with_name("bank.db-wal").stat().st_size < largest + 5_000_000:
            time.sleep(0.05)
        with source_of(path).freeze(_made(tmp_path / "look")) as frozen:
            assert isinstance(frozen.artifacts[0], Stream)
            assert frozen.artifacts[0].path is not None, "SQLite made no copy"
        one_trial(writer, tmp_path / "trial")


def test_a_held_snapshot_does_not_move_while_writers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    with writing(path, tmp_path / "progress", mode="wal") as writer:
        workspace = _made(tmp_path / "workspace")
        with source_of(path).freeze(workspace) as frozen:
            held = frozen.facts().counts["rows/log"]
            first = _content(frozen.artifacts[0])
            reached = writer.committed + 200
            while writer.committed < reached:
                time.sleep(0.01)
            assert _content(frozen.artifacts[0]) == first
            assert frozen.facts().counts["rows/log"] == held


@pytest.mark.parametrize("mode", ["wal", "delete", "persist", "truncate"])
@pytest.mark.parametrize("attended", [False, True], ids=["idle", "open-elsewhere"])
def test_the_live_files_stay_as_they_are(tmp_path: Path, mode: str, *, attended: bool) -> None:
    folder = _made(tmp_path / "live")
    path = folder / "bank.db"
    create(path, mode)
    if not attended:
        _freeze_and_compare(path, tmp_path, in_use=False)
        return
    with running("attend", path=str(path)):
        _freeze_and_compare(path, tmp_path, in_use=True)


def _freeze_and_compare(path: Path, tmp_path: Path, *, in_use: bool) -> None:
    before = picture(path.parent, in_use=in_use)
    source = source_of(path)
    copy, _facts = freeze_to(source, tmp_path / "trial")
    source.facts()
    source.probe()
    source.occupants()
    with source.query("SELECT count(*) FROM pages") as rows:
        assert list(rows) == [(500,)]
    list(source.discover(path.parent))
    assert picture(path.parent, in_use=in_use) == before
    assert commits_in(copy) == 0


def picture(folder: Path, *, in_use: bool = False) -> dict[str, tuple[str, int]]:
    """Describe every file of a folder; an index in use is shared memory, where readers sign in."""
    return {
        path.name: ("in use", 0) if in_use and path.name.endswith("-shm") else _describe(path)
        for path in folder.iterdir()
        if path.is_file()
    }


def _describe(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def test_frames_that_an_attending_program_keeps_in_its_log_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    with running("attend", path=str(path)):
        copy, facts = freeze_to(source_of(path), tmp_path / "trial")
    assert facts.details["schema_version"] == "attended"
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT value FROM meta").fetchall() == [("attended",)]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_this_process_has_open_keeps_its_locks(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "bank.db"
    create(path, mode)
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as own:
        own.execute("BEGIN IMMEDIATE")
        freeze_to(source_of(path), tmp_path / "trial")
        source_of(path).probe()
        list(SqliteSource.discover(tmp_path))
        # Another process cannot begin to write: our lock is still there.
        with pytest.raises(AssertionError), running("lock", path=str(path)):
            pytest.fail("the lock of this process was lost")


def test_an_exclusive_lock_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "delete")
    with running("lock", path=str(path)):
        before = time.monotonic()
        with (
            pytest.raises(SourceLocked, match=r"0\.5 s"),
            source_of(path, lock_timeout=0.5).freeze(_made(tmp_path / "workspace")),
        ):
            pytest.fail("a locked database was frozen")
        assert 0.4 < time.monotonic() - before < 10


def test_a_reader_that_must_look_again_keeps_no_writer_waiting_meanwhile(tmp_path: Path) -> None:
    # As when the journal of a writer that just began is taken for one that a crash left.
    path = tmp_path / "bank.db"
    create(path, "delete")
    program = f"""
        import sqlite3, subprocess, sys
        from holdfast.sources import _sqlite_hold as hold

        WRITER = (
            "import sqlite3, sys; path = sys.argv[1];"
            "sqlite3.connect(path, timeout=0).execute('BEGIN EXCLUSIVE')"
        )

        class Misled(hold.Database):
            tries = 0

            def _hold_journal(self, *, copying):
                self.tries += 1
                if self.tries == 1:
                    return self._hold_idle(hold.JOURNAL, copying=copying)
                subprocess.run([sys.executable, "-c", WRITER, self.path], check=True)
                return super()._hold_journal(copying=copying)

        database = Misled({str(path)!r}, {str(_made(tmp_path / "workspace"))!r}, 20)
        assert database.hold(copying=True).copy
        assert database.tries == 2
    """
    assert script(program).returncode == 0


def test_an_open_database_names_its_occupants_and_is_not_switched(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    source = source_of(path)
    workspace = _made(tmp_path / "workspace")
    with source.freeze(workspace) as frozen:
        staged = source.staging("tag1", tmp_path / "staging")
        staged.fill(frozen.artifacts)
    with running("attend", path=str(path)) as process:
        assert any(f"pid {process.pid}" in user for user in source.occupants())
        before = picture(tmp_path, in_use=True)
        with pytest.raises(TargetInUse):
            staged.activate()
        assert picture(tmp_path, in_use=True) == before
    staged.activate()
    staged.settle(None)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_link_to_a_database_is_followed(tmp_path: Path, mode: str) -> None:
    real = _made(tmp_path / "real") / "bank.db"
    create(real, mode)
    link = _made(tmp_path / "links") / "linked.db"
    link.symlink_to(real)
    with running("attend", path=str(real)):
        copy, facts = freeze_to(source_of(link), tmp_path / "trial")
    assert facts.counts["rows/pages"] == 500
    assert facts.details["schema_version"] == "attended"
    assert commits_in(copy) == 0
    assert os.listdir(link.parent) == ["linked.db"]  # noqa: PTH208 - names alone


def _content(artifact: object) -> bytes:
    assert isinstance(artifact, Stream)
    with artifact.open() as chunks:
        return b"".join(chunks)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
