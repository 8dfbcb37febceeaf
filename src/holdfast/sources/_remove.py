"""Removing a folder with everything in it, however deep it is and whatever its permissions."""

from __future__ import annotations

import os
from pathlib import Path

from ._folders import OPEN_FOLDER, Descent


def remove_folder(root: Path) -> None:
    """Remove a folder; no link in it is followed. Raises ``OSError``; what is gone stays gone.

    Folders without the right to be emptied get it first: they are on their way out.
    """
    with Descent(_opened(root.parent, root.name)) as here:
        inside = [_emptied(here.fd)]
        names = [root.name]
        while True:
            if inside[-1]:
                name = inside[-1].pop()
                _permit(here.fd, name)
                here.enter(name)
                names.append(name)
                inside.append(_emptied(here.fd))
                continue
            inside.pop()
            name = names.pop()
            if not inside:
                break
            here.leave()
            os.rmdir(name, dir_fd=here.fd)
    root.rmdir()


def _opened(parent: Path, name: str) -> int:
    above = os.open(parent, OPEN_FOLDER & ~os.O_NOFOLLOW)
    try:
        _permit(above, name)
        return os.open(name, OPEN_FOLDER, dir_fd=above)
    finally:
        os.close(above)


def _permit(above: int, name: str) -> None:
    if os.geteuid() != 0:  # root needs no permission
        os.chmod(name, 0o700, dir_fd=above)


def _emptied(fd: int) -> list[str]:
    """Remove everything in a folder but the folders in it, whose names are returned."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(fd) as found:
        for entry in found:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    for name in files:
        os.unlink(name, dir_fd=fd)
    return folders
