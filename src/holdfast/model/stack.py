"""A stack as its configuration declares it: components, vaults, plans, checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from .retention import Keep


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """A component: its name, its kind of source, and the options of that kind, validated."""

    name: str
    source: str
    options: Any  # the `Options` of that kind of source
    rebuildable: bool = False  # losing it costs time, not data


@dataclass(frozen=True, slots=True)
class VaultSpec:
    """A vault: its name, its kind, and the options of that kind, validated."""

    name: str
    kind: str
    options: Any  # the `Options` of that kind of vault


@dataclass(frozen=True, slots=True)
class Plan:
    """What to back up where, when, and what to keep. Without components or vaults: all."""

    name: str
    components: tuple[str, ...] | None = None
    vaults: tuple[str, ...] | None = None
    keep: Keep | None = None  # None: prune nothing
    verify: str = ""  # a verification level, or empty: do not verify after the backup
    archive: str = "tar.zst"  # how a plain vault keeps trees: tar.zst | tar.gz
    schedule: str = ""
    timezone: str = "UTC"
    rpo: timedelta | None = None
    rto: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """One side of a check across components: the keys that a component's data has."""

    component: str
    options: Mapping[str, str]  # for example {"sql": …} or {"collection": …}; the source decides


@dataclass(frozen=True, slots=True)
class Check:
    """An assertion. Either ``sql`` on a component (a row returned is a violation) or two sides."""

    name: str
    component: str = ""
    sql: str = ""
    left: Selector | None = None
    right: Selector | None = None
    one_way: bool = False  # only left → right: what is on the right alone is no violation


@dataclass(frozen=True, slots=True)
class Services:
    """The application's own services: commands as argument lists, and URLs that answer 2xx."""

    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    health_timeout: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands to run around backups and restores, each an argument list."""

    before_backup: tuple[str, ...] = ()
    after_backup: tuple[str, ...] = ()
    before_restore: tuple[str, ...] = ()
    after_restore: tuple[str, ...] = ()
    on_error: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    """One application, as its configuration file declares it."""

    name: str
    file: Path
    state: Path
    components: Mapping[str, ComponentSpec]
    vaults: Mapping[str, VaultSpec]
    plans: Mapping[str, Plan] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    services: Services = field(default_factory=Services)
    hooks: Hooks = field(default_factory=Hooks)
