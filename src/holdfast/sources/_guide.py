"""Pieces of the shell lines in ``RESTORE.md``."""

from __future__ import annotations

import shlex

ARCHIVES = {
    ".tar.zst": "zstd -dc {} | tar --xattrs -xpf -",
    ".tar.gz": "tar --xattrs -xpzf {}",
    ".tgz": "tar --xattrs -xpzf {}",
    ".tar": "tar --xattrs -xpf {}",
}


def reading(path: str) -> str:
    """Return the command that prints a stored stream as it was before a vault compressed it.

    ``path`` is quoted for the shell already.
    """
    name = shlex.split(path)[0]
    if name.endswith(".zst"):
        return f"zstd -dc {path}"
    return f"gzip -dc {path}" if name.endswith(".gz") else f"cat {path}"


def unpacking(path: str) -> str:
    """Return the command that puts a stored tree into ``"$TARGET"``: an archive, or a folder.

    ``path`` is quoted for the shell already.
    """
    name = shlex.split(path)[0]
    for suffix, command in ARCHIVES.items():
        if name.endswith(suffix):
            return f'{command.format(path)} -C "$TARGET"'
    return f'cp -a {path}/. "$TARGET"'
