"""The repository vault: backups in the restic repository format, version 2.

Content is cut into chunks, each stored once, compressed and encrypted. A backup is one snapshot:
streams are files in it, trees are folders, ``metadata.json`` is the manifest. What is restic's of
this and what is ours is written down in ``docs/formats/repository.md``.
"""

from __future__ import annotations

import platform
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import ClassVar

from holdfast import __version__
from holdfast.errors import (
    AppendOnly,
    BackupDamaged,
    BackupExists,
    BackupPinned,
    HoldfastError,
    NoSpace,
    RepositoryMissing,
    VaultUnavailable,
)
from holdfast.model.artifact import Artifact, Chunks, Stream, Tree, TreeItems
from holdfast.model.keys import KeyInfo
from holdfast.model.manifest import Form, Manifest, Stored
from holdfast.model.marks import Marks
from holdfast.model.names import safe_backup_id
from holdfast.model.options import Options
from holdfast.model.progress import Telling
from holdfast.model.upkeep import (
    EVERYTHING,
    TOLERATED,
    Checked,
    IndexRepaired,
    PacksRepaired,
    Pruned,
    Share,
    SnapshotsRepaired,
)
from holdfast.ports import Damaged, Store

from .backups import Sealed, newest_first
from .cache import copies_for_now
from .check import check
from .chunks import notice
from .damage import damage_of, guarded, guarded_items
from .draft import RepositoryDraft, digest_of
from .locks import FOLDER as LOCKS
from .locks import HeldLock, locked, remove_dead, unlock
from .marks import OWN
from .nodes import Node
from .opened import Opened, open_with_copies
from .opening import init_repository
from .options import RepositoryOptions
from .packs import PACKS
from .passwords import add_key, change_password, key_files, remove_key
from .presence import Presence
from .prune import prune
from .read import read_file, read_tree
from .repair import repair_index, repair_packs
from .repair_snapshots import repair_snapshots
from .repository import Repository
from .runs import THREADS
from .snapshots import delete_snapshot
from .steps import Observer, nobody
from .walk import find, pass_over
from .write import Writer

PROGRAM = f"holdfast {__version__}"


