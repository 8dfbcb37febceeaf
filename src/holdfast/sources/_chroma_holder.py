"""The program that copies a Chroma folder while it holds the folder's write lock.

It runs as a process of its own, started by path with nothing but the standard library, because:

- POSIX locks belong to a process, and closing *any* descriptor of a file drops all of them. Here
  the database file is opened before the lock is taken and closed after it was given back, and no
  other code of ours, in whatever thread, runs in this process.
- The lock ends with the process. If the one who asked dies, standard input ends and so do we; if a
  disk hangs, a timer ends us. Nothing was written, so there is nothing to undo.

It is given one line of JSON as its argument, answers each line on standard input with one line of
JSON, and never changes anything in the folder that it copies.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

DATABASE = "chroma.sqlite3"
JOURNALS = tuple(DATABASE + suffix for suffix in ("-journal", "-wal", "-shm"))
SLICE = 64 << 20  # bytes copied by one system call
RACY = 0.03  # seconds; a file changed this recently may change again under the same time stamp
POLL = 0.01  # seconds between two looks at files that are still being written
TOO_LONG = 4  # exit status: the lock was held for longer than was allowed
NOT_IN_KERNEL = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


class Stamp(NamedTuple):
    """What tells two states of a file apart."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    def settled(self, now: float) -> bool:
        """Whether a later write is certain to give it another stamp."""
        return now - max(self.mtime_ns, self.ctime_ns) / 1e9 > RACY


Stamps = dict[str, Stamp]


