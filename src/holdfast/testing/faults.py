"""Wrappers with the shape of a port that count its calls, fail at one of them, or spoil content.

    calls = Calls(fail_at=3, error=lambda: NoSpace(path="disk"))
    vault = PlainVault("plain", FaultyStore(LocalStore(folder), calls), options)

Without arguments `Calls` only counts, which tells how many calls there are to fail at.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from ..errors import VaultUnavailable
from ..model.artifact import Artifact, Chunks
from ..model.facts import Discovery, Facts, Inspection, Probe
from ..model.manifest import Manifest, Stored
from ..model.marks import Marks
from ..ports import (
    Adopting,
    Damaged,
    Draft,
    Exporting,
    Frozen,
    Keyed,
    Queryable,
    Role,
    Source,
    Staged,
    Store,
    Token,
)
from .chunks import Through, through_artifact


def _unavailable() -> BaseException:
    return VaultUnavailable(vault="faulty", path="call", reason="it was made to fail")


def unchanged(chunks: Chunks) -> Chunks:
    """Give chunks as they are."""
    return chunks


class Calls:
    """Counts calls, and lets one of them fail or each of them wait.

    Args:
        fail_at: the number of the call that fails, from 1; 0: none.
        error: makes what it raises.
        after: whether the call is made before it fails: as if its answer got lost.
        for_ever: whether every later call fails too: as if the store were gone.
        only: the names of the calls that count; none: all.
        delay: seconds to wait before each.

    """

    def __init__(  # noqa: PLR0913 - each is one property of a fault, given by name
        self,
        *,
        fail_at: int = 0,
        error: Callable[[], BaseException] = _unavailable,
        after: bool = False,
        for_ever: bool = False,
        only: Sequence[str] = (),
        delay: float = 0.0,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._fail_at = fail_at
        self._error = error
        self._after = after
        self._for_ever = for_ever
        self._only = frozenset(only)
        self._delay = delay
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """How many calls there were."""
        return sum(self.counts.values())

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Stand around one call."""
        fails = self._counted(name)
        time.sleep(self._delay)
        if fails and not self._after:
            raise self._error()
        yield
        if fails and self._after:
            raise self._error()

    def _counted(self, name: str) -> bool:
        if self._only and name not in self._only:
            return False
        with self._lock:
            self.counts[name] += 1
            if self._for_ever:
                return 0 < self._fail_at <= self.total
            return self._fail_at == self.total


class _Shaped:
    """Takes over the class variables of what it wraps, by a class made for the purpose."""

    shape: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, wrapped: Any, *_others: Any, **_named: Any) -> Self:
        taken = {name: getattr(wrapped, name) for name in cls.shape}
        return super().__new__(type(cls.__name__, (cls,), taken | cls.extras(wrapped)))

    @classmethod
    def extras(cls, wrapped: Any) -> dict[str, Any]:
        """Return what the class gains besides, by what the wrapped thing can do."""
        del wrapped
        return {}


class FaultyStore(_Shaped):
    """A store whose calls may fail and whose content may be spoilt on the way in or out."""

    shape: ClassVar[tuple[str, ...]] = ("renames",)
    renames: ClassVar[bool]

    def __init__(
        self,
        store: Store,
        calls: Calls,
        *,
        putting: Through = unchanged,
        getting: Through = unchanged,
    ) -> None:
        self.store = store
        self.calls = calls
        self._putting = putting
        self._getting = getting

    def put(self, name: str, chunks: Chunks) -> int:
        with self.calls.call("put"):
            return self.store.put(name, self._putting(chunks))

    def replace(self, name: str, data: bytes) -> None:
        with self.calls.call("replace"):
            self.store.replace(name, data)

    @contextmanager
    def get(self, name: str) -> Iterator[Chunks]:
        with self.calls.call("get"), self.store.get(name) as chunks:
            yield self._getting(chunks)

    def read(self, name: str) -> bytes:
        with self.calls.call("read"):
            return self.store.read(name)

    def part(self, name: str, start: int, length: int) -> bytes:
        with self.calls.call("part"):
            return b"".join(self._getting(iter((self.store.part(name, start, length),))))

    def names(self, prefix: str = "") -> Iterator[str]:
        with self.calls.call("names"):
            yield from self.store.names(prefix)

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        with self.calls.call("sizes"):
            yield from self.store.sizes(prefix)

    def folders(self, prefix: str = "") -> Iterator[str]:
        with self.calls.call("folders"):
            yield from self.store.folders(prefix)

    def delete(self, name: str) -> None:
        with self.calls.call("delete"):
            self.store.delete(name)

    def rename(self, old: str, new: str) -> None:
        with self.calls.call("rename"):
            self.store.rename(old, new)

    def adopt(self, name: str, file: Path) -> bool:
        with self.calls.call("adopt"):
            return isinstance(self.store, Adopting) and self.store.adopt(name, file)

    def path(self, name: str) -> Path | None:
        return self.store.path(name)

    def free(self) -> int | None:
        with self.calls.call("free"):
            return self.store.free()

    def sweep(self) -> list[str]:
        with self.calls.call("sweep"):
            return self.store.sweep()


