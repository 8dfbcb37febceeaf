"""Files that are being written: beside their place, under a name that no store shows.

The writer holds a lock on the file. Whoever can take the lock knows that the writer is dead.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..model.artifact import CHUNK, Chunks
from ._folders import FILE_MODE

PREFIX = ".incoming-"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def is_aside(name: str) -> bool:
    """Tell whether a name is that of a file being written, or left by a writer that died."""
    return name.rpartition("/")[2].startswith(PREFIX)


def create_aside(folder: int) -> tuple[str, int]:
    """Create a file in an open folder; returns its name and its descriptor, locked."""
    while True:
        name = f"{PREFIX}{secrets.token_hex(8)}"
        descriptor = os.open(name, _NEW, FILE_MODE, dir_fd=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return name, descriptor
        os.close(descriptor)  # a sweep came between creating and locking it


@contextmanager
def kept_aside(folder: int, name: str, descriptor: int) -> Iterator[None]:
    """Close the file on leaving, and remove it where it has not become something else by then."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)
        os.close(descriptor)


def remove_if_dead(folder: int, name: str) -> bool:
    """Remove a file whose writer is dead; returns whether it was."""
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


def gathered(chunks: Chunks, least: int = CHUNK) -> Chunks:
    """Give the same bytes in chunks that are worth a call: those below ``least`` are joined."""
    waiting = bytearray()
    for chunk in chunks:
        if not waiting and len(chunk) >= least:
            yield chunk
            continue
        waiting += chunk
        if len(waiting) >= least:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)
