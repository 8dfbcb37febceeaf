"""Restore: one transaction over all components.

Everything is staged beside the live data and checked there first. Only then are the services
stopped, all components switched one after the other, and the services started again. Until the
journal says *settle*, any failure puts every component back, in reverse order, also after a crash
and in another process (`recover`); from then on a crash is finished forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import (
    Cancelled,
    HoldfastError,
    NotVerified,
    RestoreRolledBack,
    RollbackIncomplete,
    TargetInUse,
    UnknownName,
)
from ..model.artifact import Artifact
from ..model.events import Progress, Warned
from ..model.facts import Facts, differences
from ..model.manifest import Component, Manifest, Stored
from ..model.stack import Check
from ..ports import Clock, Journal, Observer, ServiceControl, Source, Staged, Vault
from ._signals import uninterrupted
from .check import Violation, run_checks
from .observe import counted, observed


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
        return bool(self.now.counts)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore over which targets. ``targets`` are the components' sources, or twins."""

    vault: Vault
    manifest: Manifest
    targets: Sequence[Source]
    checks: Sequence[Check] = ()
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
    except HoldfastError as error:
        # What is there may be damaged: that is why it is being restored.
        now = Facts({"damaged": 1}, notes=(str(error),))
    where = str(getattr(source, "path", "") or source.name)
    return Change(source.name, where, now, record.facts, tuple(source.occupants()))


def _record(manifest: Manifest, source: Source) -> Component:
    record = manifest.component(source.name)
    if record is None:
        raise UnknownName(what=f"component in {manifest.id}", name=source.name, known="")
    return record


def restore(
    request: RestoreRequest,
    tag: str,
    journal: Journal,
    services: ServiceControl,
    clock: Clock,
    observe: Observer,
) -> RestoreResult:
    """Restore as one transaction.

    Raises:
        RestoreRolledBack: it failed after the switch had begun; everything was put back.
        RollbackIncomplete: it failed, and so did putting back; `recover` must finish.
        HoldfastError: it failed before the switch; nothing live was touched.

    """
    return _Restore(request, tag, journal, services, clock, observe).run()


class _Restore:
    def __init__(
        self,
        request: RestoreRequest,
        tag: str,
        journal: Journal,
        services: ServiceControl,
        clock: Clock,
        observe: Observer,
    ) -> None:
        self.request = request
        self.tag = tag
        self.journal = journal
        self.services = services
        self.clock = clock
        self.observe = observe
        # What is referred to comes back before whoever refers to it.
        ordered = sorted(request.targets, key=lambda s: (s.role, s.name), reverse=True)
        self.targets: list[Source] = ordered
        self.staged: dict[str, Staged] = {}
        self.stopped = False
        self.switching = False

    def run(self) -> RestoreResult:
        try:
            self._stage_all()
            facts = self._compare_all()
            violations = self._check_all()
            self._switch()
        except BaseException as error:
            with uninterrupted():
                self._put_back(error)
            raise
        with uninterrupted():
            kept = self._settle_all()
            self.journal.end("completed")
        return RestoreResult(facts, violations, kept)

    # --- before the switch ---

    def _stage_all(self) -> None:
        for source in self.targets:
            stored = self.request.manifest.of(source.name)
            staged = source.staging(self.tag)
            self.journal.prepare(source.name, source.kind, staged.token)
            self.staged[source.name] = staged
            with self._step("stage", source.name, sum(item.content_size for item in stored)):
                staged.fill([self._artifact(item) for item in stored])
            self.journal.filled(source.name)

    def _artifact(self, stored: Stored) -> Artifact:
        artifact = self.request.vault.artifact(self.request.manifest, stored)
        return counted(artifact, lambda n: self.observe(Progress("stage", stored.component, n)))

    def _compare_all(self) -> dict[str, Facts]:
        """Count what is staged; it must be what was counted when it was backed up."""
        facts = {}
        for source in self.targets:
            record = _record(self.request.manifest, source)
            with self._step("compare", source.name):
                facts[source.name] = self.staged[source.name].view.facts()
            problems = differences(record.facts, facts[source.name])
            if problems and not record.evidence:
                lines = "; ".join(f"{source.name}: {line}" for line in problems)
                raise NotVerified(backup=self.request.manifest.id, problems=lines)
        return facts

    def _check_all(self) -> list[Violation]:
        """Run the checks whose components are all staged; what they find is reported, not fatal."""
        views = {name: staged.view for name, staged in self.staged.items()}
        with self._step("check"):
            violations = run_checks(self.request.checks, views)
        for violation in violations:
            self.observe(Warned(str(violation)))
        return violations

    # --- the switch ---

    def _switch(self) -> None:
        self.journal.stopping()
        self.stopped = self.services.stop()
        for source in self.targets:
            if occupants := source.occupants():
                users = ", ".join(occupants)
                path = getattr(source, "path", source.name)
                raise TargetInUse(component=source.name, path=path, users=users)
        self.switching = True
        with self._step("switch"), uninterrupted():
            for source in self.targets:
                self.journal.activate(source.name)
                self.staged[source.name].activate()
                self.journal.activated(source.name)
        if self.stopped:
            self.services.start()
            self.services.check()
        self.journal.settle()

    def _settle_all(self) -> dict[str, str]:
        kept = {}
        for source in self.targets:
            attic = self.request.attic and self.request.attic / source.name
            with self._step("settle", source.name):
                place = self.staged[source.name].settle(attic)
            if place is not None:
                kept[source.name] = place
            self.journal.settled(source.name)
        return kept

    # --- the way back ---

    def _put_back(self, error: BaseException) -> None:
        """Undo everything, in reverse order; raises what the caller should hear of it."""
        switched = self.switching
        if switched and self.stopped:
            self._stop_again()
        for source in reversed(self.targets):
            staged = self.staged.get(source.name)
            if staged is not None:
                self._revert(source.name, staged)
        if self.stopped:
            self._start_again()
        self.journal.end("rolled_back")
        if switched and isinstance(error, HoldfastError):
            advice = error.hint or "see the reason"
            raise RestoreRolledBack(reason=str(error), advice=advice) from error
        if isinstance(error, KeyboardInterrupt):
            raise Cancelled from error

    def _stop_again(self) -> None:
        try:
            self.services.stop()
        except HoldfastError as error:
            self.observe(Warned(str(error)))  # the data matters more: go on putting it back

    def _start_again(self) -> None:
        try:
            self.services.start()
        except HoldfastError as error:
            self.observe(Warned(str(error)))  # the data is back; the reason of it all comes first

    def _revert(self, component: str, staged: Staged) -> None:
        try:
            with self._step("revert", component):
                staged.revert()
        except HoldfastError as error:
            raise RollbackIncomplete(component=component, reason=str(error)) from error
        self.journal.reverted(component)

    @contextmanager
    def _step(self, step: str, subject: str = "", total: int = 0) -> Iterator[None]:
        with observed(self.observe, self.clock, step, subject, total):
            yield