class StoreWithoutRenames(FaultyStore):
    """Any store, as if it could not rename."""

    shape: ClassVar[tuple[str, ...]] = ()
    renames: ClassVar[bool] = False

    def rename(self, old: str, new: str) -> None:
        """Refuse: whoever calls this did not look at ``renames``."""
        bug = f"cannot rename {old} to {new}: this store has no rename"
        raise NotImplementedError(bug)


class FaultySource(_Shaped):
    """A source whose calls may fail and whose frozen content may be spoilt."""

    shape = ("kind", "role", "options_model")
    kind: ClassVar[str]
    role: ClassVar[Role]
    options_model: ClassVar[type]

    def __init__(self, source: Source, calls: Calls, *, frozen: Through | None = None) -> None:
        self.source = source
        self.calls = calls
        self.name = source.name
        self._through = frozen

    @classmethod
    def extras(cls, wrapped: Any) -> dict[str, Any]:
        """Let it be asked what the wrapped source can be asked."""
        found = {}
        if isinstance(wrapped, Queryable):
            found["query"] = lambda self, sql: self.source.query(sql)
        if isinstance(wrapped, Keyed):
            found["keys"] = lambda self, options: self.source.keys(options)
        return found

    @classmethod
    def discover(cls, folder: Path) -> Sequence[Discovery]:
        """Find nothing: discovery is asked of the class that is wrapped."""
        del folder
        return ()

    def probe(self) -> Probe:
        with self.calls.call("probe"):
            return self.source.probe()

    def facts(self) -> Facts:
        with self.calls.call("facts"):
            return self.source.facts()

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        with (
            self.calls.call("freeze"),
            self.source.freeze(workspace, evidence=evidence) as frozen,
        ):
            yield self._spoilt(frozen)
        with self.calls.call("release"):
            pass  # what fails here fails after everything was read

    def _spoilt(self, frozen: Frozen) -> Frozen:
        if self._through is None:
            return frozen
        through = self._through
        return replace(
            frozen,
            artifacts=[through_artifact(artifact, through) for artifact in frozen.artifacts],
        )

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        with self.calls.call("inspect"):
            return self.source.inspect(artifacts, workspace)

    @property
    def where(self) -> str:
        return self.source.where

    def staging(self, tag: str, workspace: Path) -> Staged:
        with self.calls.call("staging"):
            return FaultyStaged(self.source.staging(tag, workspace), self.calls)

    def reopen(self, token: Token) -> Staged:
        with self.calls.call("reopen"):
            return FaultyStaged(self.source.reopen(token), self.calls)

    def at(self, folder: Path) -> Source:
        return FaultySource(self.source.at(folder), self.calls, frozen=self._through)

    def elsewhere(self, url: str) -> Source:
        return FaultySource(self.source.elsewhere(url), self.calls, frozen=self._through)

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[Source]:
        with self.calls.call("scratch"), self.source.scratch(workspace) as twin:
            yield twin

    def occupants(self) -> Sequence[str]:
        with self.calls.call("occupants"):
            return self.source.occupants()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        return self.source.guide(paths)


