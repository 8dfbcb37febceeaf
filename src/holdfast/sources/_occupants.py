"""Which other programs have files open, as far as this user may know (``proc(5)``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

PROC = Path("/proc")


def open_by(paths: Sequence[Path], *, writing: bool = False) -> list[str]:
    """Name the programs that have one of ``paths``, or anything below it, open or mapped.

    With ``writing`` only those that may write. This process does not count. The processes of other
    users can be seen by root only: an empty answer to anyone else is no proof.
    """
    roots = [os.path.realpath(path) for path in paths]
    return [
        f"{_name(process)} (pid {process.name})"
        for process in _processes()
        if _has_open(str(process), roots, writing=writing)
    ]


def _processes() -> Iterator[Path]:
    if not PROC.is_dir():
        return
    own = str(os.getpid())
    for entry in sorted(PROC.iterdir()):
        if entry.name.isdigit() and entry.name != own:
            yield entry


# Plain strings from here on: a busy machine has many thousands of descriptors, and a restore looks
# at them several times while the services are stopped.
def _has_open(process: str, roots: Sequence[str], *, writing: bool) -> bool:
    folders = tuple(root + "/" for root in roots)
    try:
        descriptors = os.listdir(f"{process}/fd")  # noqa: PTH208
    except OSError:  # it ended, or it is not ours to look at
        return False
    for descriptor in descriptors:
        try:
            opened = os.readlink(f"{process}/fd/{descriptor}")  # noqa: PTH115
            found = opened in roots or opened.startswith(folders)
            if found and (not writing or _writable(process, descriptor)):
                return True
        except OSError:  # closed in between
            continue
    return False


def _writable(process: str, descriptor: str) -> bool:
    for line in Path(process, "fdinfo", descriptor).read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _name(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "a program"
    shown = b" ".join(words[:3]).decode(errors="replace").strip()
    return shown[:60] or "a program"
