"""The seams: what an adapter of each kind must do, and may rely on. One page, honest.

An adapter raises `HoldfastError` rows and nothing else for failures it can foresee. It is used by
one run at a time, but its methods may be called from several threads where that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from .model.artifact import Artifact, Chunks
from .model.events import Event
from .model.facts import Discovery, Facts, Inspection, Json, Probe
from .model.keys import KeyInfo
from .model.manifest import Manifest, Stored
from .model.marks import Marks
from .model.upkeep import Checked, IndexRepaired, PacksRepaired, Pruned, Share, SnapshotsRepaired

Token = Mapping[str, Json]


class Role(IntEnum):
    """What a store is to the application; its value is its place in a backup.

    Whoever refers comes first, what is referred to last: what is created in between is then an
    orphan, never a loss. Restores go in reverse.
    """

    CACHE = 0
    ROWS = 1
    VECTORS = 2
    OBJECTS = 3
    FILES = 4


@dataclass(slots=True)
class Frozen:
    """A source held still at one instant.

    ``facts`` counts the content of that instant, not of the live store; it is called once, in a
    thread of its own while the artifacts are read, and raises if it finds the content damaged.
    """

    artifacts: Sequence[Artifact]
    instant: datetime
    facts: Callable[[], Facts]
    exact: bool = True  # final once ``facts`` has answered: only reading shows that files changed
    evidence: bool = False  # damaged, and kept because that was asked for
    version: str = ""
    tools: Mapping[str, str] | None = None


class Source(Protocol):
    """One live store. Made from a component's name and its options; making it touches nothing."""

    kind: ClassVar[str]
    role: ClassVar[Role]
    options_model: ClassVar[type]  # a subclass of `model.options.Options`
    name: str

    @property
    def where(self) -> str:
        """Say where the live store is: a path, or a URL without what is secret in it."""

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find stores of this kind below a folder, changing nothing."""

    def probe(self) -> Probe:
        """Look whether the store can be reached. Never raises for a store that cannot."""

    def facts(self) -> Facts:
        """Count what the live store holds, without changing it. Empty if there is no store yet."""

    def freeze(self, workspace: Path, *, evidence: bool = False) -> AbstractContextManager[Frozen]:
        """Hold the store still and give its content as of one instant.

        ``workspace`` is an empty folder for what cannot be streamed; whoever gave it removes it.
        Leaving the context lets the store go, and raises if what was read cannot be trusted after
        all: nothing is sealed before. With ``evidence`` a damaged store is copied as it is.
        """

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read stored artifacts to their ends with the store's own means, and count them."""

    def staging(self, tag: str, workspace: Path) -> Staged:
        """Return the place beside the live store where a restore puts new content. Touches nothing.

        ``tag`` is unique to the restore, and safe in a file name. ``workspace`` is a private folder
        on this machine for what the store itself cannot hold beside its live content; `fill` makes
        it, it outlives a crash, and whoever gave it removes it when the restore has ended.
        """

    def reopen(self, token: Token) -> Staged:
        """Return a staging by its token, in another process, after a crash."""

    def at(self, folder: Path) -> Source:
        """Return a source of the same kind, with the same name of file, that lives in ``folder``.

        For ``restore --target DIR``; ``folder`` need not exist. Of a store that only a server can
        hold, the stored artifacts themselves are laid out there (`_laid_out`).
        """

    def elsewhere(self, url: str) -> Source:
        """Return a source with the same options at another place, for ``--target NAME=URL``.

        ``url`` is what the option of that name could say, or a path. Raises `UsageInvalid` where it
        cannot be such a place.
        """

    def scratch(self, workspace: Path) -> AbstractContextManager[Source]:
        """Give an empty twin to restore into, which ends with the context and leaves nothing.

        ``workspace`` is an empty folder that whoever gave it removes. Raises `NoScratch` where a
        twin cannot be made, and says why.
        """

    def occupants(self) -> Sequence[str]:
        """Name the programs that have the live store open and would not notice a switch."""

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return shell lines that restore this component without Holdfast, for ``RESTORE.md``.

        ``paths`` maps the ``part`` of each artifact (empty where there is one) to its path, quoted
        for the shell; the lines restore into the folder ``"$TARGET"``.
        """


class Staged(Protocol):
    """New content beside the live one.

    The order is `fill`, `activate`, `settle`; `revert` may come after any of them but `settle`, may
    be called twice, and after a crash at any point of the others. ``token`` is plain JSON and known
    before anything is touched, so that it can be written down first.
    """

    token: Token

    @property
    def view(self) -> Source:
        """The staged content as a source to be counted, inspected and queried, but not changed."""

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write the new content, durable when this returns. Raises if a byte cannot be trusted."""

    def activate(self) -> None:
        """Switch: the staged content is live, the old one aside. Short; durable when it returns."""

    def revert(self) -> None:
        """Put everything back as it was before `fill`."""

    def settle(self, attic: Path | None) -> str | None:
        """End it: the old content is moved into ``attic``, or removed where that is None.

        May be called twice. Returns where the old content lies now, if it was kept; an adapter that
        cannot move it keeps it where it is and says so.
        """