class FaultyStaged:
    """A staging whose steps may fail, before or after they are taken."""

    def __init__(self, staged: Staged, calls: Calls) -> None:
        self.staged = staged
        self.calls = calls
        self.token: Token = staged.token

    @property
    def view(self) -> Source:
        return self.staged.view

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        with self.calls.call("fill"):
            self.staged.fill(artifacts)

    def activate(self) -> None:
        with self.calls.call("activate"):
            self.staged.activate()

    def revert(self) -> None:
        with self.calls.call("revert"):
            self.staged.revert()

    def settle(self, attic: Path | None) -> str | None:
        with self.calls.call("settle"):
            return self.staged.settle(attic)


class FaultyVault(_Shaped):
    """A vault whose calls may fail and whose artifacts may be spoilt on the way out."""

    shape = ("kind", "options_model", "passing")
    kind: ClassVar[str]
    options_model: ClassVar[type]
    passing: ClassVar[tuple[str, ...]]

    def __init__(self, vault: Exporting, calls: Calls, *, reading: Through | None = None) -> None:
        self.vault = vault
        self.calls = calls
        self.name = vault.name
        self._reading = reading

    def backup_id(self, stack: str, instant: datetime) -> str:
        with self.calls.call("backup_id"):
            return self.vault.backup_id(stack, instant)

    @contextmanager
    def draft(self, backup_id: str, instant: datetime, archive: str) -> Iterator[Draft]:
        with (
            self.calls.call("draft"),
            self.vault.draft(backup_id, instant, archive) as draft,
        ):
            yield FaultyDraft(draft, self.calls)

    def manifests(self) -> Iterator[Manifest | Damaged]:
        with self.calls.call("manifests"):
            yield from self.vault.manifests()

    def manifest(self, backup_id: str) -> Manifest:
        with self.calls.call("manifest"):
            return self.vault.manifest(backup_id)

    def next_sequence(self) -> int:
        with self.calls.call("next_sequence"):
            return self.vault.next_sequence()

    def newest_instant(self) -> datetime | None:
        with self.calls.call("newest_instant"):
            return self.vault.newest_instant()

    def artifact(self, manifest: Manifest, stored: Stored) -> Artifact:
        with self.calls.call("artifact"):
            artifact = self.vault.artifact(manifest, stored)
        return through_artifact(artifact, self._reading) if self._reading else artifact

    def verify(
        self, manifest: Manifest, progress: Callable[[int], None], *, artifacts: bool = True
    ) -> list[str]:
        with self.calls.call("verify"):
            return self.vault.verify(manifest, progress, artifacts=artifacts)

    def delete(self, backup_id: str) -> None:
        with self.calls.call("delete"):
            self.vault.delete(backup_id)

    def marks(self, backup_id: str) -> Marks:
        with self.calls.call("marks"):
            return self.vault.marks(backup_id)

    def marks_of(self, backup_ids: Sequence[str]) -> Mapping[str, Marks]:
        with self.calls.call("marks_of"):
            return self.vault.marks_of(backup_ids)

    def mark(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        with self.calls.call("mark"):
            return self.vault.mark(backup_id, change)

    def sweep(self) -> list[str]:
        with self.calls.call("sweep"):
            return self.vault.sweep()

    def notice(self) -> str:
        return self.vault.notice()

    def free(self) -> int | None:
        with self.calls.call("free"):
            return self.vault.free()

    def export(self, manifest: Manifest) -> AbstractContextManager[Chunks]:
        with self.calls.call("export"):
            return self.vault.export(manifest)

    def take(self, chunks: Chunks) -> Manifest:
        with self.calls.call("take"):
            return self.vault.take(chunks)


class FaultyDraft:
    """A draft whose calls may fail."""

    def __init__(self, draft: Draft, calls: Calls) -> None:
        self.draft = draft
        self.calls = calls
        self.workspace = draft.workspace

    def put(self, component: str, artifact: Artifact, progress: Callable[[int], None]) -> Stored:
        with self.calls.call("put"):
            return self.draft.put(component, artifact, progress)

    def discard(self, component: str) -> None:
        with self.calls.call("discard"):
            self.draft.discard(component)

    def notes(self) -> Sequence[str]:
        return self.draft.notes()

    def link(self, stored: Stored) -> str:
        return self.draft.link(stored)

    def preface(self) -> str:
        return self.draft.preface()

    def seal(self, manifest: Manifest, guide: str) -> None:
        with self.calls.call("seal"):
            self.draft.seal(manifest, guide)
