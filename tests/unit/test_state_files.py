"""The files of the state folder: private, locked, and whole or not there."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from holdfast.errors import BackupExists, NoSpace, StateUnwritable
from holdfast.runtime import files
from holdfast.runtime.files import lock_file, new_file, private_folder, replace_file, writing


def test_a_folder_is_made_private_with_the_ones_above_it(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert private_folder(made) == made


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(StateUnwritable, match="exists"):
        private_folder(tmp_path / "a")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, NoSpace), (errno.EDQUOT, NoSpace), (errno.EROFS, StateUnwritable)],
)
def test_what_the_system_says_becomes_one_of_our_errors(
    number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected), writing(Path("x")):
        raise OSError(number, os.strerror(number))


def test_a_new_file_is_there_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "export.tar"
    with new_file(path) as write:
        write(b"one ")
        write(memoryview(b"two"))
        assert not path.exists()
    assert path.read_bytes() == b"one two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_new_file_that_fails_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def fail() -> None:
        with new_file(tmp_path / "export.tar") as write:
            write(b"half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_never_overwrites_not_even_one_that_came_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "export.tar"

    def overtaken() -> None:
        with new_file(path) as write:
            write(b"mine")
            path.write_bytes(b"theirs")

    for attempt in (overtaken, new_file(path).__enter__):
        with pytest.raises(BackupExists):
            attempt()
        assert path.read_bytes() == b"theirs"
        assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lease"
    replace_file(path, b"one")

    def fail(_descriptor: int, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_all", fail)
        with pytest.raises(NoSpace):
            replace_file(path, b"two")
    assert path.read_bytes() == b"one"
    replace_file(path, b"three")
    assert path.read_bytes() == b"three"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_everything_is_written_even_if_the_system_takes_it_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    replace_file(tmp_path / "lease", b"ten letters")
    assert (tmp_path / "lease").read_bytes() == b"ten letters"


def test_a_lock_excludes_threads_too_and_shared_ones_do_not_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    path = tmp_path / "lock"
    with lock_file(path), pytest.raises(StateUnwritable, match="stayed locked"), lock_file(path):
        pass
    with lock_file(path, shared=True), lock_file(path, shared=True):
        pass


def test_who_waits_for_a_lock_gets_it(tmp_path: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with lock_file(tmp_path / "lock"):
            got.set()

    with lock_file(tmp_path / "lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.05)
    thread.join(10)
    assert got.is_set()
