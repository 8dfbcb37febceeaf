"""Making many files durable at once, and large ones early.

One fsync for each of 10,000 small files costs a commit of the journal each, a hundred times the
writing itself. ``syncfs(2)`` writes everything the file system holds back in one go, with a handful
of commits, and names and folders come with it. It may also wait for what other programs have
written there; that is the cheaper price. Since Linux 5.8 it reports failed writes, as fsync does:
those since its own descriptor was opened. So a `Disk` is there before anything is written.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ctypes import CDLL

_START_WRITING = 2  # SYNC_FILE_RANGE_WRITE


class Disk:
    """The file system of a folder, to be synced after writing. Use as a context."""

    def __init__(self, path: Path) -> None:
        """Look at writes that fail from now on. Raises ``OSError`` where there is no such path."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def sync(self) -> None:
        """Wait until all that was written there is on the disk.

        Raises ``OSError`` if something could not be written, now or since this was made.
        """
        import ctypes

        if _library().syncfs(self._fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def sync_file_system(path: Path) -> None:
    """Wait until all that was written to the file system of ``path`` is on its disk.

    For little: what was written long enough ago may have failed unseen. Raises ``OSError`` if
    something could not be written.
    """
    with Disk(path) as disk:
        disk.sync()


def begin_writing(fd: int) -> None:
    """Let the system begin to write a file to its disk, as far as there is one, without a wait.

    What a large file has so far is then on its way while the rest of it is made, and who syncs in
    the end waits for little. It is a hint: whether it was followed, or failed, the sync finds out.
    """
    import ctypes

    whole = ctypes.c_int64(0), ctypes.c_int64(0)  # offset, length; 0: to its end
    _library().sync_file_range(fd, *whole, _START_WRITING)


@cache
def _library() -> CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
