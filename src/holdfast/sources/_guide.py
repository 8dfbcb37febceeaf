"""Pieces of the shell lines in ``RESTORE.md``."""

from __future__ import annotations

import shlex


def reading(path: str) -> str:
    """Return the command that prints a stored stream as it was before a vault compressed it.

    ``path`` is quoted for the shell already.
    """
    name = shlex.split(path)[0]
    if name.endswith(".zst"):
        return f"zstd -dc {path}"
    return f"gzip -dc {path}" if name.endswith(".gz") else f"cat {path}"
