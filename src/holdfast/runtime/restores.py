"""Restore and recover as operations: what would change, the transaction, the way back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ..errors import CancelledLate, TargetInUse, UsageInvalid
from ..model.names import LATEST
from ..model.recovery import RestoreState
from ..model.stack import Services
from ..ports import Observer, Source
from ..verbs.recover import recover
from ..verbs.restore import (
    Change,
    RestoreRequest,
    RestoreResult,
    Transaction,
    choose_targets,
    restore,
    weigh,
)
from ..verbs.select import Listed
from ..verbs.signals import uninterrupted
from ..verbs.surroundings import Surroundings
from . import journal
from .commands import Commands
from .files import private_folder
from .runs import Current, afterwards, hook, on_error, refuse_unfinished, run
from .session import Session

BELOW = "at:"  # begins a place that is a folder, not the URL of a store


@dataclass(frozen=True, slots=True)
class RestoreOrder:
    """What was asked for.

    ``target`` is a folder to restore into, instead of over the live stores; ``elsewhere`` names
    other places for single components. A component that neither gives a place to is not restored.
    """

    backup: str = LATEST
    components: Sequence[str] = ()
    vaults: Sequence[str] = ()
    at: datetime | None = None
    target: Path | None = None
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    keep_replaced: bool = True

    @property
    def over_live(self) -> bool:
        """Whether the live stores are what is restored."""
        return self.target is None and not self.elsewhere

    def places(self, components: Sequence[str]) -> dict[str, str]:
        """Return where each of these components goes, as `_placed` reads it."""
        folder = self.target and self.target.absolute()
        below = {name: f"{BELOW}{folder / name}" for name in components} if folder else {}
        return below | {name: url for name, url in self.elsewhere.items() if name in components}


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What an order means, and what it would change. Nothing was changed yet."""

    order: RestoreOrder
    listed: Listed
    targets: Sequence[Source]
    changes: Sequence[Change]

    @property
    def replaces(self) -> bool:
        """Whether anything that is there now would go."""
        return any(change.replaces for change in self.changes)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What came of it."""

    run: str
    backup: str
    result: RestoreResult
    seconds: float
    changes: Sequence[Change] = field(default_factory=list)


def plan_restore(session: Session, order: RestoreOrder) -> RestorePlan:
    """Find the backup and weigh what would change.

    Raises:
        RecoveryNeeded: an earlier restore must be put right first.
        BackupNotFound: there is no such backup.
        UnknownName: a component is not configured, or not in the backup.

    """
    refuse_unfinished(session, recovering=False)
    listed = session.find(order.backup, order.vaults or None, at=order.at)
    sources = session.sources()
    wanted = order.components or (() if order.target else tuple(order.elsewhere))
    targets = choose_targets(listed.manifest, sources, wanted)
    places = order.places([source.name for source in targets])
    if not order.over_live:
        _refuse_unplaced(targets, places, order)
        targets = [_placed(source, places[source.name]) for source in targets]
        _refuse_shared(targets, sources)
    return RestorePlan(order, listed, targets, weigh(listed.manifest, targets))


def _refuse_unplaced(
    targets: Sequence[Source], places: Mapping[str, str], order: RestoreOrder
) -> None:
    """Never take a component without a place of its own for one to restore over its live store."""
    names = [source.name for source in targets]
    if homeless := [name for name in names if name not in places]:
        problem = f"no --target for {', '.join(homeless)}"
        raise UsageInvalid(problem=problem)
    if idle := [name for name in order.elsewhere if name not in names]:
        problem = f"--target names {', '.join(idle)}, which is not to be restored"
        raise UsageInvalid(problem=problem)


def _refuse_shared(targets: Sequence[Source], live: Mapping[str, Source]) -> None:
    """Refuse a place that is another target's, or a live store's: only the services guard those."""
    taken = {_spot(source): f"the live {name}" for name, source in live.items()}
    for target in targets:
        place = _spot(target)
        if place in taken:
            problem = f"--target for {target.name} is {taken[place]}: {target.where}"
            raise UsageInvalid(problem=problem)
        taken[place] = f"also that for {target.name}"


def _spot(source: Source) -> str:
    """Return where a source is so that two ways to one path are the same."""
    return source.where if "://" in source.where else os.path.realpath(source.where)


def _placed(source: Source, place: str) -> Source:
    """Return a source at a place: in its folder below ``--target DIR``, or at a URL."""
    if place.startswith(BELOW):
        return source.at(Path(place.removeprefix(BELOW)))
    return source.elsewhere(place)


def refuse_occupied(session: Session, plan: RestorePlan) -> None:
    """Raise `TargetInUse` early, where no services are named that would be stopped first."""
    if session.stack.services.stop and plan.order.over_live:
        return
    for change in plan.changes:
        if change.occupants:
            users = ", ".join(change.occupants)
            raise TargetInUse(component=change.component, path=change.target, users=users)


def execute_restore(session: Session, plan: RestorePlan, observe: Observer) -> RestoreReport:
    """Restore what was planned, as one transaction; see `verbs.restore.restore`."""
    manifest = plan.listed.manifest
    refuse_occupied(session, plan)
    with (
        run(session, "restore", observe) as current,
        on_error(session),
        _staging(session, current.around),
    ):
        before = session.clock.monotonic()
        current.backup, current.vault = manifest.id, plan.listed.vault.name
        hook(session, "before_restore", {"HOLDFAST_BACKUP": manifest.id})
        request = _request(session, plan, current.id)
        with _begun(session, plan, current) as log, _too_late_once_decided(log, manifest.id):
            services = _services(session, elsewhere=not plan.order.over_live)
            transaction = Transaction(current.id, log, services, current.lease.check)
            result = restore(request, transaction, current.around)
            seconds = session.clock.monotonic() - before
            current.figures |= {
                "seconds": round(seconds, 3),
                "violations": len(result.violations),
            }
            with afterwards(f"{manifest.id} is restored and in force"):
                _clear_attic(session, current.id, current.around)
                hook(session, "after_restore", {"HOLDFAST_BACKUP": manifest.id})
    return RestoreReport(current.id, manifest.id, result, seconds, plan.changes)


def _begun(
    session: Session, plan: RestorePlan, current: Current
) -> AbstractContextManager[journal.Journal]:
    names = [source.name for source in plan.targets]
    places = plan.order.places(names)
    current.figures = {"components": list(names), "targets": dict(places)}
    return journal.begin(
        session.state, current.id, session.stack.name, current.backup, current.vault, names, places
    )


@contextmanager
def _too_late_once_decided(log: journal.Journal, backup: str) -> Iterator[None]:
    """Never call a restore cancelled that is in force."""
    try:
        yield
    except KeyboardInterrupt as error:
        if log.state.decided:
            raise CancelledLate(what=f"{backup} is restored and in force") from error
        raise


def _services(session: Session, *, elsewhere: bool) -> Commands:
    """Return what stops the application; nothing for a restore that does not touch its data."""
    return Commands(Services(), session.stack.file.parent) if elsewhere else session.commands


def _request(session: Session, plan: RestorePlan, run_id: str) -> RestoreRequest:
    over_live = plan.order.over_live
    keep = over_live and plan.order.keep_replaced
    restored = {source.name for source in plan.targets}
    others = [name for name in session.stack.components if name not in restored]
    return RestoreRequest(
        vault=plan.listed.vault,
        manifest=plan.listed.manifest,
        targets=plan.targets,
        workspace=session.staging / run_id,
        checks=session.stack.checks,
        beside=session.sources(others) if over_live and others else {},
        attic=session.attic / run_id if keep else None,
    )


@contextmanager
def _staging(session: Session, around: Surroundings) -> Iterator[None]:
    """Remove in the end what restores kept here for their way, but those that wait for `recover`.

    A restore that could not be put back needs it still, and its journal is not ended. What has
    come of the run is settled by then: an interrupt must not make it look cancelled.
    """
    private_folder(private_folder(session.state) / session.staging.name)
    try:
        yield
    finally:
        with uninterrupted() as late:
            waiting = {unfinished.run for unfinished in session.unfinished()}
            for folder in session.staging.iterdir():
                if folder.name not in waiting:
                    _remove_all(folder, around)
            if late:
                around.warn("too late to cancel: only what was left over was being removed")
                late.clear()


def _clear_attic(session: Session, newest: str, around: Surroundings) -> None:
    """Let go what earlier restores replaced: one way back is kept, the newest."""
    if not (session.attic / newest).is_dir():
        return
    for old in sorted(session.attic.iterdir()):
        if old.name == newest:
            continue
        try:
            # Renamed first: what is half-removed must not look like a way back.
            going = old if old.name.startswith(".") else old.rename(old.with_name(f".{old.name}"))
        except OSError as error:
            around.warn(f"{old} could not be removed: {error.strerror}")
            continue
        _remove_all(going, around)


def _remove_all(folder: Path, around: Surroundings) -> None:
    """Remove a folder of ours; say so where that cannot be done, and go on."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        around.warn(f"{folder} could not be removed: {error.strerror}")