class Refused(Exception):
    """The attempt failed for a reason that whoever asked has to name."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Holder:
    """Copies one folder, again and again if it must; later copies take only what has changed."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Touch nothing yet."""
        self.root = Path(job["root"])
        self.target = Path(job["target"])
        self.lock_seconds = float(job["lock_seconds"])
        self.pause_seconds = float(job["pause_seconds"])
        self.settle_seconds = float(job["settle_seconds"])
        self.have: Stamps = {}

    def copy(self) -> dict[str, Any]:
        """Make the copy the state of one instant, and say how long writers were held."""
        database = os.open(self.root / DATABASE, os.O_RDONLY | os.O_CLOEXEC)
        connection = self._connect()
        try:
            self._ahead(database, connection)
            with self._held(connection):
                began, instant = time.monotonic(), time.time()
                segments = _segments(connection)
                quiet = self._until_quiet(segments)
                self._copy_database(database, connection)
                quiet = quiet and self._stamps(segments) == self._had(segments)
            held = time.monotonic() - began
            self._copy_others(segments)
        finally:
            connection.close()
            os.close(database)  # only now: closing it drops the lock
        return {
            "instant": instant,
            "held": held,
            "quiet": quiet,
            "stamps": self._had(segments),
        }

    def copy_raw(self) -> dict[str, Any]:
        """Copy every file as it lies there, without a lock: the database does not even open."""
        for name in [*_files(self.root, "")]:
            self._copy_if_changed(name)
        self._copy_folder_attributes("")
        return {"instant": time.time()}

    # --- the lock --------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(
            _uri(self.root / DATABASE),
            uri=True,
            timeout=self.lock_seconds,
            isolation_level=None,
            check_same_thread=False,
        )

    @contextlib.contextmanager
    def _held(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Keep every other program from committing.

        SQLite takes a reader's lock where the database may only be read. That will do, once it is
        certain that it was taken: nobody commits beside a reader.
        """
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        timer = threading.Timer(self.pause_seconds, os._exit, [TOO_LONG])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            timer.cancel()

    # --- what is copied --------------------------------------------------------------------------

    def _ahead(self, database: int, connection: sqlite3.Connection) -> None:
        """Copy what may stay as it is, before anyone has to wait for us."""
        for name in self._listed(_segments(connection)):
            self._copy_if_changed(name)
        self._copy_open(database, DATABASE)

    def _until_quiet(self, segments: list[str]) -> bool:
        """Copy the segments until none of their files changed while they were copied.

        A write that is under way when we take the lock goes on, for Chroma writes these files
        without it; the next one cannot begin, because it follows a transaction.
        """
        deadline = time.monotonic() + self.settle_seconds
        while True:
            before, now = self._stamps(segments), time.time()
            if all(stamp.settled(now) for stamp in before.values()):
                for name in before:
                    self._copy_if_changed(name)
                if self._stamps(segments) == before == self._had(segments):
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)

    def _copy_database(self, database: int, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
            self._copy_through_sqlite()
            return
        self._copy_open(database, DATABASE)

    def _copy_through_sqlite(self) -> None:
        """Copy a database whose newest pages lie in its write-ahead log."""
        self.have.pop(DATABASE, None)
        place = self.target / DATABASE
        place.unlink(missing_ok=True)
        live = sqlite3.connect(_uri(self.root / DATABASE), uri=True, timeout=self.lock_seconds)
        copy = sqlite3.connect(place)
        try:
            live.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
            live.close()
        self._copy_attributes((self.root / DATABASE).stat(), place)

    def _copy_others(self, segments: list[str]) -> None:
        """Copy what else lies there, and drop what is there no longer; nobody waits for this."""
        own = {DATABASE, *JOURNALS}
        there = {name for name in _files(self.root, "", skip=set(segments)) if name not in own}
        for name in sorted(there):
            self._copy_if_changed(name)
        kept = there | {DATABASE, *self._listed(segments)}
        for name in set(self.have) - kept:
            self._drop(name)
        self._copy_folder_attributes("")
        for folder in _folders(self.root):
            self._copy_folder_attributes(folder)

    def _copy_if_changed(self, name: str) -> None:
        try:
            source = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            self._drop(name)
            return
        try:
            self._copy_open(source, name)
        finally:
            os.close(source)

    def _copy_open(self, source: int, name: str) -> None:
        """Copy an open file over what we have of it, unless that is the same already."""
        now = time.time()
        stamp = _stamp(os.fstat(source))
        if self.have.pop(name, None) != stamp:
            self._copy_bytes(source, name)
        if stamp.settled(now):
            self.have[name] = stamp

    def _copy_bytes(self, source: int, name: str) -> None:
        place = self.target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(copy, _copy_bytes(source, copy))
        finally:
            os.close(copy)
        self._copy_attributes(os.fstat(source), place)

    def _drop(self, name: str) -> None:
        self.have.pop(name, None)
        (self.target / name).unlink(missing_ok=True)

    def _copy_folder_attributes(self, folder: str) -> None:
        place = self.target / folder
        with contextlib.suppress(FileNotFoundError):
            status = (self.root / folder).stat()
            place.mkdir(parents=True, exist_ok=True)
            self._copy_attributes(status, place)

    def _copy_attributes(self, status: os.stat_result, place: Path) -> None:
        """Keep owner, mode and time, so that a restored folder is the application's own again."""
        if os.geteuid() == 0:
            os.chown(place, status.st_uid, status.st_gid)
        needed = 0 if os.geteuid() == 0 else stat.S_IRUSR | stat.S_IWUSR
        place.chmod(stat.S_IMODE(status.st_mode) | needed)
        os.utime(place, ns=(status.st_mtime_ns, status.st_mtime_ns))

    # --- where things are ------------------------------------------------------------------------

    def _listed(self, segments: list[str]) -> list[str]:
        return [name for segment in segments for name in _files(self.root, segment)]

    def _stamps(self, segments: list[str]) -> Stamps:
        stamps = {}
        for name in self._listed(segments):
            with contextlib.suppress(FileNotFoundError):
                stamps[name] = _stamp((self.root / name).lstat())
        return stamps

    def _had(self, segments: list[str]) -> Stamps:
        return {name: stamp for name, stamp in self.have.items() if name.split("/")[0] in segments}


def _segments(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT id FROM segments WHERE scope = 'VECTOR' ORDER BY id")
    names = [str(name) for (name,) in rows]
    for name in names:
        if not name or "/" in name or name.startswith("."):
            raise Refused("unfit", f"a segment is named {name!r}")
    return names


def _files(root: Path, folder: str, skip: set[str] | None = None) -> Iterator[str]:
    """Name the regular files below a folder, relative to the root, the folder's own first."""
    try:
        entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    inner = []
    for entry in entries:
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            if name not in (skip or ()):
                inner.append(name)
        elif entry.is_file(follow_symlinks=False):
            yield name
    for name in inner:
        yield from _files(root, name)


def _folders(root: Path) -> Iterator[str]:
    for folder, names, _files_there in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                yield str(path.relative_to(root))


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _copy_bytes(source: int, copy: int) -> int:
    """Copy a file's bytes inside the kernel, which shares them instead where the disk can."""
    done = 0
    try:
        while count := os.copy_file_range(source, copy, SLICE, done, done):
            done += count
    except OSError as error:
        if done or error.errno not in NOT_IN_KERNEL:
            raise
        return _copy_through_memory(source, copy)
    return done


def _copy_through_memory(source: int, copy: int) -> int:
    done = 0
    while chunk := os.pread(source, 1 << 20, done):
        rest = memoryview(chunk)
        while rest:
            count = os.pwrite(copy, rest, done)
            rest, done = rest[count:], done + count
    return done


def _uri(path: Path) -> str:
    """Return the address of a database that must be there already."""
    return f"file:{quote(str(path))}?mode=rw"


def _answer(holder: Holder, command: str) -> dict[str, Any]:
    try:
        return holder.copy_raw() if command == "raw" else holder.copy()
    except Refused as refused:
        return {"error": refused.kind, "reason": refused.reason}
    except sqlite3.Error as error:
        return {"error": _kind(error), "reason": str(error)}
    except OSError as error:
        return {
            "error": "system",
            "errno": error.errno,
            "reason": str(error),
            "path": error.filename,
        }


def _kind(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "locked"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "corrupt"
    return "unfit" if code == sqlite3.SQLITE_ERROR else "unreadable"


def _listen(commands: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        commands.put(line.strip())
    os._exit(0)  # whoever asked is gone; the lock goes with us, wherever the copy stands


def main() -> None:
    """Answer commands until standard input ends."""
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    holder = Holder(json.loads(sys.argv[1]))
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    while True:
        answer = _answer(holder, commands.get())
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
