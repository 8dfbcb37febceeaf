"""Keeping backups: verify, prune, pin, and the checks on live data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import HoldfastError, UsageInvalid
from ..model.marks import Level, Marks, Proof
from ..model.retention import Keep
from ..ports import Damaged, Maintained, Observer, Vault
from ..verbs.check import Violation, check_integrity, run_checks
from ..verbs.prune import Pruning, plan_pruning, prune
from ..verbs.select import Listed, list_backups
from ..verbs.surroundings import Surroundings
from ..verbs.verify import verify
from .backups import sweep
from .runs import run
from .session import Session


@dataclass(frozen=True, slots=True)
class Verified:
    """A backup in a vault, and what reading it showed."""

    backup: str
    vault: str
    proof: Proof


def verify_backups(
    session: Session, wanted: str, vaults: Sequence[str], level: Level, observe: Observer
) -> list[Verified]:
    """Verify a backup in every vault that has it, or with ``all`` every backup of the stack.

    One whose manifest cannot be trusted could be of any stack: it fails ``all``.
    """
    damaged: list[Verified] = []
    if wanted == "all":
        listings = session.listings(vaults or None)
        chosen = [one for listing in listings for one in listing.backups]
        damaged = [_damaged(session, li.vault, d, level) for li in listings for d in li.damaged]
    else:
        chosen = session.find_all(wanted, vaults or None)
    with run(session, "verify", observe) as current:
        current.backup = wanted
        done = damaged + [
            Verified(
                listed.manifest.id,
                listed.vault.name,
                verify(listed, level, session.reader, current.around),
            )
            for listed in chosen
        ]
        current.figures = {"failed": [one.backup for one in done if not one.proof.passed]}
    return done


def _damaged(session: Session, vault: Vault, found: Damaged, level: Level) -> Verified:
    proof = Proof(level, session.clock.now(), passed=False, problems=(found.reason,))
    return Verified(found.id, vault.name, proof)


def plan_prune(session: Session, plan_name: str | None, vaults: Sequence[str]) -> list[Pruning]:
    """Decide what a plan's policy keeps in each of its vaults; deletes nothing.

    Raises:
        UsageInvalid: no plan says what to keep, or several do and none was named.

    """
    name, keep, timezone = _policy(session, plan_name)
    names = vaults or session.plan(name).vaults
    return [plan_pruning(listing, keep, timezone) for listing in session.listings(names)]


def _policy(session: Session, plan_name: str | None) -> tuple[str, Keep, str]:
    if plan_name is not None:
        plan = session.plan(plan_name)
        if plan.keep is None:
            raise UsageInvalid(problem=f"plan {plan_name} does not say what to keep")
        return plan.name, plan.keep, plan.timezone
    keeping = [plan for plan in session.stack.plans.values() if plan.keep is not None]
    if len(keeping) != 1 or keeping[0].keep is None:
        known = ", ".join(plan.name for plan in keeping) or "none"
        raise UsageInvalid(
            problem=f"name the plan whose `keep` decides; plans that have it: {known}"
        )
    return keeping[0].name, keeping[0].keep, keeping[0].timezone


def execute_prune(
    session: Session, prunings: Sequence[Pruning], observe: Observer
) -> dict[str, list[str]]:
    """Delete what was decided, as far as it is still to go; returns the ids by vault.

    What a person agreed to was decided before this run had the stack to itself: since then a newer
    backup may have failed its verification, and an older one be the last that is good.
    """
    gone = {}
    with run(session, "prune", observe) as current:
        sweep([pruning.listing.vault for pruning in prunings], current.around)
        for pruning in prunings:
            vault = pruning.listing.vault
            again = plan_pruning(
                list_backups(vault, session.stack.name), pruning.keep, pruning.timezone
            )
            gone[vault.name] = prune(again.only(pruning), current.around)
        current.figures = {"deleted": {vault: list(ids) for vault, ids in gone.items()}}
    return gone


def not_freed(prunings: Sequence[Pruning], gone: dict[str, list[str]]) -> list[str]:
    """Return the vaults that were deleted from, and have room only after a prune of their own."""
    vaults = [pruning.listing.vault for pruning in prunings]
    return [one.name for one in vaults if gone.get(one.name) and isinstance(one, Maintained)]


def pin(
    session: Session, wanted: str, vaults: Sequence[str], reason: str | None, observe: Observer
) -> list[Listed]:
    """Pin a backup for a reason in every vault that has it; without a reason, unpin it."""
    with run(session, "unpin" if reason is None else "pin", observe) as current:
        found = session.find_all(wanted, vaults or None)
        current.backup = found[0].manifest.id

        def change(marks: Marks) -> Marks:
            return replace(marks, pinned=reason)

        return [
            replace(listed, marks=listed.vault.mark(listed.manifest.id, change)) for listed in found
        ]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the checks on live data found, one line each; nothing: all is well."""

    integrity: dict[str, list[str]]
    violations: list[Violation]
    checks: int

    @property
    def problems(self) -> list[str]:
        """Everything that does not hold."""
        found = [line for lines in self.integrity.values() for line in lines]
        return [*found, *(str(violation) for violation in self.violations)]


def check_live(session: Session, components: Sequence[str], around: Surroundings) -> CheckReport:
    """Check the live stores' integrity, and the configuration's assertions on their data."""
    sources = session.sources(components or None)
    integrity = {}
    for name, source in sources.items():
        try:
            integrity[name] = check_integrity(source, around)
        except HoldfastError as error:
            integrity[name] = [str(error)]
    checks = session.stack.checks
    return CheckReport(integrity, run_checks(checks, sources), len(checks))