def recover_all(session: Session, observe: Observer) -> dict[str, str]:
    """Put right every restore that died; returns the outcome of each by its run.

    Raises:
        JournalDamaged: a journal cannot be trusted; a person must look at it.
        RollbackIncomplete: a component could not be put right.

    """
    if not session.unfinished():
        return {}
    outcomes = {}
    with (
        run(session, "recover", observe, recovering=True) as current,
        _staging(session, current.around),
    ):
        # Asked once more: another process may have put some right while we waited for our turn.
        for one in session.unfinished():
            if one.problem is not None:
                raise one.problem
            with journal.reopen(session.state, one.run) as log:
                outcomes[one.run] = _recover(session, log, current.lease.check, current.around)
        current.figures = {"outcomes": dict(outcomes)}
    return outcomes


def _recover(
    session: Session, log: journal.Journal, fence: Callable[[], None], around: Surroundings
) -> str:
    state = log.state
    attic = None if state.targets else session.attic / state.run
    services = _services(session, elsewhere=bool(state.targets))
    transaction = Transaction(state.run, log, services, fence)
    return recover(state, lambda name: _target(session, state, name), attic, transaction, around)


def _target(session: Session, state: RestoreState, name: str) -> Source:
    source = session.source(name)
    return _placed(source, state.targets[name]) if name in state.targets else source