class RepositoryVault:
    """Backups as snapshots of a repository. See `holdfast.ports.Vault`."""

    kind: ClassVar[str] = "repository"
    options_model: ClassVar[type[Options]] = RepositoryOptions
    passing: ClassVar[tuple[str, ...]] = (LOCKS, OWN)

    def __init__(self, name: str, store: Store, options: RepositoryOptions) -> None:
        """Touch nothing."""
        self.name = name
        self._store = store
        self._options = options
        self._opening = threading.Lock()
        self._opened: Opened | None = None
        self._drafted: set[str] = set()  # ids that this process works on

    # --- the repository ---

    def init(self) -> None:
        """Make the repository. Raises `RepositoryExists` where there is one."""
        init_repository(self._store, self.name, self._options.password, datetime.now(UTC))

    def key_infos(self) -> list[KeyInfo]:
        """Say which keys there are."""
        repository = self.repository
        return [
            KeyInfo(
                key.name, key.created, key.username, key.hostname, key.name == repository.key_name
            )
            for key in key_files(repository)
        ]

    def add_key(self, password: str) -> str:
        """Let another password open the repository; returns the name of its key."""
        with self._alone(exclusive=False) as repository:
            return add_key(repository, password, datetime.now(UTC))

    def remove_key(self, name: str) -> None:
        """Take a password away; raises `KeyInUse` for the one of the configuration."""
        with self._alone(exclusive=True) as repository:
            remove_key(repository, name)

    def change_password(self, password: str) -> str:
        """Put another password in the place of the one of the configuration."""
        with self._alone(exclusive=True) as repository:
            return change_password(repository, password, datetime.now(UTC))

    def unlock(self, *, everything: bool = False) -> list[str]:
        """Remove locks that nobody holds any more, or all; return what each said."""
        return unlock(self.repository, datetime.now(UTC), everything=everything)

    @contextmanager
    def _alone(self, *, exclusive: bool) -> Iterator[Repository]:
        repository, wait = self.repository, self._options.lock_wait
        with locked(repository, exclusive=exclusive, patience=wait) as held:
            held.check()
            yield repository

    @property
    def repository(self) -> Repository:
        """The repository, opened. Raises what `open_repository` does."""
        return self._open().repository

    def _open(self) -> Opened:
        with self._opening:
            if self._opened is None:
                self._opened = open_with_copies(self._store, self.name, self._options)
            return self._opened

    def _open_ahead(self) -> None:
        """Begin to open: deriving the key keeps one core busy, and others have other work to do.

        What goes wrong goes wrong again for whoever wants the repository, and is said then.
        """

        def ahead() -> None:
            with suppress(HoldfastError):
                self._open()

        threading.Thread(target=ahead, name="open").start()

    # --- making a backup ---

    def backup_id(self, stack: str, instant: datetime) -> str:
        """Return a new id by the vault's template, which no backup or draft here has."""
        taken = {found.id for found in self._open().backups.everything()} | self._drafted
        return self._options.naming.backup_id(stack, instant, taken.__contains__)

    @contextmanager
    def draft(self, backup_id: str, instant: datetime, archive: str) -> Iterator[RepositoryDraft]:
        """Begin a backup. ``archive`` says nothing here: trees are kept as trees.

        Raises:
            BackupExists: there is a backup of that id, or it is drafted already.
            RepositoryLocked: somebody removes from the repository.

        """
        del archive
        opened = self._open()
        backups, added_to = opened.backups, opened.near.fresh()
        with self._claimed(safe_backup_id(backup_id)), self._workspace() as workspace:
            writer = Writer(added_to)
            wait = self._options.lock_wait
            with locked(opened.repository, patience=wait, lost=writer.abandon) as held:
                there = backups.everything()
                if any(found.id == backup_id for found in there):
                    raise BackupExists(path=f"backup {backup_id}")
                backups.give_index(added_to)
                added_to.load_index()
                with writer:
                    yield RepositoryDraft(
                        added_to,
                        writer,
                        backup_id,
                        instant,
                        workspace=workspace,
                        earlier=newest_first(there, platform.node()),
                        program=PROGRAM,
                        still_ours=held.confirm,
                    )
        backups.take_index(added_to)

    @contextmanager
    def _claimed(self, backup_id: str) -> Iterator[None]:
        if backup_id in self._drafted:
            raise BackupExists(path=f"a draft of {backup_id}")
        self._drafted.add(backup_id)
        try:
            yield
        finally:
            self._drafted.discard(backup_id)

    @contextmanager
    def _workspace(self) -> Iterator[Path]:
        """Give a folder on this machine: what lies there is not encrypted, and ends with us."""
        above = self._options.workspace
        if above is not None:
            above.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix="holdfast-", dir=above) as folder:
            yield Path(folder)

    # --- reading ---

    def manifests(self) -> Iterator[Manifest | Damaged]:
        """Give every sealed backup, the damaged ones first, then oldest first."""
        found = [
            one.manifest if isinstance(one, Sealed) else one
            for one in self._open().backups.everything()
        ]
        yield from (one for one in found if isinstance(one, Damaged))
        yield from sorted(
            (one for one in found if isinstance(one, Manifest)),
            key=lambda one: (one.sequence, one.created_at, one.id),
        )

    def manifest(self, backup_id: str) -> Manifest:
        """Return one manifest. Raises `BackupNotFound`, `BackupDamaged` or `BackupTooNew`."""
        return self._open().backups.manifest(backup_id)

    def next_sequence(self) -> int:
        """Return one more than the highest sequence number here; 1 in an empty vault."""
        return 1 + max((one.sequence for one in self._whole()), default=0)

    def newest_instant(self) -> datetime | None:
        """Return when the backup with the latest time was made; None in an empty vault."""
        return max((one.created_at for one in self._whole()), default=None)

    def _whole(self) -> list[Manifest]:
        return [one for one in self.manifests() if isinstance(one, Manifest)]

    def artifact(self, manifest: Manifest, stored: Stored) -> Artifact:
        """Return a stored artifact. Reading it raises `BackupDamaged` before a wrong byte."""
        if stored.form is Form.STREAM:
            return Stream(
                name=stored.name,
                open=partial(self._stream, manifest, stored),
                size_hint=stored.content_size,
                part=stored.part,
                labels=dict(stored.labels),
            )
        return Tree(
            name=stored.name,
            open=partial(self._tree, manifest, stored),
            size_hint=stored.content_size,
            entries_hint=stored.entries,
            part=stored.part,
            labels=dict(stored.labels),
            apart=THREADS,
        )

    @contextmanager
    def _stream(self, manifest: Manifest, stored: Stored) -> Iterator[Chunks]:
        with self._held(), damage_of(manifest, stored):
            node = self._node(manifest, stored)
            with closing(read_file(self.repository, node)) as chunks:
                yield guarded(chunks, manifest, stored)

    @contextmanager
    def _tree(self, manifest: Manifest, stored: Stored) -> Iterator[TreeItems]:
        with self._held(), damage_of(manifest, stored), copies_for_now(self._store) as copies:
            node = self._node(manifest, stored)
            repository = self.repository.beside(copies)
            with read_tree(repository, node, pass_over) as items:
                yield guarded_items(items, manifest, stored)

    @contextmanager
    def _held(self, *, loaded: bool = True) -> Iterator[None]:
        """Let nobody prune what is read.

        On a medium that cannot be written to, or is full, there is no lock: what lies there must
        be restored all the same, and a pack that goes away is an error, never a wrong byte.
        """
        repository = self.repository
        with ExitStack() as lock:
            with suppress(VaultUnavailable, NoSpace):
                lock.enter_context(locked(repository, patience=self._options.lock_wait))
            if loaded:
                self._open().load_index()
            yield

    def _node(self, manifest: Manifest, stored: Stored) -> Node:
        """Return where an artifact begins, if it is the one that was sworn to."""
        opened = self._open()
        tree = opened.backups.sealed(manifest.id).snapshot.tree
        node = find(opened.repository, tree, stored.path)
        if node is None:
            raise BackupDamaged(backup=manifest.id, path=stored.path, reason="it is missing")
        if digest_of(node) != stored.sha256:
            reason = "it is not the one of the manifest"
            raise BackupDamaged(backup=manifest.id, path=stored.path, reason=reason)
        return node

    def verify(
        self, manifest: Manifest, progress: Callable[[int], None], *, artifacts: bool = True
    ) -> list[str]:
        """Read every blob of a backup and compare it; return one line for each artifact not whole.

        Without ``artifacts`` it is only looked whether every pack is there that has one of them.
        """
        self._open().load_index()
        problems = self._differences(manifest)
        with copies_for_now(self._store) as copies:
            present = None if artifacts else Presence(self.repository.beside(copies))
            for stored in manifest.artifacts:
                try:
                    if present is not None:
                        with damage_of(manifest, stored):
                            present.demand(self._node(manifest, stored))
                    else:
                        self._read(manifest, stored, progress)
                except BackupDamaged as error:
                    problems.append(str(error))
        return problems

    def _differences(self, manifest: Manifest) -> list[str]:
        """Return what is wrong with the manifest itself, as it lies there now."""
        try:
            sealed = self._open().backups.again(manifest.id)
        except BackupDamaged as error:
            return [str(error)]
        return [] if sealed == manifest else [f"{manifest.id}: its manifest is another one"]

    def _read(self, manifest: Manifest, stored: Stored, progress: Callable[[int], None]) -> None:
        size = entries = holes = 0
        artifact = self.artifact(manifest, stored)
        if isinstance(artifact, Stream):
            with artifact.open() as chunks:
                for chunk in chunks:
                    size += len(chunk)
                    progress(len(chunk))
        else:
            telling = Telling(progress)
            with artifact.open() as items:
                for entry, chunks in items:
                    entries += 1
                    holes += entry.size - entry.stored_size
                    for chunk in telling.chunks(chunks):
                        size += len(chunk)
            telling.tell()
        # Zeros that had been written right behind a hole are read as a part of it: see `holes`.
        if entries != stored.entries or not size <= stored.content_size <= size + holes:
            reason = f"{size} bytes, {entries} entries; {stored.content_size}, {stored.entries}"
            raise BackupDamaged(backup=manifest.id, path=stored.path, reason=reason)

    # --- what is learned later ---

    def marks(self, backup_id: str) -> Marks:
        """Return what was learned of a backup since it was sealed. Raises `BackupNotFound`."""
        opened = self._open()
        opened.backups.sealed(backup_id)
        return opened.marks.read(backup_id)

    def marks_of(self, backup_ids: Sequence[str]) -> dict[str, Marks]:
        """Return what was learned of several backups; nothing of those that are not there."""
        return self._open().marks_of(backup_ids)

    def mark(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks of a backup, one change at a time. Raises `BackupNotFound`."""
        opened = self._open()
        opened.backups.sealed(backup_id)
        return opened.marks.change(backup_id, change)

    def delete(self, backup_id: str) -> None:
        """Delete a backup: its snapshot goes at once, its blobs when the repository is pruned.

        Raises:
            BackupNotFound, BackupPinned: there is none, or it is to stay.
            RepositoryLocked: somebody removes from the repository just now.

        """
        opened = self._open()
        with locked(opened.repository, patience=self._options.lock_wait) as held:
            sealed = opened.backups.sealed(backup_id)
            if (pinned := opened.marks.read(backup_id).pinned) is not None:
                raise BackupPinned(backup=backup_id, reason=pinned)
            held.check()
            delete_snapshot(opened.repository, sealed.snapshot.name)
            opened.marks.forget(backup_id)

    def sweep(self) -> list[str]:
        """Remove half-written files, and locks of which it is certain that nobody holds them."""
        self._open_ahead()
        lines = self._store.sweep()
        if not any(True for _lock in self._store.sizes(LOCKS)):
            return lines
        try:
            repository = self.repository
        except RepositoryMissing:
            return lines
        return [*lines, *(f"lock of {lock}" for lock in remove_dead(repository, datetime.now(UTC)))]

    def notice(self) -> str:
        """Say whether chunks are found more slowly here than they might be."""
        return notice()

    def free(self) -> int | None:
        """Return how many bytes there is room for, if that is known."""
        return self._store.free()

    # --- upkeep ---

    def prune(
        self,
        *,
        tolerated: float = TOLERATED,
        dry_run: bool = False,
        observer: Observer = nobody,
    ) -> Pruned:
        """Remove what no backup needs any more; see `prune.prune`.

        Raises:
            RepositoryLocked: others work on the repository. A dry run is in nobody's way.
            AppendOnly: nothing may be removed from here.

        """
        with self._upkeep(removing=not dry_run) as held:
            return prune(
                self._open().near,
                tolerated=tolerated,
                dry_run=dry_run,
                still_ours=held.check,
                confirmed=held.confirm,
                observer=observer,
            )

    def check(self, *, share: Share | None = EVERYTHING, observer: Observer = nobody) -> Checked:
        """Look whether the repository is whole, and read the data of a share; see `check.check`.

        Raises:
            RepositoryLocked: somebody removes from the repository just now.

        """
        with self._held(loaded=False):
            return check(self.repository, share=share, observer=observer)

    def repair_index(self, *, observer: Observer = nobody) -> IndexRepaired:
        """List what all packs hold anew; see `repair.repair_index`. Raises as `prune` does."""
        with self._upkeep() as held:
            return repair_index(self.repository, still_ours=held.check, observer=observer)

    def repair_packs(self, *, observer: Observer = nobody) -> PacksRepaired:
        """Move what is sound out of damaged packs; see `repair.repair_packs`. Raises as `prune`."""
        with self._upkeep() as held:
            return repair_packs(self.repository, still_ours=held.check, observer=observer)

    def repair_snapshots(
        self, *, write: bool = False, forget: bool = False, observer: Observer = nobody
    ) -> SnapshotsRepaired:
        """Tell what backups lost, and store what is left; see `repair_snapshots.repair_snapshots`.

        Raises as `prune` does; an append-only vault refuses only to forget.
        """
        with self._upkeep(removing=write and forget) as held:
            return repair_snapshots(
                self.repository,
                write=write,
                forget=forget,
                still_ours=held.check,
                observer=observer,
            )

    @contextmanager
    def _upkeep(self, *, removing: bool = True) -> Iterator[HeldLock]:
        """Hold a lock that fits; what is known of backups by then is looked up again."""
        if removing and self._options.append_only:
            raise AppendOnly(vault=self.name, path=PACKS)
        wait = self._options.lock_wait
        with locked(self.repository, exclusive=removing, patience=wait) as held:
            yield held
        with self._opening:
            self._opened = None
