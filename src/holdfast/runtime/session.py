"""A session: one configuration, loaded, with its sources, vaults and state made on first use."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ..config.load import find as find_config
from ..config.load import load
from ..errors import BackupNotFound, SecretMissing, UnknownName
from ..model.manifest import Component
from ..model.stack import Plan, Stack
from ..ports import Clock, Observer, Source, Vault
from ..verbs.select import Listed, Listing, find, list_backups
from ..verbs.surroundings import Surroundings
from .commands import Commands
from .files import private_folder
from .journal import Unfinished, open_journals
from .leases import Leases
from .registry import kinds, open_vault, source_class

Value = TypeVar("Value")


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Return the wall clock's time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()


@dataclass(slots=True)
class Session:
    """What every operation needs. Making one reads the configuration and touches nothing else."""

    stack: Stack
    clock: Clock = field(default_factory=SystemClock)
    _sources: dict[str, Source] = field(default_factory=dict)
    _vaults: dict[str, Vault] = field(default_factory=dict)

    # --- what the configuration names ---

    def source(self, name: str) -> Source:
        """Return a component's source. Raises `UnknownName`."""
        if name not in self._sources:
            spec = _known(self.stack.components, name, "component")
            self._sources[name] = source_class(spec.source)(spec.name, spec.options)
        return self._sources[name]

    def sources(self, names: Iterable[str] | None = None) -> dict[str, Source]:
        """Return the sources of these components, or of all."""
        return {name: self.source(name) for name in names or self.stack.components}

    def reader(self, component: Component) -> Source:
        """Return what reads a stored component: its source, or another of that kind.

        So a backup can be verified after its component was renamed in the configuration.
        """
        alike = [name for name in self.stack.components if self._kind(name) == component.source]
        if not alike:
            what = f"component of kind {component.source}"
            known = ", ".join(self.stack.components)
            raise UnknownName(what=what, name=component.name, known=known)
        return self.source(component.name if component.name in alike else alike[0])

    def _kind(self, name: str) -> str:
        """Return a component's kind; empty where a secret of its options is missing just now."""
        try:
            return self.stack.components[name].source
        except SecretMissing:
            return ""

    def vault(self, name: str) -> Vault:
        """Return a vault. Raises `UnknownName`."""
        if name not in self._vaults:
            spec = _known(self.stack.vaults, name, "vault")
            self._vaults[name] = open_vault(spec)
        return self._vaults[name]

    def vaults(self, names: Iterable[str] | None = None) -> list[Vault]:
        """Return these vaults, or all, in the configuration's order."""
        return [self.vault(name) for name in names or self.stack.vaults]

    def plan(self, name: str | None) -> Plan:
        """Return a plan; without a name, one that backs up everything everywhere."""
        if name is None:
            return Plan("")
        return _known(self.stack.plans, name, "plan")

    @property
    def commands(self) -> Commands:
        """The stack's services."""
        return Commands(self.stack.services, self.stack.file.parent)

    # --- backups ---

    def find(
        self, wanted: str, vaults: Iterable[str] | None = None, *, at: datetime | None = None
    ) -> Listed:
        """Return the backup that `wanted` names; see `verbs.select.find`."""
        return find(self.vaults(vaults), self.stack.name, wanted, at=at)

    def find_all(self, wanted: str, vaults: Iterable[str] | None = None) -> list[Listed]:
        """Return the backup that `wanted` names from every vault that has it."""
        found = []
        first = self.find(wanted, vaults)
        for vault in self.vaults(vaults):
            try:
                found.append(find([vault], self.stack.name, first.manifest.id))
            except BackupNotFound:
                continue
        return found

    def listings(self, vaults: Iterable[str] | None = None) -> list[Listing]:
        """Return what each vault holds of this stack."""
        return [list_backups(vault, self.stack.name) for vault in self.vaults(vaults)]

    # --- state ---

    @property
    def state(self) -> Path:
        """The folder of the catalog, the journals and the leases."""
        return self.stack.state

    @property
    def attic(self) -> Path:
        """Where restores keep what they replaced."""
        return self.state / "replaced"

    @property
    def staging(self) -> Path:
        """Where restores keep what a store cannot hold beside its live content."""
        return self.state / "staging"

    def scratch(self) -> Path:
        """Return a private folder for scratch copies, made if need be."""
        return private_folder(private_folder(self.state) / "scratch")

    def surroundings(self, observe: Observer) -> Surroundings:
        """Return what a verb is given that is not a run of its own."""
        return Surroundings(self.clock, observe, self.scratch())

    def leases(self) -> Leases:
        """Return the leases of this state folder."""
        return Leases(self.state, self.clock)

    def unfinished(self) -> list[Unfinished]:
        """Return the restores that died and wait for `recover`."""
        return open_journals(self.state)


def _known(table: Mapping[str, Value], name: str, what: str) -> Value:
    try:
        return table[name]
    except KeyError:
        known = ", ".join(table) or "none"
        raise UnknownName(what=what, name=name, known=known) from None


def open_session(config: Path | None) -> Session:
    """Load a configuration file; without one, the first that is found where they are looked for."""
    return Session(load(find_config(config).path, kinds()))
