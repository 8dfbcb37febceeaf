"""Whatever ends a backup while it holds a Chroma folder's lock, writers go on at once."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from holdfast.errors import (
    NoSpace,
    SourceCorrupt,
    SourceLocked,
    SourceMissing,
    SourceUnfit,
    SourceUnreadable,
    SourceUnstable,
)
from holdfast.sources import _chroma_fence
from holdfast.sources._chroma_check import Problem
from holdfast.sources._chroma_fence import Budget, Fence
from tests.chroma_world import make_store

FREEZE = """
import sys
from pathlib import Path
from holdfast.sources import _chroma_fence
from holdfast.sources.chroma import ChromaOptions, ChromaSource
_chroma_fence.HOLDER = Path(sys.argv[3])
source = ChromaSource("memory", ChromaOptions(path=sys.argv[1]))
with source.freeze(Path(sys.argv[2])):
    raise SystemExit("it was copied")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "chroma", seed=21, operations=40)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "chroma"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return workspace


RESTLESS = """\
import os, runpy, sys

real = os.copy_file_range

def copy_file_range(*arguments):
    os.utime({index!r})
    return real(*arguments)

os.copy_file_range = copy_file_range
sys.argv[0] = {holder!r}
runpy.run_path({holder!r}, run_name="__main__")
"""


