"""What belongs to no backup of a folder: what its owner excluded, and what restores leave there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._folders import Descent

if TYPE_CHECKING:
    from pathlib import Path

    from ._walk import Exclude

# The names that `_swap` gives to what it stages and puts aside. A component inside this folder may
# have a restore under way; what it staged must neither be backed up nor disappear with the folder.
_STAGED = re.compile(r"(?:.*/)?\.[^/]+\.holdfast-[^/]+\.(?:new|old|none|kept)", re.DOTALL)


def excluder(patterns: Sequence[str]) -> Exclude:
    """Return a test for paths by patterns as in ``.gitignore``, relative to the root of the tree.

    Raises ``ValueError`` for a pattern that has no meaning.
    """
    if not patterns:
        return lambda path, _folder: _STAGED.fullmatch(path) is not None
    from pathspec import GitIgnoreSpec

    spec = GitIgnoreSpec.from_lines(patterns)

    def excluded(path: str, folder: bool) -> bool:  # noqa: FBT001 - the shape of `Exclude`
        if _STAGED.fullmatch(path):
            return True
        return spec.match_file(f"{path}/" if folder else path)

    return excluded


def excluded_below(root: Path, exclude: Exclude) -> list[str]:
    """Return the excluded paths below a folder; of an excluded folder itself, not what is in it.

    Raises ``OSError``.
    """
    found: list[str] = []
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with Descent(descriptor) as here:
        waiting = [("", _sorted(here.fd, "", found, exclude))]
        while waiting:
            folder, names = waiting[-1]
            if not names:
                waiting.pop()
                here.leave()
                continue
            name = names.pop()
            path = folder + name
            waiting.append((f"{path}/", _sorted(here.enter(name), f"{path}/", found, exclude)))
    return found


def _sorted(fd: int, prefix: str, found: list[str], exclude: Exclude) -> list[str]:
    """Add what is excluded in a folder to ``found``; return the folders to look into."""
    folders = []
    with os.scandir(fd) as entries:
        for entry in entries:
            folder = entry.is_dir(follow_symlinks=False)
            if exclude(prefix + entry.name, folder):
                found.append(prefix + entry.name)
            elif folder:
                folders.append(entry.name)
    return folders
