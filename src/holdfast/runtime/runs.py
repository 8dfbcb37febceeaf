"""What surrounds every run: recovery first, the lease, the catalog's record, the audit entry."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import (
    AfterwardsFailed,
    Cancelled,
    CancelledLate,
    HoldfastError,
    RecoveryNeeded,
    RestoreRolledBack,
)
from ..model.events import Event, Warned
from ..model.facts import Json
from ..model.runs import Run, RunState
from ..ports import Observer
from ..verbs.signals import uninterrupted
from ..verbs.surroundings import Surroundings
from .audit import AuditTrail
from .catalog import Catalog, NoCatalog, finished
from .commands import run_command
from .leases import Lease
from .recorder import Recorder
from .session import Session


@dataclass(slots=True)
class Current:
    """A run under way: what it learns is recorded when it ends."""

    id: str
    around: Surroundings
    lease: Lease
    catalog: Catalog | None  # None: it cannot be used just now
    backup: str = ""
    vault: str = ""
    partial: bool = False
    state: RunState = RunState.COMPLETED
    figures: dict[str, Json] = field(default_factory=dict)


@contextmanager
def run(
    session: Session, verb: str, observe: Observer, *, plan: str = "", recovering: bool = False
) -> Iterator[Current]:
    """Run a verb that changes something: alone on this stack, recorded, and audited at its end.

    Raises:
        RecoveryNeeded: an interrupted restore must be put right first, unless ``recovering``.
        StackLocked: another run is under way.

    """
    refuse_unfinished(session, recovering=recovering)
    over = False
    try:
        with _recorded(
            session, verb, plan, _undisturbed(observe), recovering=recovering
        ) as current:
            yield current
            over = True
    except KeyboardInterrupt as error:
        if over:
            raise CancelledLate(what=f"{verb} {current.backup} is done") from error
        raise


@contextmanager
def _recorded(
    session: Session, verb: str, plan: str, observe: Observer, *, recovering: bool
) -> Iterator[Current]:
    current: Current | None = None
    with ExitStack() as stack:
        runs = stack.enter_context(open_catalog(session, observe))
        pending, runs = _begin(session, runs, verb, plan, observe)
        try:
            lease = stack.enter_context(
                session.leases().acquire(session.stack.name, verb, pending.id)
            )
            # Once more: a restore may have died while we waited for our turn.
            refuse_unfinished(session, recovering=recovering)
            with _warned_of(observe):
                if lease.predecessor is not None:
                    runs.bury(lease.predecessor.run)
                runs.save(replace(pending, state=RunState.IN_PROGRESS))
            record = stack.enter_context(Recorder(runs, pending.id, session.clock))
            heard = _once(_both(record, observe))
            around = Surroundings(session.clock, heard, _empty_scratch(session))
            usable = runs if isinstance(runs, Catalog) else None
            current = Current(pending.id, around, lease, usable)
            yield current
        except BaseException as error:
            with uninterrupted() as late:
                _end(session, runs, _ended(session, pending, current, error), observe)
                stack.__exit__(type(error), error, error.__traceback__)
                late.clear()  # it ends already, and for a reason that says more
            raise
        with uninterrupted():
            done = finished(pending, session.clock.now(), current.state)
            _end(session, runs, _told(done, current), observe)
            stack.close()


def _begin(
    session: Session, runs: Catalog | NoCatalog, verb: str, plan: str, observe: Observer
) -> tuple[Run, Catalog | NoCatalog]:
    """Record that a run is wanted; a catalog that turns out to be damaged is done without."""
    try:
        return runs.begin(verb, session.stack.name, plan=plan), runs
    except HoldfastError as error:
        observe(Warned(f"{error}; {error.hint}"))
    without = NoCatalog(session.clock)
    return without.begin(verb, session.stack.name, plan=plan), without


@contextmanager
def _warned_of(observe: Observer) -> Iterator[None]:
    """Make a warning of what fails: the catalog is only a cache, and must not stop a run."""
    try:
        yield
    except HoldfastError as error:
        observe(Warned(f"{error}; {error.hint}"))


def refuse_unfinished(session: Session, *, recovering: bool) -> None:
    """Raise `RecoveryNeeded` while a restore that died has not been put right."""
    unfinished = session.unfinished()
    if unfinished and not recovering:
        raise RecoveryNeeded(run=unfinished[0].run)


@contextmanager
def open_catalog(session: Session, observe: Observer) -> Iterator[Catalog | NoCatalog]:
    """Open the catalog; where it cannot be, say so and go on without: it is only a cache."""
    try:
        catalog: Catalog | NoCatalog = Catalog(session.state, session.clock)
    except HoldfastError as error:
        observe(Warned(f"{error}; {error.hint}"))
        catalog = NoCatalog(session.clock)
    try:
        yield catalog
    finally:
        if isinstance(catalog, Catalog):
            catalog.close()


def _undisturbed(observe: Observer) -> Observer:
    """Return a listener that never raises: an output that nobody reads must not stop a run."""
    deaf = False

    def tell(event: Event) -> None:
        nonlocal deaf
        if deaf:
            return
        try:
            observe(event)
        except OSError:
            deaf = True  # whoever prints the result at the end will find out, and say so

    return tell


def _once(observe: Observer) -> Observer:
    """Return a listener that hears each warning once: a vault that is gone is met at every step."""
    told: set[Event] = set()

    def tell(event: Event) -> None:
        if isinstance(event, Warned):
            if event in told:
                return
            told.add(event)
        observe(event)

    return tell


def _both(first: Observer, second: Observer) -> Observer:
    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell


def _empty_scratch(session: Session) -> Path:
    """Return the folder for scratch copies, without what a run that died left in it."""
    shutil.rmtree(session.state / "scratch", ignore_errors=True)
    return session.scratch()


def _ended(session: Session, pending: Run, current: Current | None, error: BaseException) -> Run:
    known = error if isinstance(error, HoldfastError) else None
    done = _told(finished(pending, session.clock.now(), _state_of(error), known), current)
    if known or isinstance(error, KeyboardInterrupt):
        return done
    return replace(done, error_code="bug", error_text=type(error).__name__)


def _state_of(error: BaseException) -> RunState:
    """Return the state of a run that an error ended."""
    if isinstance(error, RestoreRolledBack):
        return RunState.ROLLED_BACK
    if isinstance(error, Cancelled | KeyboardInterrupt):
        return RunState.CANCELLED
    done = isinstance(error, CancelledLate | AfterwardsFailed)
    return RunState.COMPLETED if done else RunState.FAILED


def _told(done: Run, current: Current | None) -> Run:
    """Return the run with what it learnt."""
    if current is None:
        return done
    return replace(
        done,
        backup=current.backup,
        vault=current.vault,
        partial=current.partial,
        figures=current.figures,
    )


def _end(session: Session, runs: Catalog | NoCatalog, done: Run, observe: Observer) -> None:
    """Write down how it ended. A record that cannot be written does not undo what was done."""
    details: Mapping[str, Json] = {"run": done.id, **done.figures}
    if done.error_code:
        details = {**details, "error": done.error_code}
    try:
        runs.save(done)
        if isinstance(runs, Catalog):
            subject = done.backup or done.plan or session.stack.name
            trail = AuditTrail(runs.database, session.clock)
            trail.append(done.verb, subject, done.state.value, details)
    except HoldfastError as error:
        observe(Warned(str(error)))


@contextmanager
def on_error(session: Session) -> Iterator[None]:
    """Run the hook ``on_error`` when a run fails; the failure itself goes on as it is."""
    try:
        yield
    except HoldfastError as error:
        try:
            hook(session, "on_error", {"HOLDFAST_ERROR": error.code})
        except HoldfastError as another:
            error.add_note(str(another))
        raise


@contextmanager
def afterwards(done: str) -> Iterator[None]:
    """Never call cancelled or failed what is done, because of what was to follow it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise CancelledLate(what=done) from error
    except HoldfastError as error:
        raise AfterwardsFailed(what=done, reason=error) from error


def hook(session: Session, name: str, environment: Mapping[str, str]) -> None:
    """Run a hook, if the configuration has it; raises `CommandFailed`."""
    command = getattr(session.stack.hooks, name)
    if command:
        known = {"HOLDFAST_STACK": session.stack.name, "HOLDFAST_HOOK": name, **environment}
        run_command(f"hooks.{name}", command, session.stack.file.parent, known)