@contextmanager
def restless(store: Path) -> Iterator[Path]:
    """Have an index written to whenever it is copied: the copy then goes on waiting, locked.

    Gives the program that holds the lock, for a backup in another process.
    """
    index = next(store.glob("*/header.bin"))
    holder = store.parent / "restless_holder.py"
    holder.write_text(RESTLESS.format(index=str(index), holder=str(_chroma_fence.HOLDER)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chroma_fence, "HOLDER", holder)
        yield holder


def writable(store: Path) -> bool:
    """Tell whether another program could write now."""
    with closing(sqlite3.connect(store / "chroma.sqlite3", timeout=0)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def fence(store: Path, target: Path, **limits: float) -> Fence:
    budget = Budget(
        limits.get("lock", 60), limits.get("pause", 60), int(limits.get("attempts", 20))
    )
    return Fence("memory", store, target, budget)


def nothing_wrong() -> list[Problem]:
    return []


@pytest.fixture
def backup(store: Path, workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that makes a backup and is holding the lock."""
    with restless(store) as holder:
        process = subprocess.Popen(
            [sys.executable, "-c", FREEZE, str(store), str(workspace), str(holder)],
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: not writable(store))
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_writers_go_on_at_once_when_the_backup_is_ended(
    store: Path, backup: subprocess.Popen[bytes], end: signal.Signals
) -> None:
    backup.send_signal(end)
    wait_until(lambda: writable(store), seconds=2)
    assert backup.wait(5) != 0


def test_a_backup_that_is_stopped_does_not_stop_the_writers(
    store: Path, target: Path, backup: subprocess.Popen[bytes]
) -> None:
    backup.send_signal(signal.SIGSTOP)
    wait_until(lambda: writable(store), seconds=15)  # the copy itself ends, within its limits
    backup.send_signal(signal.SIGCONT)


def test_opening_the_database_file_elsewhere_does_not_break_the_lock(
    store: Path, target: Path
) -> None:
    """Closing any descriptor of a file drops the locks that a process has on it."""
    held: list[bool] = []

    def look() -> None:
        wait_until(lambda: not writable(store))
        with (store / "chroma.sqlite3").open("rb"):
            pass
        held.append(not writable(store))

    with restless(store):
        looking = threading.Thread(target=look)
        looking.start()
        with pytest.raises(SourceUnstable):
            fence(store, target, pause=1.5).copy(nothing_wrong)
        looking.join()
    assert held == [True]
    assert writable(store)


def test_a_copy_that_takes_too_long_is_given_up(store: Path, target: Path) -> None:
    with restless(store):
        began = time.monotonic()
        with pytest.raises(SourceUnstable, match=r"held writers for 0\.5 s"):
            fence(store, target, pause=0.5).copy(nothing_wrong)
        assert time.monotonic() - began < 5
        assert writable(store)


def test_a_store_that_never_rests_is_unstable(
    store: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_fence, "SETTLE_SECONDS", 0.2)
    with restless(store), pytest.raises(SourceUnstable, match="kept changing"):
        fence(store, target, attempts=3).copy(nothing_wrong)
    assert writable(store)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_check_that_fails_leaves_no_lock(
    store: Path, target: Path, error: type[BaseException]
) -> None:
    def check() -> list[Problem]:
        raise error

    with pytest.raises(error):
        fence(store, target).copy(check)
    assert writable(store)


def test_writers_are_not_held_while_the_copy_is_checked(store: Path, target: Path) -> None:
    seen: list[bool] = []

    def check() -> list[Problem]:
        seen.append(writable(store))
        return []

    fence(store, target).copy(check)
    assert seen == [True]


def test_a_fault_that_goes_away_is_copied_over(store: Path, target: Path) -> None:
    faults = [[Problem("s", "torn")], [Problem("s", "torn differently")], []]
    copied = fence(store, target).copy(lambda: faults.pop(0))
    assert (copied.attempts, copied.problems) == (3, ())


def test_a_fault_that_stays_in_files_that_do_not_change_is_damage(
    store: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_fence, "PATIENCE_SECONDS", 0.5)
    segment = next(store.glob("*/header.bin")).parent.name
    with pytest.raises(SourceCorrupt, match="torn"):
        fence(store, target).copy(lambda: [Problem(segment, "torn")])


def test_a_fault_in_files_that_change_is_not_called_damage(
    store: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_fence, "PATIENCE_SECONDS", 0.0)
    header = next(store.glob("*/header.bin"))

    def check() -> list[Problem]:
        header.write_bytes(header.read_bytes())
        return [Problem(header.parent.name, "torn")]

    with pytest.raises(SourceUnstable, match="torn"):
        fence(store, target, attempts=3).copy(check)


def test_a_store_that_stays_locked_is_said_to_be(store: Path, target: Path) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(SourceLocked, match="locked for 1 s"):
            fence(store, target, lock=1).copy(nothing_wrong)


def test_a_database_that_is_none_is_damaged(store: Path, target: Path) -> None:
    (store / "chroma.sqlite3").write_bytes(b"not a database" * 1000)
    with pytest.raises(SourceCorrupt):
        fence(store, target).copy(nothing_wrong)


def test_a_database_of_something_else_is_unfit(store: Path, target: Path) -> None:
    database = store / "chroma.sqlite3"
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE notes (id)")
    with pytest.raises(SourceUnfit, match="segments"):
        fence(store, target).copy(nothing_wrong)


def test_a_segment_whose_name_leads_elsewhere_is_refused(store: Path, target: Path) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection, connection:
        connection.execute("UPDATE segments SET id = '../x' || id WHERE scope = 'VECTOR'")
    with pytest.raises(SourceUnfit, match="segment is named"):
        fence(store, target).copy(nothing_wrong)


def test_a_store_that_vanished_is_missing(store: Path, target: Path) -> None:
    shutil.rmtree(store)
    with pytest.raises(SourceMissing):
        fence(store, target).copy(nothing_wrong)
    assert not store.exists()


@pytest.fixture
def shown(store: Path, tmp_path: Path) -> Iterator[Path]:
    """The store as a container sees it that may only read it."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a folder for reading alone")
    shown = tmp_path / "shown"
    shown.mkdir()
    subprocess.run(["mount", "--bind", str(store), str(shown)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(shown)], check=True)
        yield shown
    finally:
        subprocess.run(["umount", str(shown)], check=True)


def test_a_store_that_only_may_be_read_is_copied(store: Path, shown: Path, target: Path) -> None:
    fence(shown, target).copy(nothing_wrong)
    assert (target / "chroma.sqlite3").read_bytes() == (store / "chroma.sqlite3").read_bytes()


def test_nobody_commits_while_a_store_that_only_may_be_read_is_copied(
    store: Path, shown: Path, target: Path
) -> None:
    over = threading.Event()
    refused: list[float] = []

    def write() -> None:
        while not over.wait(0.01):
            if not committed(store):
                refused.append(time.monotonic())

    with restless(store):
        writing = threading.Thread(target=write)
        writing.start()
        with pytest.raises(SourceUnstable):
            fence(shown, target, pause=1.5).copy(nothing_wrong)
        over.set()
        writing.join()
    assert refused[-1] - refused[0] > 1.2
    assert committed(store)


def committed(store: Path) -> bool:
    """Try to write, and tell whether that was possible."""
    with closing(sqlite3.connect(store / "chroma.sqlite3", timeout=0)) as connection:
        try:
            with connection:
                connection.execute("UPDATE acquire_write SET lock_status = lock_status + 1")
        except sqlite3.OperationalError:
            return False
        return True


def test_a_full_disk_is_named(store: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        with pytest.raises(NoSpace):
            fence(store, small).copy(nothing_wrong)
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert writable(store)


def test_a_copying_program_that_dies_is_reported(
    store: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('out of luck')")
    monkeypatch.setattr(_chroma_fence, "HOLDER", broken)
    with pytest.raises(SourceUnreadable, match="out of luck"):
        fence(store, target).copy(nothing_wrong)