@runtime_checkable
class Queryable(Protocol):
    """A source that answers SQL."""

    def query(self, sql: str) -> AbstractContextManager[Iterator[tuple[object, ...]]]:
        """Run one reading statement; a writing one is refused."""


@runtime_checkable
class Keyed(Protocol):
    """A source whose data has keys that other stores refer to."""

    def keys(self, options: Mapping[str, str]) -> AbstractContextManager[Iterator[str]]:
        """Give the keys that ``options`` select, in any order."""


class Store(Protocol):
    """Named bytes under a vault. Names are relative paths with ``/``, checked by `safe_path`.

    All methods may be called from several threads.
    """

    renames: ClassVar[bool]  # whether `rename` works and is atomic

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a name; whole and durable when it returns, invisible before.

        Returns how many bytes. Raises `BackupExists` where the name is taken, never overwriting.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value under a name, atomically taking the place of an earlier one."""

    def get(self, name: str) -> AbstractContextManager[Chunks]:
        """Give the bytes of a name in chunks. Raises `FileNotFoundError` where there is none."""

    def read(self, name: str) -> bytes:
        """Return a small value whole. Raises `FileNotFoundError` where there is none."""

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value; ``length`` is at least 1, ``start`` at least 0.

        Raises `FileNotFoundError` where there is no value, `ValueTooShort` where it is shorter.
        """

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give every name below a folder, in no order; nothing if there is no such folder."""

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give the names that `names` gives, each with how many bytes its value has."""

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Give the first part of the names below a folder, where more follows it."""

    def delete(self, name: str) -> None:
        """Delete one name, or a folder with everything in it; nothing happens if there is none."""

    def rename(self, old: str, new: str) -> None:
        """Rename a name or a folder atomically and durably; never overwriting."""

    def path(self, name: str) -> Path | None:
        """Return where a name lies in the local file system, if it does."""

    def free(self) -> int | None:
        """Return how many bytes there is room for, if that is known."""

    def sweep(self) -> list[str]:
        """Remove what writers that died left half-written; one line each. Never a live one's."""


@runtime_checkable
class Adopting(Protocol):
    """A store that can take a file for its own instead of copying it."""

    def adopt(self, name: str, file: Path) -> bool:
        """Move a file under a free name, durably, if it lies on the same file system.

        Returns whether that was possible; where not, nothing has happened. Raises `BackupExists`
        where the name is taken.
        """


class Draft(Protocol):
    """A backup that nobody sees yet. Leaving its context unsealed leaves nothing behind.

    ``workspace`` is a private folder for what a source cannot stream.
    """

    workspace: Path

    def put(self, component: str, artifact: Artifact, progress: Callable[[int], None]) -> Stored:
        """Keep an artifact, reading it once; may be called from several threads."""

    def discard(self, component: str) -> None:
        """Drop what was put for a component that failed after all."""

    def notes(self) -> Sequence[str]:
        """Say what of the content that was put so far could not be kept just as it is."""

    def link(self, stored: Stored) -> str:
        """Return the path of a stored artifact from the folder that ``RESTORE.md`` lies in."""

    def preface(self) -> str:
        """Return the part of ``RESTORE.md`` that says how to get at the artifacts, and trust them.

        Its blocks marked ``sh`` are commands that work in the folder that the file lies in.
        """

    def seal(self, manifest: Manifest, guide: str) -> None:
        """Make the backup exist, durably: the manifest comes last. ``guide`` is ``RESTORE.md``."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A backup whose manifest cannot be trusted, as `Vault.manifests` gives it."""

    id: str
    reason: str


