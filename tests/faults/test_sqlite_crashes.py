"""What a crashed application leaves, damage everywhere, a full disk, and bounded memory."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    HoldfastError,
    SourceCorrupt,
    SourceMissing,
    SourceUnfit,
    SourceUnreadable,
    SourceUnstable,
    TargetUnfit,
)
from holdfast.model.artifact import Stream
from holdfast.model.facts import differences
from tests.nowhere import NOWHERE
from tests.other_user import can_run_python
from tests.real.test_sqlite_live import freeze_to, picture, source_of
from tests.sqlite_world import BODY, commits_in, create, run, running, script


def crash(path: Path, seed: int) -> None:
    """Kill an application inside a transaction that is partly in the file already."""
    process = run("hang", {"path": str(path), "seed": seed})
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("seed", range(20))
def test_a_hot_journal_is_rolled_back_in_the_copy_alone(tmp_path: Path, seed: int) -> None:
    folder = _made(tmp_path / "live")
    path = folder / "bank.db"
    create(path, "delete")
    crash(path, seed)
    assert path.with_name("bank.db-journal").stat().st_size > BODY, "the crash left no journal"
    before = picture(folder)
    copy, facts = freeze_to(source_of(path), tmp_path / "trial")
    assert facts.counts["rows/pages"] == 500
    with source_of(path).query("SELECT count(*) FROM pages WHERE body = zeroblob(3000)") as rows:
        assert list(rows) == [(0,)]
    assert source_of(path).facts().counts == facts.counts
    assert picture(folder) == before
    assert commits_in(copy) == 0


@pytest.mark.parametrize("index", [True, False], ids=["with-index", "without-index"])
def test_a_log_that_a_crash_left_is_applied_to_the_copy_alone(
    tmp_path: Path, *, index: bool
) -> None:
    folder = _made(tmp_path / "live")
    path = folder / "bank.db"
    create(path, "wal")
    with running("attend", path=str(path)) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert path.with_name("bank.db-wal").stat().st_size > 0
    if not index:
        path.with_name("bank.db-shm").unlink()
    before, names = picture(folder), sorted(os.listdir(folder))  # noqa: PTH208 - names alone
    copy, facts = freeze_to(source_of(path), tmp_path / "trial")
    assert facts.details["schema_version"] == "attended"
    assert source_of(path).facts().details["schema_version"] == "attended"
    assert commits_in(copy) == 0
    assert picture(folder) == before
    assert sorted(os.listdir(folder)) == names  # noqa: PTH208 - names alone


def test_a_holder_that_is_killed_makes_the_freeze_fail(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal", 3000)
    with running("attend", path=str(path)):
        workspace = _made(tmp_path / "workspace")
        with pytest.raises(SourceUnstable):
            _read_and_lose(path, workspace, whole=False)


def test_a_holder_that_is_killed_after_the_last_byte_makes_the_freeze_fail(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    with running("attend", path=str(path)):
        workspace = _made(tmp_path / "workspace")
        with pytest.raises(SourceUnstable):
            _read_and_lose(path, workspace, whole=True)


def _read_and_lose(path: Path, workspace: Path, *, whole: bool) -> None:
    with source_of(path).freeze(workspace) as frozen:
        (artifact,) = frozen.artifacts
        assert isinstance(artifact, Stream)
        with artifact.open() as chunks:
            size = sum(len(chunk) for chunk in chunks) if whole else len(next(chunks))
            (holder,) = children_running("_sqlite_server")
            os.kill(holder, signal.SIGKILL)
            size += sum(len(chunk) for chunk in chunks)
        assert size == artifact.size_hint


def test_the_holder_ends_with_its_asker(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    program = f"""
        import os, signal, pathlib
        from holdfast.sources.sqlite import SqliteOptions, SqliteSource
        source = SqliteSource("bank", SqliteOptions(path={str(path)!r}))
        with source.freeze(pathlib.Path({str(tmp_path)!r})) as frozen:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    # Our end of the pipe sees its end only when the holder, which shares it, has ended too.
    done = script(program, timeout=20)
    assert done.returncode == -signal.SIGKILL


def children_running(words: str) -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    children = [child for task in tasks for child in (task / "children").read_text().split()]
    return [int(c) for c in children if words in Path("/proc", c, "cmdline").read_text()]


