"""What is known of a store: facts it counted, what it can do, what was found wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a source counted about itself; never an estimate, unless ``notes`` says so.

    ``counts`` are numbers that can be compared between then and now, named ``unit/thing`` or just
    ``unit``: ``rows/stories``, ``vectors/memory``, ``files``, ``bytes``. ``details`` is the rest:
    schema version, dimension and metric of a collection, journal mode.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Json] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a store can be reached, and what it says of itself."""

    reachable: bool
    version: str = ""  # of the store's own software or format
    size: int = 0  # bytes, roughly: for the check that there is room
    tools: Mapping[str, str] = field(default_factory=dict)  # tool → version, as far as used
    rights: str = ""  # what the account that is used may do there, in a few words
    problems: tuple[str, ...] = ()  # one line each; not reachable: the reason comes first


@dataclass(frozen=True, slots=True)
class Inspection:
    """What reading a stored artifact with the store's own eyes showed."""

    facts: Facts
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Discovery:
    """A store that was found in a folder, as `holdfast init` proposes it.

    ``secrets`` has, for an option that is secret, how the configuration refers to its value:
    ``${env:NAME}`` or ``${file:path}``; the value itself is nowhere here. ``env_files`` are the
    files of variables that such a NAME stands in, from the folder that was searched.
    """

    name: str
    source: str
    options: Mapping[str, Json]
    comment: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    env_files: tuple[str, ...] = ()


def differences(then: Facts, now: Facts) -> list[str]:
    """Return one line for each count that is not the same in both, sorted by name."""
    lines = []
    for name in sorted({*then.counts, *now.counts}):
        before, after = then.counts.get(name), now.counts.get(name)
        if before != after:
            lines.append(f"{name}: {_count(before)} expected, {_count(after)} found")
    return lines


def _count(value: int | None) -> str:
    return "none" if value is None else str(value)
