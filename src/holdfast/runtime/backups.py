"""Backup as an operation: preflight, hooks, the copy, verification, pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..errors import HoldfastError, VaultEmptied
from ..model.manifest import Manifest
from ..model.marks import Level, Proof
from ..model.retention import Keep
from ..ports import Observer, Vault
from ..verbs.backup import BackupRequest, BackupResult, back_up, preflight
from ..verbs.prune import plan_pruning, prune
from ..verbs.select import find, list_backups
from ..verbs.surroundings import Surroundings
from ..verbs.verify import verify
from .runs import Current, afterwards, hook, on_error, run
from .session import Session


@dataclass(frozen=True, slots=True)
class BackupOrder:
    """What was asked for; what is left open is the plan's, or all."""

    plan: str | None = None
    components: Sequence[str] = ()
    vaults: Sequence[str] = ()
    description: str = ""
    evidence: bool = False
    verify: str = ""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What came of it."""

    run: str
    result: BackupResult
    seconds: float
    proofs: dict[str, Proof] = field(default_factory=dict)  # vault → what verification showed
    pruned: dict[str, list[str]] = field(default_factory=dict)  # vault → ids

    @property
    def manifest(self) -> Manifest:
        """The backup, as the first vault that took it has it."""
        return next(iter(self.result.sealed.values()))

    @property
    def unproven(self) -> list[str]:
        """What verification found wrong, one line each."""
        return [
            f"{vault}: {problem}"
            for vault, proof in self.proofs.items()
            for problem in proof.problems
        ]


def backup_request(session: Session, order: BackupOrder) -> BackupRequest:
    """Return what an order means; raises `UnknownName` for what is not configured."""
    plan = session.plan(order.plan)
    return BackupRequest(
        stack=session.stack.name,
        sources=list(session.sources(order.components or plan.components).values()),
        vaults=session.vaults(order.vaults or plan.vaults),
        plan=plan.name,
        archive=plan.archive,
        description=order.description,
        evidence=order.evidence,
    )


def backup(session: Session, order: BackupOrder, observe: Observer) -> BackupReport:
    """Back up, and then verify and prune as the plan says.

    What the hooks ``before_backup`` say no to is not done; the others cannot undo a sealed backup.
    """
    plan = session.plan(order.plan)
    request = backup_request(session, order)
    with run(session, "backup", observe, plan=plan.name) as current, on_error(session):
        before = session.clock.monotonic()
        sweep(request.vaults, current.around)
        preflight(request.sources, request.vaults, current.around)
        hook(session, "before_backup", {})
        emptied = emptied_vaults(session, request.vaults, current)
        result = back_up(replace(request, refused=emptied), current.around)
        seconds = session.clock.monotonic() - before
        _record(current, result, seconds)
        with afterwards(f"{current.backup} is sealed and kept"):
            _remember(current, result)
            if result.cancelled:
                raise KeyboardInterrupt
            level = order.verify or plan.verify
            proofs = _verify(session, request.vaults, result, level, current.around)
            pruned = {}
            if plan.keep and result.complete and all(proof.passed for proof in proofs.values()):
                pruned = _prune(session, request.vaults, plan.keep, plan.timezone, current.around)
            hook(session, "after_backup", {"HOLDFAST_BACKUP": current.backup})
        return BackupReport(current.id, result, seconds, proofs, pruned)


def sweep(vaults: Sequence[Vault], around: Surroundings) -> None:
    """Remove what runs that died left behind."""
    for vault in vaults:
        try:
            for line in vault.sweep():
                around.warn(line, vault.name)
        except HoldfastError as error:
            around.warn(str(error), vault.name)  # the backup itself will say if the vault is gone


def emptied_vaults(
    session: Session, vaults: Sequence[Vault], current: Current
) -> dict[str, HoldfastError]:
    """Find vaults that hold nothing any more, though backups of this stack were made there.

    A disk that is not mounted leaves an empty folder behind: a backup into that would fill the disk
    below, and vanish when the right one is mounted again.
    """
    emptied: dict[str, HoldfastError] = {}
    if current.catalog is None:
        return emptied
    for vault in vaults:
        try:
            known = current.catalog.count_backups(vault.name, session.stack.name)
            if known and not list_backups(vault, session.stack.name).found_any:
                emptied[vault.name] = VaultEmptied(vault=vault.name, count=known)
        except HoldfastError as error:
            current.around.warn(str(error), vault.name)
    return emptied


def _remember(current: Current, result: BackupResult) -> None:
    """Note where backups were made; the note is a cache, and its loss no failure."""
    try:
        for vault, manifest in result.sealed.items():
            if current.catalog is not None:
                current.catalog.note(vault, manifest)
    except HoldfastError as error:
        current.around.warn(str(error))


def _record(current: Current, result: BackupResult, seconds: float) -> None:
    manifest = next(iter(result.sealed.values()))
    current.backup = manifest.id
    current.vault = ", ".join(result.sealed)
    current.partial = not result.complete
    current.figures = {
        "bytes": manifest.size,
        "seconds": round(seconds, 3),
        "skew_seconds": manifest.skew_seconds,
        "failed": [*sorted(result.failures)],
        "lost_vaults": [*sorted(result.lost_vaults)],
    }


def _verify(
    session: Session,
    vaults: Sequence[Vault],
    result: BackupResult,
    level: str,
    around: Surroundings,
) -> dict[str, Proof]:
    if not level:
        return {}
    proofs = {}
    for vault in vaults:
        if vault.name in result.sealed:
            listed = find([vault], session.stack.name, result.sealed[vault.name].id)
            proofs[vault.name] = verify(listed, Level(level), session.reader, around)
    return proofs


def _prune(
    session: Session, vaults: Sequence[Vault], keep: Keep, timezone: str, around: Surroundings
) -> dict[str, list[str]]:
    gone = {}
    for vault in vaults:
        pruning = plan_pruning(list_backups(vault, session.stack.name), keep, timezone)
        gone[vault.name] = prune(pruning, around)
    return gone
