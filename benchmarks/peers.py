"""The tools that Holdfast is compared to, as one would use them with care."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path

from .measure import Command, shell
from .stack import remove


def quoted(path: Path) -> str:
    """Return a path for the shell."""
    return shlex.quote(str(path))


def pack(name: str, tree: Path, out: Path, how: str, *, synced: bool = False) -> Command:
    """Return tar writing an archive through a compressor, such as ``gzip -6``."""
    script = f"tar -C {quoted(tree)} -cf - . | {how} > {quoted(out)}"
    if synced:
        script += f" && sync {quoted(out)}"
    empty = partial(remove, out)
    return Command(name, shell(script), before=empty, after=empty, output=out)


def unpack(name: str, archive: Path, folder: Path, *, synced: bool = False) -> Command:
    """Return tar unpacking an archive."""
    script = f"mkdir {quoted(folder)} && tar -I zstd -C {quoted(folder)} -xf {quoted(archive)}"
    if synced:
        script += f" && sync -f {quoted(folder)}"
    empty = partial(remove, folder)
    return Command(name, shell(script), before=empty, after=empty)