# --- damage ---


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_damage_in_any_region_is_found_or_harmless(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "bank.db"
    create(path, mode)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE INDEX by_balance ON accounts (balance)")
        connection.commit()
    whole = path.read_bytes()
    good = source_of(path).facts()
    caught = 0
    regions = [0, 16, 18, 28, 100, 105, 2000, *range(4096, len(whole), len(whole) // 40)]
    for number, position in enumerate(regions):
        broken = bytearray(whole)
        broken[position : position + 64] = b"\xa5" * 64
        path.write_bytes(broken)
        try:
            _copy, facts = freeze_to(source_of(path, check="full"), tmp_path / f"trial-{number}")
        except (SourceCorrupt, SourceUnfit):
            caught += 1
        else:
            # Inside a value of the application: SQLite keeps no checksums of those.
            assert differences(good, facts) == []
    assert caught >= 7


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_was_cut_off_is_corrupt(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "bank.db"
    create(path, mode)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SourceCorrupt):
        freeze_to(source_of(path), tmp_path / "trial")


def test_damage_is_kept_as_evidence_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = _made(tmp_path / "live")
    path = folder / "bank.db"
    create(path, "delete")
    os.truncate(path, path.stat().st_size // 2)
    path.with_name("bank.db-journal").write_bytes(b"left over")
    before = picture(folder)
    source = source_of(path)
    with source.freeze(_made(tmp_path / "workspace"), evidence=True) as frozen:
        assert frozen.evidence
        assert not frozen.exact
        content = {artifact.name: _content(artifact) for artifact in frozen.artifacts}
        facts = frozen.facts()
        inspection = source.inspect(frozen.artifacts, _made(tmp_path / "inspecting"))
        with pytest.raises(TargetUnfit, match="evidence"):
            source.at(tmp_path / "elsewhere").staging("tag1", NOWHERE).fill(frozen.artifacts)
    assert content == {
        name: (folder / name).read_bytes() for name in ("bank.db", "bank.db-journal")
    }
    assert inspection.problems
    assert differences(facts, inspection.facts) == []
    assert picture(folder) == before


def test_what_is_no_database_is_kept_as_evidence_too(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    path.write_bytes(b"\x17" * 5000)
    with source_of(path).freeze(_made(tmp_path / "workspace"), evidence=True) as frozen:
        assert frozen.evidence
        (artifact,) = frozen.artifacts
        assert _content(artifact) == b"\x17" * 5000


def test_a_sound_database_is_no_evidence(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path)
    with source_of(path).freeze(_made(tmp_path / "workspace"), evidence=True) as frozen:
        assert not frozen.evidence
        assert frozen.exact
        assert frozen.facts().counts["rows/pages"] == 500


def test_a_damaged_log_in_use_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal")
    with running("attend", path=str(path)):
        log = path.with_name("bank.db-wal")
        with log.open("r+b") as file:
            file.seek(log.stat().st_size - 2000)
            file.write(b"\xa5" * 32)
        with pytest.raises(SourceCorrupt):
            freeze_to(source_of(path), tmp_path / "trial")


# --- what cannot be read ---


def _missing(path: Path) -> None:
    assert not path.exists()


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _failing_disk(path: Path) -> None:
    path.symlink_to(f"/proc/{os.getpid()}/mem")  # the one file anywhere whose first byte is EIO


UNUSABLE = [
    (_missing, SourceMissing),
    (_dangling, SourceMissing),
    (Path.mkdir, SourceUnfit),
    (os.mkfifo, SourceUnfit),
    (_loop, SourceUnreadable),
    (_failing_disk, SourceUnreadable),
    (lambda path: path.write_bytes(os.urandom(8192)), SourceUnfit),
    (lambda path: path.write_text("SQLite format 2"), SourceUnfit),
]


@pytest.mark.parametrize(("make", "error"), UNUSABLE)
def test_what_cannot_be_frozen_says_why(
    tmp_path: Path, make: Any, error: type[HoldfastError]
) -> None:
    path = tmp_path / "bank.db"
    make(path)
    source = source_of(path)
    with pytest.raises(error), source.freeze(_made(tmp_path / "workspace")):
        pytest.fail("it was frozen")
    assert not source.probe().reachable
    assert str(source.path) in source.probe().problems[0]


@pytest.mark.skipif(os.geteuid() == 0 and not can_run_python(), reason="named in the header")
def test_a_database_of_someone_else_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path)
    path.chmod(0)
    program = f"""
        import os, sys
        if os.geteuid() == 0:
            os.seteuid(65534)
        from pathlib import Path
        from holdfast.errors import SourceUnreadable
        from holdfast.sources.sqlite import SqliteOptions, SqliteSource
        try:
            with SqliteSource("b", SqliteOptions(path={str(path)!r})).freeze(Path("/nonexistent")):
                sys.exit("it was frozen")
        except SourceUnreadable as error:
            assert "ermission denied" in str(error), error
    """
    assert script(program).returncode == 0


def test_a_file_without_content_is_an_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    path.touch()
    copy, facts = freeze_to(source_of(path), tmp_path / "trial")
    assert copy.stat().st_size == 0
    assert facts.details["tables"] == 0
    source = source_of(path)
    with source.freeze(_made(tmp_path / "workspace")) as frozen:
        staged = source.at(tmp_path / "other").staging("tag1", NOWHERE)
        staged.fill(frozen.artifacts)
        staged.activate()
        staged.settle(None)
    assert (tmp_path / "other" / "bank.db").read_bytes() == b""


# --- room ---


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_full_disk_leaves_the_live_database_alone(tmp_path: Path, mode: str) -> None:
    folder = _made(tmp_path / "live")
    path = folder / "bank.db"
    create(path, mode, 2000)
    before = picture(folder)
    good, workspace = _made(tmp_path / "good"), _made(tmp_path / "workspace")
    program = f"""
        import resource
        from pathlib import Path
        from holdfast.errors import NoSpace
        from holdfast.sources.sqlite import SqliteOptions, SqliteSource
        source = SqliteSource("bank", SqliteOptions(path={str(path)!r}))
        limit = (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        with source.freeze(Path({str(good)!r})) as frozen:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            staged = source.staging("tag1", Path({str(NOWHERE)!r}))
            try:
                staged.fill(frozen.artifacts)
            except NoSpace:
                staged.revert()
            else:
                raise SystemExit("it was filled")
        try:
            with source.freeze(Path({str(workspace)!r})):
                raise SystemExit("it was copied")
        except NoSpace:
            pass
    """
    assert script(program).returncode == 0
    assert picture(folder) == before


def test_a_full_disk_is_named_where_sqlite_makes_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal", 2000)
    workspace = _made(tmp_path / "workspace")
    program = f"""
        import resource, sqlite3
        from holdfast.sources import _sqlite_hold as hold, _sqlite_open as opening
        hold.LARGEST_LOG = 0
        limit = (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        try:
            hold.Database({str(path)!r}, {str(workspace)!r}, 5).hold(copying=True)
        except opening.Refused as error:
            assert error.kind == "full", error.kind
        else:
            raise SystemExit("it was copied")
    """
    with running("attend", path=str(path)):
        assert script(program).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("attended", [True, False], ids=["streamed", "copied"])
def test_freezing_500_mb_takes_little_memory(tmp_path: Path, *, attended: bool) -> None:
    path = tmp_path / "bank.db"
    create(path, "wal" if attended else "delete", 125_000)
    assert path.stat().st_size > 500_000_000
    program = f"""
        import re, resource, threading
        from pathlib import Path
        from holdfast.sources.sqlite import SqliteOptions, SqliteSource
        source = SqliteSource("bank", SqliteOptions(path={str(path)!r}))
        with source.freeze(Path({str(_made(tmp_path / "workspace"))!r})) as frozen:
            counting = threading.Thread(target=frozen.facts)
            counting.start()
            with frozen.artifacts[0].open() as chunks:
                size = sum(len(chunk) for chunk in chunks)
            counting.join()
        assert size == frozen.artifacts[0].size_hint
        own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
        holder = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        print(own // 1024, "MB and", holder // 1024, "MB")
        assert own + holder < 200 * 1024, (own, holder)
    """
    if attended:
        with running("attend", path=str(path)):
            assert script(program).returncode == 0
    else:
        assert script(program).returncode == 0


def _content(artifact: object) -> bytes:
    assert isinstance(artifact, Stream)
    with artifact.open() as chunks:
        return b"".join(chunks)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
