"""Names of components, made from the names of the files that were found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST = 60


def unique_names(paths: Sequence[Path]) -> Iterator[str]:
    """Give one name for each path: its stem, with its folder or a number where that is taken."""
    taken: set[str] = set()
    for path in paths:
        name = _safe(path.stem)
        if name in taken:
            name = _safe(f"{path.parent.name}-{path.stem}")
        base, number = name, 2
        while name in taken:
            name, number = f"{base}-{number}", number + 1
        taken.add(name)
        yield name


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-_")[:_LONGEST] or "database"
