"""Backup: hold every component still, copy it into a draft of each vault, and seal.

All components are frozen first, in the order of their roles, so that the skew between them is small
and known; then their artifacts are read side by side. A component that fails is dropped from the
drafts, and what remains is sealed as *partial*. Nothing exists before it is sealed, and nothing is
sealed before every source has closed cleanly.
"""

from __future__ import annotations

import errno
import platform
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType

from .. import __version__
from ..errors import Cancelled, HoldfastError, NoSpace, NothingBackedUp, VaultUnavailable
from ..model.artifact import Artifact
from ..model.events import Progress, StepEnded, StepStarted
from ..model.facts import Facts, Probe
from ..model.manifest import Component, Manifest, Status, Stored
from ..ports import Draft, Frozen, Source, Vault
from .guide import restore_guide
from .signals import uninterrupted
from .surroundings import Surroundings
from .tee import give

READERS = 2  # components read at once: more only makes a disk seek


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, and where to."""

    stack: str
    sources: Sequence[Source]
    vaults: Sequence[Vault]
    plan: str = ""
    archive: str = "tar.zst"
    description: str = ""
    evidence: bool = False  # copy damaged stores as they are, marked as such
    refused: Mapping[str, HoldfastError] = field(default_factory=dict)  # vaults not to write to


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What came of it: a manifest in each vault that took it, and what failed."""

    sealed: Mapping[str, Manifest]  # vault name → manifest
    failures: Mapping[str, HoldfastError] = field(default_factory=dict)  # component → reason
    lost_vaults: Mapping[str, HoldfastError] = field(default_factory=dict)  # vault → reason
    cancelled: bool = False  # someone wanted to end it while it was being sealed: too late

    @property
    def complete(self) -> bool:
        """Whether every component rests in every vault."""
        return not self.failures and not self.lost_vaults


def back_up(request: BackupRequest, around: Surroundings) -> BackupResult:
    """Back up and seal.

    Raises:
        NothingBackedUp: no component could be copied; with a single component, its own error.
        HoldfastError: the only vault failed.

    """
    with ExitStack() as cleanup:
        backup = _Backup(request, around)
        backup.open_drafts(cleanup)
        backup.copy()
        with uninterrupted() as late:  # in all vaults, or in none
            sealed = backup.seal()
            cleanup.close()
            cancelled = bool(late)
            late.clear()
        return BackupResult(sealed, backup.failures, backup.lost_vaults, cancelled)


@dataclass(slots=True)
class _Held:
    """A component while it is held still."""

    source: Source
    frozen: Frozen
    release: ExitStack
    since: float


