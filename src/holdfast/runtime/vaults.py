"""Vaults as such: making them, their keys, their locks, and their upkeep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from ..errors import BackupNotFound, HoldfastError, UsageInvalid
from ..model.keys import KeyInfo
from ..model.marks import Level, Marks, Proof
from ..model.upkeep import (
    EVERYTHING,
    Checked,
    IndexRepaired,
    PacksRepaired,
    Pruned,
    SnapshotsRepaired,
    share_at,
)
from ..ports import Guarded, Maintained, Observer, Vault
from .runs import Current, run
from .session import Session

MOST_MARKED = 20  # losses that the marks of a backup name


@dataclass(frozen=True, slots=True)
class State:
    """A vault of the configuration, and how it is."""

    name: str
    kind: str
    where: str
    backups: int = 0
    free: int | None = None
    problem: str = ""


def states(session: Session) -> list[State]:
    """Look at every vault; one that cannot be reached is told with the reason."""
    return [_state(session, name) for name in session.stack.vaults]


def _state(session: Session, name: str) -> State:
    spec = session.stack.vaults[name]
    where = str(spec.options.url)
    try:
        vault = session.vault(name)
        count = sum(1 for _found in vault.manifests())
        return State(name, spec.kind, where, count, vault.free())
    except HoldfastError as error:
        return State(name, spec.kind, where, problem=str(error))


def init_vault(session: Session, name: str, observe: Observer) -> None:
    """Make a vault. Raises `RepositoryExists` where it is there already."""
    vault = guarded(session, name)
    with run(session, "vault init", observe) as current:
        current.vault = name
        vault.init()


def keys_of(session: Session, name: str) -> Sequence[KeyInfo]:
    """Return the keys of a vault."""
    return guarded(session, name).key_infos()


def add_key(session: Session, name: str, password: str, observe: Observer) -> str:
    """Let another password open a vault; returns the name of its key."""
    vault = guarded(session, name)
    with run(session, "vault key add", observe) as current:
        current.vault = name
        return vault.add_key(password)


def remove_key(session: Session, name: str, key: str, observe: Observer) -> None:
    """Take a password away: the one whose key's name begins so."""
    vault = guarded(session, name)
    with run(session, "vault key remove", observe) as current:
        current.vault = name
        vault.remove_key(_whole(vault, key))


def change_password(session: Session, name: str, password: str, observe: Observer) -> str:
    """Put another password in the place of the configuration's; returns the name of its key."""
    vault = guarded(session, name)
    with run(session, "vault key change", observe) as current:
        current.vault = name
        return vault.change_password(password)


def unlock(session: Session, name: str, observe: Observer, *, everything: bool) -> Sequence[str]:
    """Remove locks that nobody holds any more, or all; returns what each said."""
    vault = guarded(session, name)
    with run(session, "vault unlock", observe) as current:
        current.vault = name
        return vault.unlock(everything=everything)


def prune_vault(
    session: Session, name: str, observe: Observer, *, tolerated: float, dry_run: bool
) -> Pruned:
    """Remove from a vault what no backup needs; with ``dry_run`` only say what that would be."""
    vault = _maintained(session, name)
    if dry_run:
        return vault.prune(tolerated=tolerated, dry_run=True, observer=observe)
    with run(session, "vault prune", observe) as current:
        current.vault = name
        return vault.prune(tolerated=tolerated, observer=current.around.observe)


def check_vault(
    session: Session, name: str, observe: Observer, *, days: int | None, data: bool
) -> Checked:
    """Look whether a vault is whole: all its data, or with ``days`` what is due today of it."""
    vault = _maintained(session, name)
    share = EVERYTHING if days is None else share_at(session.clock.now().timestamp(), days)
    with run(session, "vault check", observe) as current:
        current.vault = name
        return vault.check(share=share if data else None, observer=current.around.observe)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What repairing a vault found and did, in its order."""

    index: IndexRepaired
    packs: PacksRepaired
    snapshots: SnapshotsRepaired


def repair_vault(
    session: Session, name: str, observe: Observer, *, write: bool, forget: bool
) -> Repaired:
    """Repair a vault after damage: what is sound is kept, and what backups lost is told.

    Those that lost anything are marked so, as by a verification: they are no good ones any more,
    for whose sake an older one that is whole might go.
    """
    vault = _maintained(session, name)
    with run(session, "vault repair", observe) as current:
        current.vault = name
        heard = current.around.observe
        repaired = Repaired(
            vault.repair_index(observer=heard),
            vault.repair_packs(observer=heard),
            vault.repair_snapshots(write=write, forget=forget, observer=heard),
        )
        _mark_losses(vault, repaired.snapshots, session.clock.now(), current)
        return repaired


def _mark_losses(vault: Vault, found: SnapshotsRepaired, now: datetime, current: Current) -> None:
    lost: dict[str, list[str]] = {}
    for loss in found.losses:
        lost.setdefault(loss.backup, []).append(f"{loss.path}: {loss.reason}")
    lost.pop("", None)  # of snapshots that are no backups
    for backup, problems in lost.items():
        told = tuple(problems[:MOST_MARKED])
        proof = Proof(Level.CHECKSUMS, now, passed=False, problems=told)
        try:
            vault.mark(backup, partial(Marks.with_proof, proof=proof))
        except BackupNotFound:
            _forget(vault.name, backup, current)


def _forget(vault: str, backup: str, current: Current) -> None:
    """Miss a backup no more that was forgotten on request, or the next one would be refused."""
    try:
        if current.catalog is not None:
            current.catalog.forget(vault, backup)
    except HoldfastError as error:
        current.around.warn(str(error))


def _maintained(session: Session, name: str) -> Maintained:
    vault: Vault = session.vault(name)
    if isinstance(vault, Maintained):
        return vault
    problem = f"vault {name} is of kind {vault.kind}, whose backups are verified and deleted alone"
    raise UsageInvalid(problem=problem)


def guarded(session: Session, name: str) -> Guarded:
    """Return a vault that has keys and locks. Raises `UsageInvalid` for one of another kind."""
    vault: Vault = session.vault(name)
    if isinstance(vault, Guarded):
        return vault
    problem = f"vault {name} is of kind {vault.kind}, which needs no making and has no keys"
    raise UsageInvalid(problem=problem)


def _whole(vault: Guarded, key: str) -> str:
    found = [one.name for one in vault.key_infos() if one.name.startswith(key)]
    if len(found) > 1:
        raise UsageInvalid(problem=f"several keys begin with {key}: {', '.join(found)}")
    return found[0] if found else key
