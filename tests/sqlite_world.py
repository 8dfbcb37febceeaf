"""Real SQLite databases for tests, with a writer whose every commit can be replayed in a model.

Run as a program, so that the writer is a process of its own::

    python tests/sqlite_world.py write '{"path": …, "progress": …, "mode": "wal"}'   # until EOF
    python tests/sqlite_world.py hang  '{"path": …, "seed": 1}'   # stops inside a transaction
    python tests/sqlite_world.py lock  '{"path": …}'              # holds an exclusive lock

What commit number n does depends on nothing but n. A database is in a state that its writer once
committed exactly if replaying its log gives its balances and its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ACCOUNTS = 50
OPENING = 1000
BODY = 3000  # bytes: nearly a page
Changes = tuple[int, int, int, dict[int, bytes]]


def body(page: int, commit: int) -> bytes:
    return hashlib.sha256(f"{page}/{commit}".encode()).digest() * (BODY // 32)


def changes(commit: int, pages: int) -> Changes:
    """Return who pays whom how much in a commit, and which pages it rewrites."""
    chance = random.Random(commit)
    source, target = chance.sample(range(ACCOUNTS), 2)
    touched = {chance.randrange(pages): b"" for _ in range(8)}
    return source, target, chance.randrange(100), {page: body(page, commit) for page in touched}


def create(path: Path, mode: str = "wal", pages: int = 500) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER)")
        connection.execute(
            "CREATE TABLE log (id INTEGER PRIMARY KEY, s INTEGER, t INTEGER, n INTEGER)"
        )
        connection.execute("CREATE TABLE pages (id INTEGER PRIMARY KEY, body BLOB)")
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        connection.execute("INSERT INTO meta VALUES ('schema_version', '1.1.0')")
        opening = ((i, OPENING) for i in range(ACCOUNTS))
        connection.executemany("INSERT INTO accounts VALUES (?, ?)", opening)
        blank = ((i, body(i, 0)) for i in range(pages))
        connection.executemany("INSERT INTO pages VALUES (?, ?)", blank)
        connection.execute("COMMIT")


def commit_once(connection: sqlite3.Connection, commit: int, pages: int) -> None:
    source, target, amount, bodies = changes(commit, pages)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (commit, source, target, amount))
    pay = "UPDATE accounts SET balance = balance + ? WHERE id = ?"
    connection.execute(pay, (-amount, source))
    connection.execute(pay, (amount, target))
    new = ((data, page) for page, data in bodies.items())
    connection.executemany("UPDATE pages SET body = ? WHERE id = ?", new)
    connection.execute("COMMIT")


def commits_in(path: Path) -> int:
    """Return how many commits a file has; fail unless it is exactly the state after them."""
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        log = [row[0] for row in connection.execute("SELECT id FROM log ORDER BY id")]
        balances = dict(connection.execute("SELECT id, balance FROM accounts"))
        bodies = dict(connection.execute("SELECT id, body FROM pages"))
    assert log == list(range(1, len(log) + 1)), "commits are missing in between"
    expected = dict.fromkeys(range(ACCOUNTS), OPENING)
    written = dict.fromkeys(range(len(bodies)), 0)
    for commit in log:
        source, target, amount, touched = changes(commit, len(bodies))
        expected[source] -= amount
        expected[target] += amount
        written |= dict.fromkeys(touched, commit)
    assert balances == expected
    assert bodies == {page: body(page, commit) for page, commit in written.items()}
    return len(log)


class Writer:
    """A writer in a process of its own."""

    def __init__(self, path: Path, progress: Path, **how: Any) -> None:
        progress.write_bytes(bytes(16))
        self._progress = progress
        self.path = path
        arguments = {"path": str(path), "progress": str(progress), **how}
        self._process = run("write", arguments)
        self.report: dict[str, Any] = {}
        while not self.committed:
            assert self._process.poll() is None, "the writer died"
            time.sleep(0.01)

    def _read(self) -> tuple[int, int]:
        begun, committed = struct.unpack("=QQ", self._progress.read_bytes())
        return begun, committed

    @property
    def begun(self) -> int:
        """The newest commit that may have happened."""
        return self._read()[0]

    @property
    def committed(self) -> int:
        """The newest commit that has certainly happened."""
        return self._read()[1]

    def stop(self) -> dict[str, Any]:
        """Let it end, and return its own report. A writer that failed fails the test."""
        out, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, "the writer failed"
        self.report = json.loads(out)
        return self.report


@contextmanager
def writing(path: Path, progress: Path, **how: Any) -> Iterator[Writer]:
    writer = Writer(path, progress, **how)
    try:
        yield writer
    finally:
        writer.stop()


def run(what: str, arguments: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, what, json.dumps(arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


@contextmanager
def running(what: str, **arguments: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a helper until the end of the block; it has said that it is ready."""
    with run(what, arguments) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def script(program: str, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    """Run a program that a test spells out, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=False,
        timeout=timeout,
        stdout=subprocess.PIPE,
    )


# --- in the other process ---


def write(path: str, progress: str, mode: str, *, grow: bool = False, pause: float = 0.002) -> None:
    """Commit until the test closes our input; move frames into the file in every way there is."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {0 if grow else 100}")
        connection.execute("PRAGMA synchronous = OFF")
        (pages,) = connection.execute("SELECT count(*) FROM pages").fetchone()
        (commit,) = connection.execute("SELECT count(*) FROM log").fetchone()
        first, longest = commit, 0.0
        checkpoints = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"]
        shown = os.open(progress, os.O_WRONLY)
        connection.execute("PRAGMA busy_timeout = 30000")
        while not ended():
            commit += 1
            os.pwrite(shown, struct.pack("=Q", commit), 0)
            before = time.monotonic()
            commit_once(connection, commit, pages)
            longest = max(longest, time.monotonic() - before)
            os.pwrite(shown, struct.pack("=Q", commit), 8)
            if not grow and mode == "wal" and commit % 37 == 0:
                # As another program might; one that waits for readers gives up at once.
                connection.execute("PRAGMA busy_timeout = 0")
                way = checkpoints[commit % 4]
                connection.execute(f"PRAGMA wal_checkpoint({way})").fetchall()
                connection.execute("PRAGMA busy_timeout = 30000")
            time.sleep(pause)
        os.close(shown)
    print(json.dumps({"commits": commit - first, "longest": longest}))  # noqa: T201 - to the test


