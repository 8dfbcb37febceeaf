"""Which file systems are mounted inside a folder (``proc(5)``, mountinfo)."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(r"\\([0-7]{3})")
_POINT = 4  # which field of a line


def mounts_below(folder: Path) -> list[str]:
    """Return the mount points inside a folder (a real path), itself not included."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:  # not Linux: the kernel then refuses what cannot be renamed
        return []
    points = [_ESCAPED.sub(_character, line.split(" ")[_POINT]) for line in lines]
    return sorted(point for point in points if point.startswith(f"{folder}/"))


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))
