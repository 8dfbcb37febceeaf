"""Restore: one transaction over all components.

Everything is staged beside the live data and checked there first. Only then are the services
stopped, all components switched one after the other, and the services started again. Until the
journal says *settle*, any failure puts every component back, in reverse order, also after a crash
and in another process (`recover`); from then on a crash is finished forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import (
    AccessRefused,
    Cancelled,
    HoldfastError,
    NotVerified,
    RestoreRolledBack,
    RollbackIncomplete,
    ServerUnreachable,
    ServicesDown,
    SettleIncomplete,
    SourceMissing,
    TargetInUse,
    UnknownName,
)
from ..model.artifact import Artifact
from ..model.facts import Facts, differences
from ..model.manifest import Component, Manifest, Stored
from ..model.stack import Check
from ..ports import Journal, ServiceControl, Source, Staged, Vault
from .check import Violation, run_checks
from .signals import uninterrupted
from .surroundings import Surroundings, counted


@dataclass(frozen=True, slots=True)
class Change:
    """What a restore would change of one component."""

    component: str
    target: str
    now: Facts
    then: Facts
    occupants: tuple[str, ...] = ()

    @property
    def replaces(self) -> bool:
        """Whether there is anything now that would go."""
        return any(self.now.counts.values())


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore over which targets. ``targets`` are the components' sources, or twins."""

    vault: Vault
    manifest: Manifest
    targets: Sequence[Source]
    workspace: Path  # a folder for each component's staging that outlives a crash
    checks: Sequence[Check] = ()
    beside: Mapping[str, Source] = field(default_factory=dict)  # live ones that stay as they are
    attic: Path | None = None  # where replaced content is kept; None: it is removed


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """What was restored, and what the checks say of it."""

    facts: Mapping[str, Facts]
    violations: Sequence[Violation]
    kept: Mapping[str, str]  # component → where its replaced content lies


def choose_targets(
    manifest: Manifest, sources: Mapping[str, Source], wanted: Sequence[str]
) -> list[Source]:
    """Return the sources to restore: those wanted, or all that the backup holds.

    Raises:
        UnknownName: one is not configured, or not in the backup.

    """
    held = [record.name for record in manifest.components if record.status == "completed"]
    for name in wanted:
        if name not in held:
            raise UnknownName(what=f"component in {manifest.id}", name=name, known=", ".join(held))
    names = list(wanted) or held
    for name in names:
        if name not in sources:
            raise UnknownName(what="component", name=name, known=", ".join(sources))
        record = manifest.component(name)
        if record and record.source != sources[name].kind:
            what = f"component of kind {record.source}"
            raise UnknownName(what=what, name=name, known=f"{name} is {sources[name].kind}")
    return [sources[name] for name in names]


def weigh(manifest: Manifest, targets: Sequence[Source]) -> list[Change]:
    """Return what a restore would change, counted now and as recorded then. Changes nothing."""
    return [_weigh(manifest, source) for source in targets]


def _weigh(manifest: Manifest, source: Source) -> Change:
    record = _record(manifest, source)
    try:
        now = source.facts()
    except SourceMissing:
        now = Facts()
    except (AccessRefused, ServerUnreachable):
        raise  # nothing could be restored there either
    except HoldfastError as error:
        # What is there may be damaged: that is why it is being restored.
        now = Facts({"damaged": 1}, notes=(str(error),))
    return Change(source.name, source.where, now, record.facts, tuple(source.occupants()))


def _record(manifest: Manifest, source: Source) -> Component:
    record = manifest.component(source.name)
    if record is None:
        raise UnknownName(what=f"component in {manifest.id}", name=source.name, known="")
    return record


@dataclass(frozen=True, slots=True)
class Transaction:
    """What makes a restore safe: its tag, its journal, control of the services, and the fence.

    ``tag`` is unique to the restore and safe in file names. ``fence`` raises if another run has
    taken over this stack.
    """

    tag: str
    journal: Journal
    services: ServiceControl
    fence: Callable[[], None]


def restore(
    request: RestoreRequest, transaction: Transaction, around: Surroundings
) -> RestoreResult:
    """Restore as one transaction.

    Raises:
        RestoreRolledBack: it failed after the switch had begun; everything was put back.
        RollbackIncomplete: it failed, and so did putting back; `recover` must finish.
        SettleIncomplete: it is in force, but the replaced content could not be put away.
        ServicesDown: it is in force, but the services could not be started.
        HoldfastError: it failed before the switch; nothing live was touched.

    """
    return _Restore(request, transaction, around).run()


