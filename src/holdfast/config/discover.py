"""What to propose of the stores that were found: unique names, no store inside another."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from ..errors import UnsafeName, printable
from ..i18n import _
from ..model.facts import Discovery, Json
from ..model.names import safe_name

RECORDS = ".holdfast"  # lies in every vault, and is the usual place for a stack's state


@dataclass(frozen=True, slots=True)
class Proposal:
    """The components to propose, and a line for each store that was found but left out."""

    components: tuple[Discovery, ...]
    left_out: tuple[str, ...] = ()

    @property
    def env_files(self) -> list[str]:
        """The files of variables that secrets of the components stand in."""
        return list(dict.fromkeys(name for c in self.components for name in c.env_files))


def propose(discoveries: Iterable[Discovery], folder: Path, unread: Iterable[str] = ()) -> Proposal:
    """Make a proposal that is valid as it stands from what the sources found below a folder.

    ``unread`` is a line for each file that might have told of more stores and could not be read.
    """
    tidied = (_without_backups(_relative(d, folder), folder) for d in discoveries)
    found = sorted(tidied, key=lambda discovery: paths_of(discovery)[:1])
    chosen: list[Discovery] = []
    left_out = [printable(line) for line in unread]
    for discovery in found:
        reason = _against(discovery, found, folder)
        if not reason and any(_same_place(discovery, other) for other in chosen):
            at = _("path") if _path(discovery) else _("address")
            reason = _("another component has the same {place}").format(place=at)
        if reason:
            where = printable(", ".join(paths_of(discovery)) or discovery.options.get("url"))
            left_out.append(f"{discovery.source} {where}: {reason}")
        else:
            chosen.append(discovery)
    apart = [_with_exclusions(discovery, chosen) for discovery in chosen]
    return Proposal(_with_unique_names(apart), tuple(left_out))


def document(proposal: Proposal) -> dict[str, Any]:
    """Return the proposal as one plain JSON value."""
    components = [
        {
            "name": d.name,
            "source": d.source,
            "options": dict(d.options),
            "secrets": dict(d.secrets),
            "env_files": list(d.env_files),
            "comment": d.comment,
        }
        for d in proposal.components
    ]
    return {"components": components, "left_out": list(proposal.left_out)}


def render(proposal: Proposal) -> str:
    """Return what was found as text, one line for each store."""
    lines = [
        f"{d.name}: {d.source} {_options({**d.options, **d.secrets})}{_remark(d.comment)}"
        for d in proposal.components
    ]
    if not lines:
        lines = [_("no stores were found here")]
    lines += [_("left out: {what}").format(what=line) for line in proposal.left_out]
    return "".join(f"{line}\n" for line in lines)


def _options(options: Mapping[str, Any]) -> str:
    if set(options) in ({"path"}, {"url"}):
        return printable(*options.values())
    return json.dumps(options, ensure_ascii=False)


def _remark(comment: str) -> str:
    return f"  ({printable(comment)})" if comment else ""


def _path(discovery: Discovery) -> str | None:
    path = discovery.options.get("path")
    return path if isinstance(path, str) else None


def paths_of(discovery: Discovery) -> list[str]:
    """Return the one path of a store, or the several."""
    several = discovery.options.get("paths")
    given = several if isinstance(several, list) else [discovery.options.get("path")]
    return [path for path in given if isinstance(path, str)]


def _relative(discovery: Discovery, folder: Path) -> Discovery:
    """Return the discovery with its path relative to the folder, where it lies below it."""
    path = _path(discovery)
    if path is None or not PurePath(path).is_absolute():
        return discovery
    if not PurePath(path).is_relative_to(folder.absolute()):
        return discovery
    relative = str(PurePath(path).relative_to(folder.absolute()))
    return replace(discovery, options={**discovery.options, "path": relative})


def _without_backups(discovery: Discovery, folder: Path) -> Discovery:
    """Return several paths as one store without those that lie among backups."""
    several = discovery.options.get("paths")
    if not isinstance(several, list):
        return discovery
    live = [path for path in several if not _in_vault(PurePath(str(path)), folder)]
    return replace(discovery, options={**discovery.options, "paths": live})


def _same_place(one: Discovery, other: Discovery) -> bool:
    return one.source == other.source and _place(one) == _place(other) is not None


def _place(discovery: Discovery) -> tuple[Json, Json] | None:
    """Return what no two components share: a path, or an address."""
    path, url = _path(discovery), discovery.options.get("url")
    return (
        None if path is None and url is None else (path or url, discovery.options.get("endpoint"))
    )


def _against(discovery: Discovery, found: Sequence[Discovery], folder: Path) -> str:
    """Return why a store should not be a component; empty if nothing is against it."""
    paths = paths_of(discovery)
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:
        return _("its name is not UTF-8 and cannot be written down")
    if all(_in_vault(PurePath(path), folder) for path in paths) and "url" not in discovery.options:
        return _("it lies among backups or the records of Holdfast")
    for other in found:
        if other.source != "files" and _inside(discovery, other):
            return _("it is part of {outer}").format(outer=printable(_path(other)))
    return ""


def _in_vault(path: PurePath, folder: Path) -> bool:
    below = [part for part in (path, *path.parents) if part != PurePath()]
    return RECORDS in path.parts or any((folder / part / RECORDS).exists() for part in below)


def _inside(inner: Discovery, outer: Discovery) -> bool:
    one, other = _path(inner), _path(outer)
    if one is None or other is None or PurePath(one) == PurePath(other):
        return False
    return PurePath(one).is_relative_to(other)


def _with_exclusions(discovery: Discovery, chosen: Sequence[Discovery]) -> Discovery:
    """Return a folder with the stores in it left out, each of which is a component of its own."""
    if discovery.source != "files":
        return discovery
    outer = _path(discovery)
    inner = [_path(other) for other in chosen if _inside(other, discovery)]
    if outer is None or not inner:
        return discovery
    given = discovery.options.get("exclude")
    exclude = list(given) if isinstance(given, list) else []
    for path in inner:
        exclude.append(_pattern(PurePath(path or "").relative_to(outer).as_posix()))
    return replace(discovery, options={**discovery.options, "exclude": exclude})


def _pattern(path: str) -> str:
    """Return what leaves out a store and what a database keeps beside it: its log, its journal."""
    return "/" + re.sub(r"([\\*?\[\]! ])", r"\\\1", path) + "*"


def _with_unique_names(discoveries: Iterable[Discovery]) -> tuple[Discovery, ...]:
    taken: set[str] = {"all"}
    named = []
    for discovery in discoveries:
        name = _unique(_safe(discovery.name), taken)
        taken.add(name)
        named.append(replace(discovery, name=name))
    return tuple(named)


def _unique(name: str, taken: set[str]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}-{number}"
    return unique


def _safe(name: str) -> str:
    """Return a name like this one that may be a component's."""
    name = re.sub(r"[^\w.-]+", "-", name)[:60].strip(".-")
    try:
        return safe_name(name, "component")
    except UnsafeName:
        return "store"


def safe_stack_name(folder: Path) -> str:
    """Return a name for the stack after the folder it lies in."""
    name = _safe(folder.absolute().resolve().name)
    return "app" if name == "store" else name