def hang(path: str, seed: int) -> None:
    """Stop inside a large transaction whose pages are partly in the file already."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 5")
    (pages,) = connection.execute("SELECT count(*) FROM pages").fetchone()
    chance = random.Random(seed)
    connection.execute("BEGIN IMMEDIATE")
    for page in chance.sample(range(pages), chance.randrange(pages // 4, pages)):
        connection.execute("UPDATE pages SET body = zeroblob(?) WHERE id = ?", (BODY, page))
    ready()


def lock(path: str) -> None:
    """Hold an exclusive lock."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    connection.execute("UPDATE accounts SET balance = balance")
    ready()


def hammer(path: str) -> None:
    """Commit as fast as it goes."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE ticks (id INTEGER PRIMARY KEY)")
    for _ in range(100):
        connection.execute("INSERT INTO ticks DEFAULT VALUES")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not ended():
        for _ in range(100):
            connection.execute("INSERT INTO ticks DEFAULT VALUES")


def attend(path: str) -> None:
    """Have the database open, with something in its log if it has one."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("UPDATE meta SET value = 'attended'")
    ready()
    connection.close()


def ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


def ended() -> bool:
    import select

    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {
        "write": write,
        "hang": hang,
        "lock": lock,
        "attend": attend,
        "hammer": hammer,
    }
    programs[sys.argv[1]](**json.loads(sys.argv[2]))
