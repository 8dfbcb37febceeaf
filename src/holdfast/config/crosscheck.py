"""What no part of the file shows alone: names that lead nowhere, and folders inside one another."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import NamedTuple

from ..i18n import _
from ..model.options import Options
from .nodes import KeyPath
from .problems import nearest
from .schema import FilePart


class Contradiction(NamedTuple):
    """A problem with the place it is reported at, and what to do about it."""

    keys: KeyPath
    problem: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """A path that a component or vault names, as the file system knows it."""

    keys: KeyPath
    name: str
    path: Path
    options: Options
    written: PurePath  # where it is in the tree that patterns of `exclude` look at

    def holds(self, other: Path) -> bool:
        """Tell whether the other path lies in this one, or is the same."""
        return other.is_relative_to(self.path)

    def within(self, other: Path) -> PurePath:
        """Return the path of something in here as patterns of `exclude` look at it."""
        return self.written / other.relative_to(self.path)

    def leaves_out(self, other: Path) -> bool:
        """Tell whether this folder's own `exclude` passes over the other path."""
        patterns = getattr(self.options, "exclude", ())
        if not patterns:
            return False
        from pathspec import GitIgnoreSpec

        parts = self.within(other).parts
        spec = GitIgnoreSpec.from_lines(patterns)
        # A folder that is left out takes with it what is in it; the last part may be either.
        folders = ("/".join(parts[: depth + 1]) + "/" for depth in range(len(parts)))
        return any(map(spec.match_file, folders)) or spec.match_file("/".join(parts))


def contradictions(
    part: FilePart, components: Mapping[str, Options], vaults: Mapping[str, Options], folder: Path
) -> Iterator[Contradiction]:
    """Give every contradiction. ``components`` and ``vaults`` are those whose options are known."""
    yield from _names_in_plans(part)
    yield from _names_in_checks(part)
    stores = list(_places("components", components, folder))
    shelves = list(_places("vaults", vaults, folder))
    yield from _shared_paths(stores)
    yield from _shared_paths(shelves)
    yield from _stores_in_stores(stores)
    yield from _vaults_and_stores(stores, shelves)
    yield from _state_in_stores(_real(part.state), stores)


def _names_in_plans(part: FilePart) -> Iterator[Contradiction]:
    for name, plan in part.plans.items():
        for section, known in (("components", part.components), ("vaults", part.vaults)):
            for index, given in enumerate(getattr(plan, section) or ()):
                if given not in known:
                    yield _unknown(("plans", name, section, index), section, given, list(known))


def _names_in_checks(part: FilePart) -> Iterator[Contradiction]:
    known = list(part.components)
    seen: set[str] = set()
    for index, check in enumerate(part.checks):
        if check.name in seen:
            problem = _("another check has this name already")
            yield Contradiction(("checks", index, "name"), problem, _("give each its own name"))
        seen.add(check.name)
        if check.component and check.component not in known:
            yield _unknown(("checks", index, "component"), "components", check.component, known)
        for side in ("left", "right"):
            selector = getattr(check, side)
            if selector and selector.component not in known:
                keys = ("checks", index, side, "component")
                yield _unknown(keys, "components", selector.component, known)


def _unknown(keys: KeyPath, section: str, name: str, known: Sequence[str]) -> Contradiction:
    problem = _("there is no `{name}` under `{section}`").format(name=name, section=section)
    return Contradiction(keys, problem, nearest(name, known))


def _places(section: str, stores: Mapping[str, Options], folder: Path) -> Iterator[_Place]:
    """Give the local paths among the options of all components or vaults."""
    for name, options in stores.items():
        for key in type(options).model_fields:
            value = getattr(options, key)
            if isinstance(value, Path):
                yield _Place((section, name, key), name, _real(value), options, PurePath())
            elif isinstance(value, tuple | list):
                for index, item in enumerate(value):
                    if isinstance(item, Path):
                        keys = (section, name, key, index)
                        yield _Place(keys, name, _real(item), options, _written(item, folder))


def _written(path: Path, folder: Path) -> PurePath:
    """Return how one of several paths is named in their tree: from the file's folder downwards."""
    parts = PurePath(os.path.relpath(path, folder)).parts
    return PurePath(*(part for part in parts if part != ".."))


def _real(path: Path) -> Path:
    # Links are followed, so that two ways to one folder are seen to be one.
    return Path(os.path.realpath(path))


def _shared_paths(places: Sequence[_Place]) -> Iterator[Contradiction]:
    first: dict[Path, _Place] = {}
    for place in places:
        other = first.setdefault(place.path, place)
        if other is not place:
            problem = _("has the same path as `{other}`").format(other=other.name)
            yield Contradiction(place.keys, problem, _("keep one of the two"))


def _stores_in_stores(stores: Sequence[_Place]) -> Iterator[Contradiction]:
    for outer in stores:
        for inner in stores:
            if inner.path == outer.path or not outer.holds(inner.path):
                continue
            if not outer.leaves_out(inner.path):
                problem = _("holds the component `{inner}`: it would be kept twice, once torn")
                advice = _("add {pattern} to the `exclude` of `{outer}`, or take one of them out")
                pattern = _pattern(outer, inner.path)
                yield Contradiction(
                    outer.keys,
                    problem.format(inner=inner.name),
                    advice.format(pattern=pattern, outer=outer.name),
                )


def _vaults_and_stores(
    stores: Sequence[_Place], vaults: Sequence[_Place]
) -> Iterator[Contradiction]:
    advice = _("put the vault elsewhere; best on another disk")
    for vault in vaults:
        for store in stores:
            if store.holds(vault.path):
                # Also where it is excluded: a restore replaces the whole folder.
                problem = _("lies in the component `{store}`, which would back itself up")
                yield Contradiction(vault.keys, problem.format(store=store.name), advice)
            elif vault.holds(store.path):
                problem = _("lies in the vault `{vault}`, among the backups")
                yield Contradiction(store.keys, problem.format(vault=vault.name), advice)


def _state_in_stores(state: Path, stores: Sequence[_Place]) -> Iterator[Contradiction]:
    for store in stores:
        if store.holds(state) and (state == store.path or not store.leaves_out(state)):
            problem = _("lies in the component `{store}`, and changes while that is backed up")
            advice = _("add {pattern} to the `exclude` of `{store}`, or set `state` elsewhere")
            pattern = _pattern(store, state) if state != store.path else "it"
            yield Contradiction(
                ("state",),
                problem.format(store=store.name),
                advice.format(pattern=pattern, store=store.name),
            )


def _pattern(outer: _Place, inner: Path) -> str:
    suffix = "" if inner.is_file() else "/"
    return f'"/{outer.within(inner)}{suffix}"'
