"""Reading a snapshot from a database file and its log gives what SQLite itself sees."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.sources._sqlite_format import (
    FRAME_HEADER_SIZE,
    INDEX,
    PENDING_BYTE,
    WAL,
    WAL_HEADER_SIZE,
    add_checksum,
    parse_header,
    parse_index,
)
from holdfast.sources._sqlite_wal import (
    Damaged,
    Snapshot,
    read_index,
    send,
    send_range,
    take_snapshot,
)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), st.integers(0, 12_000)),
        st.tuples(st.just("delete"), st.integers(0, 60)),
        st.tuples(st.just("undone"), st.integers(0, 5000)),
        st.tuples(
            st.just("checkpoint"), st.sampled_from(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        ),
        st.tuples(st.just("vacuum"), st.just(0)),
    ),
    max_size=12,
)


def play(connection: sqlite3.Connection, steps: list[tuple[str, int | str]]) -> None:
    for verb, value in steps:
        match verb:
            case "insert":
                connection.execute("INSERT INTO t (body) VALUES (randomblob(?))", (value,))
            case "delete":
                connection.execute("DELETE FROM t WHERE id % 61 >= ?", (value,))
            case "undone":
                connection.execute("PRAGMA cache_size = 2")  # so that frames are spilled, then void
                connection.execute("BEGIN")
                for _ in range(5):
                    connection.execute("INSERT INTO t (body) VALUES (randomblob(?))", (value,))
                connection.execute("ROLLBACK")
            case "checkpoint":
                connection.execute(f"PRAGMA wal_checkpoint({value})").fetchall()
            case "vacuum":
                connection.execute("VACUUM")


@contextmanager
def database(
    folder: Path, steps: list[tuple[str, int | str]], page_size: int = 512
) -> Iterator[sqlite3.Connection]:
    """Give a database with a log that is still in use."""
    with closing(sqlite3.connect(folder / "live.db", isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        play(connection, steps)
        yield connection


def copy_members(folder: Path) -> Path:
    """Copy the files as they lie, so that they can be opened without touching SQLite's locks."""
    copy = folder / "copy"
    copy.mkdir()
    for suffix in ("", WAL, INDEX):
        shutil.copyfile(folder / f"live.db{suffix}", copy / f"live.db{suffix}")
    return copy


@contextmanager
def snapshot_of(folder: Path) -> Iterator[Snapshot]:
    with ExitStack() as opened:
        descriptors = [os.open(folder / f"live.db{s}", os.O_RDONLY) for s in ("", WAL, INDEX)]
        for descriptor in descriptors:
            opened.callback(os.close, descriptor)
        file, log, index_file = descriptors
        index = read_index(index_file)
        assert index
        yield take_snapshot(file, os.fstat(file).st_size, log, index_file, index)


def sent(snapshot: Snapshot) -> bytes:
    reading, writing = os.pipe()
    parts: list[bytes] = []

    def read() -> None:
        while data := os.read(reading, 1 << 20):
            parts.append(data)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        send(snapshot, writing)
    finally:
        os.close(writing)
        thread.join()
        os.close(reading)
    return b"".join(parts)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return list(connection.iterdump())


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, page_size=st.sampled_from([512, 1024, 4096, 65536]))
def test_a_snapshot_is_what_sqlite_sees(steps: list[tuple[str, int | str]], page_size: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        with database(folder, steps, page_size) as connection:
            expected = list(connection.iterdump())
            copy = copy_members(folder)
        with snapshot_of(copy) as snapshot:
            data = sent(snapshot)
        (folder / "result.db").write_bytes(data)
        assert len(data) == snapshot.size
        assert dump(folder / "result.db") == expected


def test_frames_after_the_snapshot_are_not_taken(tmp_path: Path) -> None:
    with database(tmp_path, [("insert", 5000)] * 3) as connection:
        expected = list(connection.iterdump())
        before = (tmp_path / f"live.db{INDEX}").read_bytes()[:4096]
        play(connection, [("insert", 9000), ("delete", 3)])
        copy = copy_members(tmp_path)
    index_file = copy / f"live.db{INDEX}"
    index_file.write_bytes(before + index_file.read_bytes()[4096:])
    with snapshot_of(copy) as snapshot:
        (tmp_path / "result.db").write_bytes(sent(snapshot))
    assert dump(tmp_path / "result.db") == expected


FRAME = FRAME_HEADER_SIZE + 512


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(
            lambda n: WAL_HEADER_SIZE + (n - 1) * FRAME + FRAME_HEADER_SIZE + 9, id="page"
        ),
        pytest.param(lambda n: WAL_HEADER_SIZE + (n - 1) * FRAME + 3, id="page-number"),
        pytest.param(lambda n: WAL_HEADER_SIZE + (n - 1) * FRAME + 9, id="salt"),
        pytest.param(lambda n: WAL_HEADER_SIZE + (n - 1) * FRAME + 20, id="checksum"),
        pytest.param(lambda _n: 2, id="log-header"),
    ],
)
def test_a_damaged_log_is_never_given_as_content(
    tmp_path: Path, place: Callable[[int], int]
) -> None:
    with database(tmp_path, [("insert", 5000)] * 3):
        copy = copy_members(tmp_path)
    with snapshot_of(copy) as whole:
        newest = whole.overlay[-1][1]  # a frame that the snapshot needs
    log = copy / f"live.db{WAL}"
    data = bytearray(log.read_bytes())
    data[place(newest)] ^= 0x40
    log.write_bytes(data)
    with pytest.raises(Damaged), snapshot_of(copy) as snapshot:
        sent(snapshot)


