"""Several paths as one tree, each under the name that its configuration gives it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

from holdfast.model.artifact import Entry, EntryKind, Known, TreeItems

from ._owners import People
from ._survey import Survey
from ._walk import Exclude, walk

ROOT = "."
Places = Mapping[str, Path]
"""Paths by the names that they have in the tree; `ROOT` alone, or several others."""


def name_of(path: str) -> str:
    """Return the name in the tree of a path as it is written in the configuration.

    That is the path itself, without the ``/`` or ``../`` before it. Raises ``ValueError`` for one
    that has no name then.
    """
    name = os.path.normpath(os.path.expanduser(path)).lstrip("/")  # noqa: PTH111 - a plain string
    while name.startswith("../"):
        name = name[3:]
    if name in {"", ".", ".."}:
        raise ValueError(f"{path} has no name of its own; give it as `path`")
    return name


def overlapping(names: Iterable[str], paths: Iterable[Path]) -> tuple[str, str] | None:
    """Return two names, or else two paths, of which one is the other or lies in it."""
    for compared in (names, map(os.path.normpath, paths)):
        ordered = sorted((text.split("/"), text) for text in compared)
        for (parts, one), (others, other) in pairwise(ordered):
            if others[: len(parts)] == parts:
                return one, other
    return None


def read_places(  # noqa: PLR0913 - what to read, and how
    places: Places,
    *,
    component: str,
    survey: Survey,
    exclude: Exclude,
    content: bool,
    file_name: str = "",
    instant: datetime | None = None,
    known: Known | None = None,
) -> TreeItems:
    """Read all places as one tree.

    A folder that is `ROOT` is the tree itself. A file that is `ROOT` lies in a tree of its own,
    as ``file_name``. Several places lie in a tree with the folders that their names need; these
    look as the real ones do, where there are such. Other folders get ``instant`` as their time.
    """
    read = partial(
        walk, component=component, survey=survey, exclude=exclude, content=content, known=known
    )
    if ROOT in places and places[ROOT].is_dir():
        yield from read(places[ROOT], at=ROOT)
        return
    made_at = instant or datetime.now(UTC)
    yield _made_up(ROOT, None, made_at), iter(())
    if ROOT in places:
        yield from read(places[ROOT], at=file_name or places[ROOT].name)
        return
    given: set[str] = set()
    for name in sorted(places, key=lambda name: name.split("/")):
        for folder, path in _above(name, places[name]):
            if folder not in given:
                given.add(folder)
                entry = _made_up(folder, path, made_at)
                yield entry, iter(())
                survey.count(entry)
        yield from read(places[name], at=name)


def _above(name: str, path: Path) -> Sequence[tuple[str, Path | None]]:
    """Return the folders that a name needs above it, outermost first, and the real ones."""
    parts = name.split("/")
    real = Path(os.path.normpath(path)).parents
    folders: list[tuple[str, Path | None]] = []
    for depth in range(1, len(parts)):
        above = len(parts) - depth - 1
        alike = above < len(real) and real[above].name == parts[depth - 1]
        folders.append(("/".join(parts[:depth]), real[above] if alike else None))
    return folders


def _made_up(name: str, model: Path | None, made_at: datetime) -> Entry:
    people = People()
    time = int(made_at.timestamp() * 1_000_000) * 1000
    mode, uid, gid = 0o755, os.geteuid(), os.getegid()
    if model is not None:
        try:
            status = model.stat()
        except FileNotFoundError:
            pass
        else:
            mode, uid, gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
            time = status.st_mtime_ns
    return Entry(
        name,
        EntryKind.FOLDER,
        mode,
        time,
        uid=uid,
        gid=gid,
        owner=people.user(uid),
        group=people.group(gid),
    )
