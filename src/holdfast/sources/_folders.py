"""Folders held open by descriptor, from a root down to where one works.

Paths are looked up anew each time they are used, and a symbolic link slipped in meanwhile leads
somewhere else. A descriptor always means the folder that it was opened on; each one here is opened
in the one above it, and never through a link. It also makes trees reachable whose paths are longer
than the system takes in one piece.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
MOST_OPEN = 64  # a tree may be deeper than a process may have files open
_CLOSED = -1


@dataclass(slots=True)
class _Step:
    name: str
    fd: int
    identity: tuple[int, int]


class Descent:
    """The way from a root folder down to the present one; at most `MOST_OPEN` folders stay open.

    Raises ``OSError`` like the calls beneath it, and ``NotADirectoryError`` where a folder that had
    to be opened again is no longer the same one.
    """

    def __init__(self, root: int) -> None:
        """Take over the descriptor of the root; it is closed with the rest."""
        self._steps = [_Step("", root, _identity(root))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many folders deep, the root included."""
        return len(self._steps)

    @property
    def fd(self) -> int:
        """The present folder."""
        if self._steps[-1].fd == _CLOSED:
            self._open_again()
        return self._steps[-1].fd

    @property
    def root(self) -> int:
        """The root folder."""
        return self._steps[0].fd

    def enter(self, name: str) -> int:
        """Go into a folder of the present one, and return its descriptor."""
        fd = os.open(name, OPEN_FOLDER, dir_fd=self.fd)
        self._steps.append(_Step(name, fd, _identity(fd)))
        spare = len(self._steps) - 1 - MOST_OPEN
        if spare > 0:
            self._shut(self._steps[spare])
        return fd

    def leave(self) -> None:
        """Go back up by one folder."""
        self._shut(self._steps.pop())

    def close(self) -> None:
        """Close every folder."""
        while self._steps:
            self._shut(self._steps.pop())

    def _open_again(self) -> None:
        """Walk down from the root again, and keep the lower half of what may be open."""
        for depth in range(1, len(self._steps)):
            step, above = self._steps[depth], self._steps[depth - 1]
            step.fd = os.open(step.name, OPEN_FOLDER, dir_fd=above.fd)
            if _identity(step.fd) != step.identity:
                problem = f"{step.name} was replaced"
                raise NotADirectoryError(problem)
            if 1 < depth <= len(self._steps) - MOST_OPEN // 2:
                self._shut(above)

    @staticmethod
    def _shut(step: _Step) -> None:
        if step.fd != _CLOSED:
            fd, step.fd = step.fd, _CLOSED
            os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