def test_a_log_that_ends_early_is_damage(tmp_path: Path) -> None:
    with database(tmp_path, [("insert", 5000)] * 3):
        copy = copy_members(tmp_path)
    log = copy / f"live.db{WAL}"
    os.truncate(log, log.stat().st_size - 100)
    with pytest.raises(Damaged), snapshot_of(copy) as snapshot:
        sent(snapshot)


def test_a_file_that_ends_early_is_damage(tmp_path: Path) -> None:
    with database(tmp_path, [("insert", 50_000), ("checkpoint", "TRUNCATE"), ("insert", 10)]):
        copy = copy_members(tmp_path)
    os.truncate(copy / "live.db", 20 * 512)
    with snapshot_of(copy) as snapshot, pytest.raises(Damaged, match="ends before page"):
        sent(snapshot)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_log_that_was_started_over_is_not_needed(tmp_path: Path, when: str) -> None:
    steps: list[tuple[str, int | str]] = [("insert", 5000)] * 3
    with database(tmp_path, [*steps, ("checkpoint", "PASSIVE")]) as connection:
        expected = list(connection.iterdump())
        copy = copy_members(tmp_path)
        play(connection, [("insert", 700)])  # starts the log over
        # What a reader that held the snapshot would find now: the file as it was, the log anew.
        with ExitStack() as opened:
            descriptors = [os.open(copy / f"live.db{s}", os.O_RDWR) for s in ("", WAL, INDEX)]
            for descriptor in descriptors:
                opened.callback(os.close, descriptor)
            file, log, index_file = descriptors
            index = read_index(index_file)
            assert index
            size = os.fstat(file).st_size
            if when == "after":
                snapshot = take_snapshot(file, size, log, index_file, index)
            for suffix, descriptor in ((INDEX, index_file), (WAL, log)):
                os.pwrite(descriptor, (tmp_path / f"live.db{suffix}").read_bytes(), 0)
            if when == "before":
                snapshot = take_snapshot(file, size, log, index_file, index)
            (tmp_path / "result.db").write_bytes(sent(snapshot))
    assert dump(tmp_path / "result.db") == expected


def test_a_torn_index_header_is_not_believed(tmp_path: Path) -> None:
    with database(tmp_path, [("insert", 100)]):
        data = (tmp_path / f"live.db{INDEX}").read_bytes()[:96]
    assert parse_index(data)
    for position in (*range(48), 48, 95):
        torn = bytearray(data)
        torn[position] ^= 1
        assert parse_index(bytes(torn)) is None
    both = bytearray(data)
    both[16] ^= 1
    both[48 + 16] ^= 1
    assert parse_index(bytes(both)) is None


def test_checksums_follow_the_specification() -> None:
    # s0 += x[0] + s1; s1 += x[1] + s0, for each pair of words
    assert add_checksum(struct.pack("<4I", 1, 2, 3, 4), (0, 0), "<") == (1 + 3 + 3, 3 + 4 + 7)
    assert add_checksum(struct.pack(">2I", 0xFFFFFFFF, 1), (1, 1), ">") == (1, 3)


@pytest.mark.parametrize("data", [b"", b"SQLite format 3\0", b"x" * 100, bytes(100)])
def test_other_files_have_no_header(data: bytes) -> None:
    assert parse_header(data) is None


def test_only_the_page_that_sqlite_locks_on_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "large.db"
    path.touch()
    os.truncate(path, PENDING_BYTE)  # without blocks on the disk
    file = os.open(path, os.O_RDONLY)
    reading, writing = os.pipe()
    try:
        snapshot = Snapshot(file, PENDING_BYTE + 2 * 4096, 4096, None, ())
        send_range(snapshot, writing, PENDING_BYTE - 4096, PENDING_BYTE + 4096)
        assert os.read(reading, 1 << 20) == bytes(2 * 4096)
        with pytest.raises(Damaged, match="ends before page"):
            send_range(snapshot, writing, PENDING_BYTE + 4096, snapshot.size)
    finally:
        for descriptor in (file, reading, writing):
            os.close(descriptor)