class _Restore:
    def __init__(
        self, request: RestoreRequest, transaction: Transaction, around: Surroundings
    ) -> None:
        self.request = request
        self.tag = transaction.tag
        self.journal = transaction.journal
        self.services = transaction.services
        self.fence = transaction.fence
        self.around = around
        # What is referred to comes back before whoever refers to it.
        ordered = sorted(request.targets, key=lambda s: (s.role, s.name), reverse=True)
        self.targets: list[Source] = ordered
        self.staged: dict[str, Staged] = {}
        self.stopped = False  # whether the services may be down by our doing
        self.switching = False
        self.decided = False

    def run(self) -> RestoreResult:
        try:
            self._stage_all()
            facts = self._compare_all()
            violations = self._check_all()
            self._stop()
            self._switch()
            self._try_out()
            with uninterrupted() as late:
                self._decide()
                kept = self._finish()
                if late:
                    self.around.warn("too late to cancel: the restore is in force")
                    late.clear()
        except BaseException as error:
            if not self.decided:
                with uninterrupted():
                    self._put_back(error)
            raise
        return RestoreResult(facts, violations, kept)

    # --- before the switch ---

    def _stage_all(self) -> None:
        for source in self.targets:
            stored = self.request.manifest.of(source.name)
            staged = source.staging(self.tag, self.request.workspace / source.name)
            with uninterrupted():
                self.journal.prepare(source.name, source.kind, staged.token)
                self.staged[source.name] = staged
            with self.around.step("stage", source.name, sum(item.content_size for item in stored)):
                staged.fill([self._artifact(item) for item in stored])
            self.journal.filled(source.name)

    def _artifact(self, stored: Stored) -> Artifact:
        artifact = self.request.vault.artifact(self.request.manifest, stored)
        return counted(artifact, self.around.progress("stage", stored.component))

    def _compare_all(self) -> dict[str, Facts]:
        """Count what is staged; it must be what was counted when it was backed up."""
        facts = {}
        for source in self.targets:
            record = _record(self.request.manifest, source)
            with self.around.step("compare", source.name):
                facts[source.name] = self.staged[source.name].view.facts()
            problems = differences(record.facts, facts[source.name])
            if problems and not record.evidence:
                lines = "; ".join(f"{source.name}: {line}" for line in problems)
                raise NotVerified(backup=self.request.manifest.id, problems=lines)
        return facts

    def _check_all(self) -> list[Violation]:
        """Run the checks on the stack as it will be; what they find is reported, not fatal."""
        views = {**self.request.beside, **{n: staged.view for n, staged in self.staged.items()}}
        with self.around.step("check"):
            violations = run_checks(self.request.checks, views)
        for violation in violations:
            self.around.warn(str(violation))
        return violations

    # --- the switch ---

    def _stop(self) -> None:
        """Stop the services; from here on they are started again on every way out."""
        self.fence()
        self.journal.stopping()
        self.stopped = True  # already: a command that fails or is cut short may have stopped some
        self.stopped = self.services.stop()

    def _switch(self) -> None:
        for source in self.targets:
            if occupants := source.occupants():
                users = ", ".join(occupants)
                raise TargetInUse(component=source.name, path=source.where, users=users)
        self.switching = True
        with self.around.step("switch"), uninterrupted():
            for source in self.targets:
                self.journal.activate(source.name)
                self.staged[source.name].activate()
                self.journal.activated(source.name)

    def _try_out(self) -> None:
        """Let the services judge the new content, where it can be asked how they are.

        Otherwise they start only after the decision: what they would write before it is lost if the
        process dies before it.
        """
        if self.stopped and self.services.watched:
            self.services.start()
            self.services.check()

    def _decide(self) -> None:
        self.fence()
        self.journal.settle()
        self.decided = True

    def _finish(self) -> dict[str, str]:
        """Start the services and put the replaced content away: nothing stops this any more."""
        down = ""
        if self.stopped and not self.services.watched and (down := self._start_again()):
            self.around.warn(down)
        kept = self._settle_all()
        if down:
            raise ServicesDown(reason=down)
        return kept

    def _settle_all(self) -> dict[str, str]:
        kept = {}
        problems = []
        for source in self.targets:
            attic = self.request.attic and self.request.attic / source.name
            try:
                with self.around.step("settle", source.name):
                    place = self.staged[source.name].settle(attic)
                self.journal.settled(source.name)
            except Exception as error:  # noqa: BLE001 - told below, when the others are settled
                problems.append(str(error) or type(error).__name__)
                continue
            if place is not None:
                kept[source.name] = place
        if problems:
            raise SettleIncomplete(problems="; ".join(problems))
        try:
            self.journal.end("completed")
        except HoldfastError as error:
            raise SettleIncomplete(problems=str(error)) from error
        return kept

    # --- the way back ---

    def _put_back(self, error: BaseException) -> None:
        """Undo everything, in reverse order; raises what the caller should hear of it."""
        if self.switching and self.stopped:
            self._stop_again()
        problems = [
            problem
            for name in reversed(list(self.staged))
            if (problem := self._revert(name, self.staged[name]))
        ]
        if self.stopped and (down := self._start_again()):
            self.around.warn(down)  # the data is back; the reason of it all comes first
        if problems:
            raise RollbackIncomplete(problems="; ".join(problems)) from error
        self._note_down(partial(self.journal.end, "rolled_back"))
        if self.switching and isinstance(error, HoldfastError):
            raise RestoreRolledBack(reason=str(error), advice=error.hint) from error
        if isinstance(error, KeyboardInterrupt):
            raise Cancelled from error

    def _stop_again(self) -> None:
        try:
            self.services.stop()
        except HoldfastError as error:
            self.around.warn(str(error))  # the data matters more: go on putting it back

    def _start_again(self) -> str:
        """Start the services; returns what is wrong if they cannot be, for the data comes first."""
        try:
            self.services.start()
        except HoldfastError as error:
            return str(error)
        return ""

    def _revert(self, component: str, staged: Staged) -> str:
        """Put one component back; returns what is wrong if it cannot be, and lets the others go."""
        try:
            with self.around.step("revert", component):
                staged.revert()
        except Exception as error:  # noqa: BLE001 - whatever it is, the others must be put back
            return str(error) or type(error).__name__
        self._note_down(partial(self.journal.reverted, component))
        return ""

    def _note_down(self, write: Callable[[], None]) -> None:
        """Write to the journal, if it can be: undoing must not depend on it.

        What is not noted as undone is undone once more by `recover`, which does no harm.
        """
        try:
            write()
        except (HoldfastError, ValueError) as error:
            self.around.warn(str(error))
