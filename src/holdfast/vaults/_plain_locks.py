"""Who works on a backup in a plain vault: one lock for each id, held by a living process.

In a local folder the lock is the kernel's (``flock``) and ends with its process, however that dies.
A store that is no local folder gets a note of host, process and its start instead: there a lock is
dead when it was taken on this host by a process that is no more.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import BackupExists, NoSpace, VaultUnavailable
from ..ports import Store
from ._plain_layout import OWN

LOCKS = f"{OWN}/locks"
_TOKENS: set[str] = set()  # of the notes that this process holds
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Locks:
    """The locks of a vault."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def held(self, backup_id: str) -> Iterator[None]:
        """Hold the lock of an id; raises `BackupExists` if a living process holds it."""
        with self.tried(backup_id) as mine:
            if not mine:
                raise BackupExists(path=f"a draft of {backup_id}")
            yield

    @contextmanager
    def tried(self, backup_id: str) -> Iterator[bool]:
        """Take the lock of an id unless a living process holds it; gives whether it was taken."""
        path = self._store.path(f"{LOCKS}/{backup_id}")
        if path is None:
            with _noted(self._store, f"{LOCKS}/{backup_id}") as mine:
                yield mine
            return
        descriptor = take_lock(path, wait=False)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                path.unlink(
                    missing_ok=True
                )  # while it is held: nobody can hold a file that is gone
                os.close(descriptor)

    def ids(self) -> set[str]:
        """Return the ids that are locked, or were when their process died."""
        return {name.removeprefix(f"{LOCKS}/") for name in self._store.names(LOCKS)}


def take_lock(path: Path, *, wait: bool) -> int | None:
    """Return the descriptor of a locked file, which unlocks when closed; None if it is taken."""
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    make_private_folder(path.parent)
    try:
        while True:
            descriptor = os.open(path, _OPEN, 0o600)
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                os.close(descriptor)
                return None
            if _is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # its last holder removed it before we had it: once more
    except OSError as error:
        reason = error.strerror or str(error)
        raise VaultUnavailable(vault=path.parent, path=path, reason=reason) from error


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it, for their owner alone."""
    try:
        if not path.is_dir():
            make_private_folder(path.parent)
            path.mkdir(0o700, exist_ok=True)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(path=path) from error
        reason = error.strerror or str(error)
        raise VaultUnavailable(vault=path.parent, path=path, reason=reason) from error


def _is_at(descriptor: int, path: Path) -> bool:
    mine = os.fstat(descriptor)
    with suppress(FileNotFoundError):
        there = path.stat(follow_symlinks=False)
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
    return False


@contextmanager
def _noted(store: Store, name: str) -> Iterator[bool]:
    token = secrets.token_hex(8)
    note = {"host": platform.node(), "process": os.getpid(), "token": token}
    text = json.dumps(note | {"started": _started(os.getpid())}).encode()
    _TOKENS.add(token)
    try:
        try:
            store.put(name, iter((text,)))
        except BackupExists:
            if _is_alive(store, name):
                yield False
                return
            store.replace(name, text)
        try:
            yield True
        finally:
            store.delete(name)
    finally:
        _TOKENS.discard(token)


def _is_alive(store: Store, name: str) -> bool:
    try:
        note = json.loads(store.read(name))
        if note["host"] != platform.node():
            return True  # we cannot see that host's processes: never take what may be live
        if note["process"] == os.getpid() and note["started"] == _started(os.getpid()):
            return note["token"] in _TOKENS
        return bool(_started(note["process"]) == note["started"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        return True  # not a note of ours: leave it alone


def _started(process: int) -> str:
    """Return when a process started, in the kernel's own count; empty if there is none."""
    try:
        text = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[19]


class Turns:
    """Lets one at a time change a thing: one thread, and with a local folder one process."""

    def __init__(self, store: Store, name: str) -> None:
        self._path = store.path(name)
        self._threads = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and hold it."""
        with self._threads:
            if self._path is None:
                yield
                return
            descriptor = take_lock(self._path, wait=True)
            try:
                yield
            finally:
                if descriptor is not None:
                    os.close(descriptor)