class Vault(Protocol):
    """Where backups rest. All methods may be called from several threads and processes."""

    kind: ClassVar[str]
    options_model: ClassVar[type]  # a subclass of `model.store_options.StoreOptions`
    passing: ClassVar[tuple[str, ...]]  # top folders of its store for what comes and goes: locks
    name: str

    def backup_id(self, stack: str, instant: datetime) -> str:
        """Return a new id by the vault's template, which no backup or draft here has."""

    def draft(
        self, backup_id: str, instant: datetime, archive: str
    ) -> AbstractContextManager[Draft]:
        """Begin a backup. ``archive`` is how trees are kept, where the vault leaves that open."""

    def manifests(self) -> Iterator[Manifest | Damaged]:
        """Give every sealed backup, oldest first by sequence; damaged ones come first."""

    def manifest(self, backup_id: str) -> Manifest:
        """Return one manifest. Raises `BackupNotFound`, `BackupDamaged` or `BackupTooNew`."""

    def next_sequence(self) -> int:
        """Return one more than the highest sequence number here; 1 in an empty vault."""

    def newest_instant(self) -> datetime | None:
        """Return when the backup with the latest time was made; None in an empty vault."""

    def artifact(self, manifest: Manifest, stored: Stored) -> Artifact:
        """Return a stored artifact. Reading it to its end raises if a byte is not as was sworn."""

    def verify(
        self, manifest: Manifest, progress: Callable[[int], None], *, artifacts: bool = True
    ) -> list[str]:
        """Read every byte once and compare it; return one line for each problem.

        Without ``artifacts`` only the documents beside them are read, and the artifacts' presence
        and sizes looked at: for a verification that reads the artifacts itself.
        """

    def delete(self, backup_id: str) -> None:
        """Delete a backup: it stops to exist at once, even if its bytes take a while."""

    def marks(self, backup_id: str) -> Marks:
        """Return what was learned of a backup since it was sealed."""

    def marks_of(self, backup_ids: Sequence[str]) -> Mapping[str, Marks]:
        """Return that of several backups, for lists: asking no more often than must be.

        Of one that is not there nothing was learned. What must not be out of date is `marks`.
        """

    def mark(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks of a backup, one change at a time."""

    def sweep(self) -> list[str]:
        """Remove what runs that died left behind; return one line for each. Never a live run's."""

    def notice(self) -> str:
        """Say what people should know of this vault, on this machine, when a backup begins.

        Usually nothing.
        """

    def free(self) -> int | None:
        """Return how many bytes there is room for, if that is known."""


@runtime_checkable
class Exporting(Vault, Protocol):
    """A vault whose backups can leave it, and come into it, as they lie there."""

    def export(self, manifest: Manifest) -> AbstractContextManager[Chunks]:
        """Give a backup as one ``.tar`` that `take` reads."""

    def take(self, chunks: Chunks) -> Manifest:
        """Take in an exported backup after checking every byte of it. Its id must be free here."""


@runtime_checkable
class Guarded(Vault, Protocol):
    """A vault that is made before it is used, opened by passwords, and locked by who works on it.

    Each password has a key of its own, by whose name it is known.
    """

    def init(self) -> None:
        """Make it. Raises `RepositoryExists` where it is there already."""

    def key_infos(self) -> Sequence[KeyInfo]:
        """Say which keys there are."""

    def add_key(self, password: str) -> str:
        """Let another password open it; returns the name of its key."""

    def remove_key(self, name: str) -> None:
        """Take a password away. Raises `KeyInUse` for the one that it was opened with."""

    def change_password(self, password: str) -> str:
        """Put another password in the place of the one that it was opened with."""

    def unlock(self, *, everything: bool = False) -> Sequence[str]:
        """Remove locks that nobody holds any more, or all; return what each said."""


@runtime_checkable
class Maintained(Vault, Protocol):
    """A vault that keeps content once, for many backups: deleting one frees nothing by itself.

    Each method may raise `RepositoryLocked`, and those that remove something `AppendOnly`.
    """

    def prune(
        self, *, tolerated: float = ..., dry_run: bool = False, observer: Observer = ...
    ) -> Pruned:
        """Remove what no backup needs any more.

        ``tolerated`` is the share of bytes not needed that may stay: to remove them, others that
        are needed would have to be moved.
        """

    def check(self, *, share: Share | None = ..., observer: Observer = ...) -> Checked:
        """Look whether everything is whole, and read the data of a share; None: none."""

    def repair_index(self, *, observer: Observer = ...) -> IndexRepaired:
        """List anew what there is."""

    def repair_packs(self, *, observer: Observer = ...) -> PacksRepaired:
        """Move what is sound out of what is damaged."""

    def repair_snapshots(
        self, *, write: bool = False, forget: bool = False, observer: Observer = ...
    ) -> SnapshotsRepaired:
        """Tell what backups lost; ``write`` what is left of them, and ``forget`` the damaged."""


class Journal(Protocol):
    """What a restore writes down before it acts, so that another process can finish or undo it.

    Every method returns only when its record is durable. Of one that raises nothing is recorded;
    but once `end` has recorded, it may still raise because the journal could not be put away.
    """

    def prepare(self, component: str, kind: str, token: Token) -> None:
        """Say that content will be staged; `Source.reopen` with the token undoes it."""

    def filled(self, component: str) -> None:
        """Say that a component is staged."""

    def stopping(self) -> None:
        """Say that the services will be stopped: whoever recovers must start them."""

    def activate(self, component: str) -> None:
        """Say that a component will be switched."""

    def activated(self, component: str) -> None:
        """Say that a component was switched."""

    def settle(self) -> None:
        """Decide: from here on a crash is recovered forward, before it backward."""

    def settled(self, component: str) -> None:
        """Say that a component is settled."""

    def reverted(self, component: str) -> None:
        """Say that a component is as it was before."""

    def end(self, outcome: str) -> None:
        """Close the journal: nothing is left to recover."""


class ServiceControl(Protocol):
    """The application's own services around a switch; does nothing where none are declared."""

    @property
    def watched(self) -> bool:
        """Whether `check` asks anything: only then can they be tried out before a decision."""

    def stop(self) -> bool:
        """Stop them. Returns whether there was anything to stop. Raises `CommandFailed`."""

    def start(self) -> None:
        """Start them. Raises `CommandFailed`."""

    def check(self) -> None:
        """Wait until they are healthy. Raises `HealthFailed`."""


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """Return the wall clock's time, with a time zone. It may jump."""

    def monotonic(self) -> float:
        """Return seconds that only grow."""


class Observer(Protocol):
    """Hears what happens in a run, in several threads; must not raise or block for long."""

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""
