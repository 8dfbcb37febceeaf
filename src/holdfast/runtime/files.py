"""The state folder's files: made private, locked between processes, written durably."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BackupExists, NoSpace, StateUnwritable

FOLDER_MODE = 0o700  # facts about the data, names of files: nobody else's business
FILE_MODE = 0o600
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}  # not on NFS and so on
PATIENCE = 30.0  # seconds to wait for another process's short critical section
_POLL = 0.01  # seconds


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Translate what the operating system says about a file of ours.

    Raises:
        NoSpace: the disk, or the user's quota of it, is full.
        StateUnwritable: anything else.

    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(path=path) from error
        raise StateUnwritable(path=path, reason=error.strerror or error) from error


def private_folder(path: Path) -> Path:
    """Make a folder only its owner may look into, durably; one that exists is left as it is."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=FOLDER_MODE)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            sync_folder(path.parent)
    return path


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of ``data``; the operating system may take it in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_file(path: Path, data: bytes) -> None:
    """Put a small file in the place of another, whole or not at all, durably.

    Whoever calls this holds a lock on what the file is about: one name beside it will do.
    """
    aside = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with writing(path):
        descriptor = os.open(aside, flags, FILE_MODE)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        except BaseException:
            aside.unlink()
            raise
        finally:
            os.close(descriptor)
        aside.replace(path)
        sync_folder(path.parent)


@contextmanager
def new_file(path: Path) -> Iterator[Callable[[bytes | memoryview], None]]:
    """Give a function that writes a new file; it exists, whole and durable, once this is left.

    On an error nothing is left behind.

    Raises:
        BackupExists: there is a file of that name; it is never overwritten.

    """
    if path.exists():
        raise BackupExists(path=path)
    with writing(path):
        descriptor, aside = _open_unseen(path)

    def write(chunk: bytes | memoryview) -> None:
        with writing(path):
            write_all(descriptor, chunk)

    try:
        yield write
        with writing(path):
            os.fsync(descriptor)
            _give_name(descriptor, aside, path)
            sync_folder(path.parent)
    finally:
        os.close(descriptor)
        if aside is not None:
            aside.unlink()


def _open_unseen(path: Path) -> tuple[int, Path | None]:
    """Open a new file that has no name and ends with us; where that is not known, a hidden one."""
    try:
        return os.open(path.parent, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, FILE_MODE), None
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(aside, flags, FILE_MODE), aside


def _give_name(descriptor: int, aside: Path | None, path: Path) -> None:
    try:
        if aside is None:
            # Only with a folder's descriptor, which a whole path needs not, are links followed.
            os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
        else:
            os.link(aside, path)
    except FileExistsError as error:
        raise BackupExists(path=path) from error


@contextmanager
def lock_file(path: Path, *, shared: bool = False) -> Iterator[int]:
    """Hold a file locked against other processes and threads; gives its descriptor.

    The kernel lets go of it when a process dies. For short sections only.

    Raises:
        StateUnwritable: it cannot be opened, or stayed locked for `PATIENCE` seconds.

    """
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        _wait_for_lock(descriptor, path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path, kind: int) -> None:
    until = time.monotonic() + PATIENCE
    while not try_lock(descriptor, path, kind):
        if time.monotonic() > until:
            raise StateUnwritable(path=path, reason=f"it stayed locked for {PATIENCE:g} s")
        time.sleep(_POLL)


def try_lock(descriptor: int, path: Path, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file if nobody else has it locked; tells whether it worked."""
    with writing(path):
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
