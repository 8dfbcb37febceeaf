"""Reports that change nothing: how the stack stands, and whether everything can be reached."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ..errors import HoldfastError
from ..model.facts import Probe
from ..model.manifest import Manifest
from ..model.runs import Run
from ..verbs.select import Listed, Listing
from .catalog import Catalog
from .leases import Holding
from .session import Session

RECENT = 5  # runs shown
PROBED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class PlanStatus:
    """Whether a plan keeps its promise: its newest good backup is not older than its RPO."""

    plan: str
    newest: Manifest | None
    age: timedelta | None
    rpo: timedelta | None

    @property
    def late(self) -> bool:
        """Whether the promise is broken: too old, or no good backup at all."""
        if self.rpo is None:
            return False
        return self.age is None or self.age > self.rpo


@dataclass(frozen=True, slots=True)
class VaultStatus:
    """What a vault holds of this stack."""

    vault: str
    backups: int
    good: int
    bytes: int
    newest: Listed | None
    newest_verified: Listed | None
    damaged: Sequence[str]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """How the stack stands."""

    stack: str
    vaults: Sequence[VaultStatus]
    plans: Sequence[PlanStatus]
    running: Holding | None
    unfinished: Sequence[str]
    recent: Sequence[Run]
    replaced: Sequence[str]
    problem: str = ""  # why the history cannot be shown

    @property
    def well(self) -> bool:
        """Whether nothing needs a person: promises kept, nothing interrupted, vaults readable."""
        troubled = any(vault.problem or vault.damaged for vault in self.vaults)
        return not (troubled or self.unfinished or any(plan.late for plan in self.plans))


def status(session: Session) -> Status:
    """Look at the vaults, the promises, the running and the recent."""
    listings, vaults = [], []
    for name in session.stack.vaults:
        try:
            listing = session.listings([name])[0]
        except HoldfastError as error:
            vaults.append(VaultStatus(name, 0, 0, 0, None, None, (), str(error)))
            continue
        listings.append(listing)
        vaults.append(_vault_status(listing))
    recent, problem = _recent(session)
    return Status(
        stack=session.stack.name,
        vaults=vaults,
        plans=_plans(session, listings),
        running=session.leases().holder(session.stack.name),
        unfinished=[one.run for one in session.unfinished()],
        recent=recent,
        replaced=_replaced(session.attic),
        problem=problem,
    )


def _replaced(attic: Path) -> list[str]:
    """Return where what restores replaced is kept, but for what is being removed."""
    if not attic.is_dir():
        return []
    return sorted(str(place) for place in attic.iterdir() if not place.name.startswith("."))


def _vault_status(listing: Listing) -> VaultStatus:
    good = [listed for listed in listing.backups if listed.good]
    verified = [listed for listed in good if listed.marks.verified]
    return VaultStatus(
        vault=listing.vault.name,
        backups=len(listing.backups),
        good=len(good),
        bytes=sum(listed.manifest.size for listed in listing.backups),
        newest=good[-1] if good else None,
        newest_verified=verified[-1] if verified else None,
        damaged=[damaged.id for damaged in listing.damaged],
    )


def _plans(session: Session, listings: Sequence[Listing]) -> list[PlanStatus]:
    now = session.clock.now()
    by_vault = {listing.vault.name: listing for listing in listings}
    found = []
    for plan in session.stack.plans.values():
        names = plan.vaults or tuple(session.stack.vaults)
        newest = [m for name in names if (m := _newest_of(by_vault.get(name), plan.name))]
        # A promise is kept only if it is in every vault of the plan.
        oldest = min(newest, key=lambda m: m.created_at) if len(newest) == len(names) else None
        age = None if oldest is None else _age(now, oldest.created_at)
        found.append(PlanStatus(plan.name, oldest, age, plan.rpo))
    return found


def _newest_of(listing: Listing | None, plan: str) -> Manifest | None:
    """Return the newest good backup that serves a plan: its own, or one of everything."""
    for listed in reversed(listing.backups if listing else ()):
        if listed.good and listed.manifest.plan in {plan, ""}:
            return listed.manifest
    return None


def _age(now: datetime, then: datetime) -> timedelta:
    return max(now - then, timedelta(0))


def _recent(session: Session) -> tuple[list[Run], str]:
    if not session.state.exists():
        return [], ""
    try:
        with Catalog(session.state, session.clock) as catalog:
            return catalog.runs(stack=session.stack.name, limit=RECENT), ""
    except HoldfastError as error:
        return [], str(error)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether each part can be reached now; a problem is one line."""

    components: dict[str, Probe]
    vaults: dict[str, str]  # vault → problem, or empty
    problems: Sequence[str]

    @property
    def well(self) -> bool:
        """Whether a backup could run now."""
        return not self.problems


def health(session: Session) -> Health:
    """Probe every component, vault and the state folder, without changing any."""
    names = list(session.stack.components)
    with ThreadPoolExecutor(PROBED_AT_ONCE) as pool:  # servers that do not answer take their time
        probes = pool.map(lambda name: _probe(session, name), names)
        components = dict(zip(names, probes, strict=True))
    problems = [
        f"{name}: {'; '.join(probe.problems) or 'not reachable'}"
        for name, probe in components.items()
        if not probe.reachable
    ]
    vaults = {name: _vault_problem(session, name) for name in session.stack.vaults}
    problems += [problem for problem in vaults.values() if problem]
    problems += [f"interrupted restore {one.run}" for one in session.unfinished()]
    if catalog_problem := _recent(session)[1]:
        problems.append(catalog_problem)
    return Health(components, vaults, problems)


def _probe(session: Session, name: str) -> Probe:
    """Look at one component; of one whose secret or driver is missing, that is the problem."""
    try:
        return session.source(name).probe()
    except HoldfastError as error:
        return Probe(reachable=False, problems=(f"{error}; {error.hint}",))


def _vault_problem(session: Session, name: str) -> str:
    try:
        vault = session.vault(name)
        damaged = session.listings([name])[0].damaged
        vault.free()
    except HoldfastError as error:
        return str(error)
    if damaged:
        return f"vault {name}: damaged: {', '.join(one.id for one in damaged)}"
    return ""
