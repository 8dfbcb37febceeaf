"""Walking below a root by open folders, so that no symbolic link ever leads elsewhere.

Every step opens one name inside an open folder and refuses links: whatever is renamed or swapped
meanwhile, the file that is reached lies below the root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o700  # backups hold secrets: nobody else may look
FILE_MODE = 0o600
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _FOLDER | os.O_NOFOLLOW


def open_folder(root: Path, parts: Sequence[str], *, create: bool = False) -> int:
    """Return the descriptor of a folder below ``root``, to be closed; with ``create`` it is made.

    Raises ``FileNotFoundError`` where there is none, ``NotADirectoryError`` for a file or a link.
    """
    if create:
        _make_root(root)
    folder = os.open(root, _FOLDER)
    for part in parts:
        try:
            below = _step(folder, part, create=create)
        finally:
            os.close(folder)
        folder = below
    return folder


def _step(folder: int, part: str, *, create: bool) -> int:
    try:
        return os.open(part, _BELOW, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):  # another writer was quicker: it is there, all we wanted
        os.mkdir(part, FOLDER_MODE, dir_fd=folder)
    os.fsync(folder)
    return os.open(part, _BELOW, dir_fd=folder)


def _make_root(root: Path) -> None:
    missing = []
    while not root.is_dir() and root != root.parent:
        missing.append(root)
        root = root.parent
    for folder in reversed(missing):
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def walk(folder: int, prefix: str = "") -> Iterator[str]:
    """Give every name below an open folder that is not itself a folder; links are names."""
    yield from (name for name, _entry in _entries(folder, prefix))


def walk_sizes(folder: int) -> Iterator[tuple[str, int]]:
    """Give what `walk` gives, each name with its size; what is gone by then is left out."""
    for name, entry in _entries(folder, ""):
        with suppress(FileNotFoundError):
            yield name, entry.stat(follow_symlinks=False).st_size


def _entries(folder: int, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    below: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
            else:
                yield prefix + entry.name, entry
    for name in below:
        try:
            inner = os.open(name, _BELOW, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            continue  # deleted or replaced since we looked: it holds no names now
        try:
            yield from _entries(inner, f"{prefix}{name}/")
        finally:
            os.close(inner)


def folders_in(folder: int) -> list[str]:
    """Return the names of the folders right inside an open folder; links are none."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def remove(folder: int, name: str) -> None:
    """Remove a file, a link, or a folder with all that is in it.

    What another process removes at the same time is none the worse for it.
    """
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            _remove_content(folder, name)
            os.rmdir(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _remove_content(folder: int, name: str) -> None:
    inner = os.open(name, _BELOW, dir_fd=folder)
    try:
        for found in os.listdir(inner):  # noqa: PTH208 - an open folder, not a path
            remove(inner, found)
    finally:
        os.close(inner)