class _Backup:
    """One backup under way. What failed is collected, and looked at before the seal."""

    def __init__(self, request: BackupRequest, around: Surroundings) -> None:
        self.request = request
        self.around = around
        self.clock = around.clock
        self.observe = around.observe
        self.started = around.clock.now()
        self.drafts: dict[str, Draft] = {}
        self.ids: dict[str, str] = {}
        self.records: dict[str, Component] = {}
        self.stored: dict[tuple[str, str], list[Stored]] = {}  # (vault, component)
        self.failures: dict[str, HoldfastError] = {}
        self.lost_vaults: dict[str, HoldfastError] = {}
        self.cancelled = threading.Event()
        self._lock = threading.Lock()

    # --- drafts ---

    def open_drafts(self, cleanup: ExitStack) -> None:
        for vault in self.request.vaults:
            try:
                if vault.name in self.request.refused:
                    raise self.request.refused[vault.name]
                backup_id = vault.backup_id(self.request.stack, self.started)
                drafting = vault.draft(backup_id, self.started, self.request.archive)
                self.drafts[vault.name] = drafting.__enter__()
                cleanup.push(partial(self._leave, vault.name, drafting))
                self.ids[vault.name] = backup_id
            except HoldfastError as error:
                self._lose(vault.name, error)

    def _lose(self, vault: str, error: HoldfastError) -> None:
        """Go on without a vault, unless it was the last one."""
        with self._lock:
            self.lost_vaults[vault] = error
            alone = len(self.lost_vaults) == len(self.request.vaults)
        self.around.warn(str(error), vault)
        if alone:
            raise error

    def _leave(
        self,
        vault: str,
        drafting: AbstractContextManager[Draft],
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave a draft; one that cannot be cleared away is swept later, and hides nothing else."""
        try:
            drafting.__exit__(kind, error, trace)
        except HoldfastError as another:
            if another is not error:
                self.around.warn(str(another), vault)

    # --- copying ---

    def copy(self) -> None:
        """Freeze everything, then read everything; every source is let go on every path."""
        with ExitStack() as everything:
            held = [h for source in self._in_order() if (h := self._freeze(source, everything))]
            self._read_all(held)

    def _in_order(self) -> list[Source]:
        return sorted(self.request.sources, key=lambda source: (source.role, source.name))

    def _freeze(self, source: Source, everything: ExitStack) -> _Held | None:
        self.observe(StepStarted("freeze", source.name))
        since = self.clock.monotonic()
        release = everything.enter_context(ExitStack())
        try:
            freezing = source.freeze(self._workspace(source), evidence=self.request.evidence)
            frozen = release.enter_context(freezing)
        except HoldfastError as error:
            self._fail(source, error)
            return None
        self.observe(StepEnded("freeze", source.name, self.clock.monotonic() - since))
        return _Held(source, frozen, release, since)

    def _workspace(self, source: Source) -> Path:
        """Make room for what a source cannot stream, in the first vault that is left."""
        vault = next(name for name in self.drafts if name not in self.lost_vaults)
        workspace = self.drafts[vault].workspace / source.name
        try:
            workspace.mkdir(parents=True, mode=0o700)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise NoSpace(path=workspace) from error
            reason = error.strerror or error
            raise VaultUnavailable(vault=vault, path=workspace, reason=reason) from error
        return workspace

    def _fail(self, source: Source, error: HoldfastError) -> None:
        record = Component(source.name, source.kind, "failed", error=str(error))
        with self._lock:
            self.failures[source.name] = error
            self.records[source.name] = record
        self.observe(StepEnded("backup", source.name, error=str(error)))

    def _read_all(self, held: Sequence[_Held]) -> None:
        with ThreadPoolExecutor(READERS, "read") as threads:
            futures = [threads.submit(self._read, one) for one in held]
            try:
                wait(futures)
            except BaseException:
                # Ctrl-C: the readers see this at their next chunk, and the pool then ends.
                self.cancelled.set()
                raise
            for future in futures:
                future.result()

    def _read(self, held: _Held) -> None:
        source = held.source
        total = sum(artifact.size_hint for artifact in held.frozen.artifacts)
        self.observe(StepStarted("copy", source.name, total))
        before = self.clock.monotonic()
        try:
            with self._counting(held.frozen) as facts:
                for artifact in held.frozen.artifacts:
                    self._keep(source.name, artifact)
            held.release.close()
        except HoldfastError as error:
            self._discard(source.name)
            if isinstance(error, Cancelled) or error in self.lost_vaults.values():
                raise
            self._fail(source, error)
            return
        self._record(held, facts())
        self.observe(StepEnded("copy", source.name, self.clock.monotonic() - before))

    @contextmanager
    def _counting(self, frozen: Frozen) -> Iterator[Callable[[], Facts]]:
        """Count the frozen content while it is read; its errors are raised on leaving."""
        with ThreadPoolExecutor(1, "count") as thread:
            future = thread.submit(frozen.facts)
            yield future.result
            future.result()

    def _keep(self, component: str, artifact: Artifact) -> None:
        with self._lock:
            takers = {n: d for n, d in self.drafts.items() if n not in self.lost_vaults}
        if not takers:
            raise next(iter(self.lost_vaults.values()))
        progress = partial(self._progress, component)
        silent = self._check_cancelled
        given = give(
            artifact,
            [
                partial(draft.put, component, progress=progress if i == 0 else silent)
                for i, draft in enumerate(takers.values())
            ],
        )
        for vault, result in zip(takers, given.results, strict=True):
            try:
                self.stored.setdefault((vault, component), []).append(result.result())
            except Cancelled:
                raise
            except HoldfastError as error:
                if not _comes_of(error, given.failure):
                    self._lose(vault, error)
        if given.failure is not None:
            raise given.failure

    def _progress(self, component: str, done: int) -> None:
        self._check_cancelled(done)
        self.observe(Progress("copy", component, done))

    def _check_cancelled(self, _done: int) -> None:
        if self.cancelled.is_set():
            raise Cancelled

    def _discard(self, component: str) -> None:
        for vault, draft in self.drafts.items():
            self.stored.pop((vault, component), None)
            if vault in self.lost_vaults:
                continue  # the whole draft goes
            try:
                draft.discard(component)
            except HoldfastError as error:
                self._lose(vault, error)

    def _record(self, held: _Held, facts: Facts) -> None:
        frozen = held.frozen
        record = Component(
            name=held.source.name,
            source=held.source.kind,
            status="completed",
            instant=frozen.instant,
            seconds=round(self.clock.monotonic() - held.since, 3),
            exact=frozen.exact,
            evidence=frozen.evidence,
            version=frozen.version,
            tools=dict(frozen.tools or {}),
            facts=facts,
        )
        with self._lock:
            self.records[held.source.name] = record

    # --- sealing ---

    def seal(self) -> dict[str, Manifest]:
        """Let the backup exist in every vault that is left; returns the manifests."""
        if len(self.failures) == len(self.request.sources):
            raise self._nothing()
        sealed: dict[str, Manifest] = {}
        for vault in self.request.vaults:
            if vault.name in self.lost_vaults:
                continue
            try:
                sealed[vault.name] = self._seal(vault)
            except HoldfastError as error:
                self._lose(vault.name, error)
        return sealed

    def _nothing(self) -> HoldfastError:
        errors = list(self.failures.values())
        if len(errors) == 1:
            return errors[0]
        return NothingBackedUp(problems="; ".join(str(error) for error in errors))

    def _seal(self, vault: Vault) -> Manifest:
        self.observe(StepStarted("seal", vault.name))
        before = self.clock.monotonic()
        manifest = self._manifest(vault)
        draft = self.drafts[vault.name]
        draft.seal(manifest, restore_guide(manifest, self.request.sources, draft))
        elapsed = self.clock.monotonic() - before
        self.observe(StepEnded("seal", vault.name, elapsed, detail=manifest.id))
        return manifest

    def _manifest(self, vault: Vault) -> Manifest:
        records = tuple(self.records[source.name] for source in self._in_order())
        instants = [record.instant for record in records if record.instant]
        artifacts = [
            stored
            for record in records
            for stored in self.stored.get((vault.name, record.name), [])
        ]
        return Manifest(
            id=self.ids[vault.name],
            stack=self.request.stack,
            created_at=self.started,
            sequence=vault.next_sequence(),
            status=Status.PARTIAL if self.failures else Status.COMPLETED,
            components=records,
            artifacts=tuple(artifacts),
            holdfast=__version__,
            plan=self.request.plan,
            host=platform.node(),
            description=self.request.description,
            skew_seconds=_skew(instants),
            notes=self._notes(vault),
        )

    def _notes(self, vault: Vault) -> tuple[str, ...]:
        notes = tuple(self.drafts[vault.name].notes())
        for text in notes:
            self.around.warn(text, vault.name)
        newest = vault.newest_instant()
        if newest is not None and newest > self.started + timedelta(seconds=1):
            text = (
                f"the clock stood at {self.started.isoformat(timespec='seconds')}, before the "
                f"newest backup, of {newest.isoformat(timespec='seconds')}: one of them is wrong"
            )
            self.around.warn(text, vault.name)
            return (*notes, text)
        return notes


def _comes_of(error: BaseException | None, cause: Exception | None) -> bool:
    """Tell whether an error is another one, or was raised because of it."""
    while error is not None and error is not cause:
        error = error.__cause__
    return error is not None


def _skew(instants: Sequence[datetime]) -> float:
    if not instants:
        return 0.0
    return round((max(instants) - min(instants)).total_seconds(), 3)


def preflight(sources: Sequence[Source], vaults: Sequence[Vault], around: Surroundings) -> None:
    """Look at every source and vault before anything is held still; problems are warned of.

    A component that cannot be reached does not stop the others: it fails when its turn comes.
    """
    room = {vault.name: vault.free() for vault in vaults}
    for vault in vaults:
        if text := vault.notice():
            around.warn(text, vault.name)
    needed = 0
    for source in sources:
        probe: Probe = source.probe()
        needed += probe.size
        for problem in probe.problems:
            around.warn(problem)
    for name, free in room.items():
        if free is not None and free < needed:
            text = f"only {free >> 20} MiB free, and the stack has {needed >> 20} MiB uncompressed"
            around.warn(text, name)
