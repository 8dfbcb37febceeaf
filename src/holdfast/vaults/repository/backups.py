"""The backups of a repository: the snapshots that are ours, each with its manifest.

Snapshots never change. Each is read once and remembered, and so is its manifest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from holdfast.errors import BackupDamaged, BackupNotFound, HoldfastError
from holdfast.model.manifest import FILE_NAME, Manifest, decode
from holdfast.model.names import safe_backup_id
from holdfast.ports import Damaged

from .blobs import Kind
from .damage import DamagedError, damage_in
from .repository import Repository
from .snapshots import FOLDER, Snapshot, load_snapshot
from .walk import find

BACKUP, STACK = "backup:", "stack:"
LARGEST_MANIFEST = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A backup: what it is called, its snapshot, and its manifest or why it has none."""

    id: str
    snapshot: Snapshot
    manifest: Manifest | Damaged


def tags_of(backup_id: str, stack: str) -> tuple[str, str]:
    """Return the tags that say what a snapshot of ours is."""
    return f"{BACKUP}{backup_id}", f"{STACK}{stack}"


class Backups:
    """What there is. May be used by several threads."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known: dict[str, Sealed | Damaged | None] = {}  # by snapshot; None: not ours
        self._looking = threading.Lock()

    def everything(self) -> list[Sealed | Damaged]:
        """Return each backup there is now, and each snapshot that cannot be read, in no order.

        Raises:
            HoldfastError: the repository cannot be looked at.

        """
        with self._looking:
            names = self._repository.names(FOLDER)
            snapshots = [self._snapshot(name) for name in names if name not in self._known]
            if snapshots:
                self._repository.load_index()  # after the snapshots, which refer to it
            for name, found in zip(
                [name for name in names if name not in self._known], snapshots, strict=True
            ):
                self._known[name] = self._sealed(found) if isinstance(found, Snapshot) else found
            self._known = {name: self._known[name] for name in names}
            return list(_one_of_each(self._known.values()))

    def sealed(self, backup_id: str) -> Sealed:
        """Return one backup. Raises `BackupNotFound`."""
        safe_backup_id(backup_id)
        for found in self.everything():
            if isinstance(found, Sealed) and found.id == backup_id:
                return found
        raise BackupNotFound(backup=backup_id, where=self._repository.where)

    def manifest(self, backup_id: str) -> Manifest:
        """Return one manifest. Raises `BackupNotFound`, `BackupDamaged` or `BackupTooNew`."""
        found = self.sealed(backup_id)
        if isinstance(found.manifest, Damaged):
            return self._manifest(backup_id, found.snapshot)  # raises what is wrong with it
        return found.manifest

    def again(self, backup_id: str) -> Manifest:
        """Return one manifest as it lies there now, whatever is remembered of it."""
        name = self.sealed(backup_id).snapshot.name
        try:
            return self._manifest(backup_id, load_snapshot(self._repository, name))
        except FileNotFoundError:
            raise BackupNotFound(backup=backup_id, where=self._repository.where) from None

    def _snapshot(self, name: str) -> Snapshot | Damaged | None:
        try:
            return load_snapshot(self._repository, name)
        except FileNotFoundError:
            return None  # it was deleted just now
        except HoldfastError as error:
            return Damaged(f"snapshot_{name[:8]}", str(error))

    def _sealed(self, snapshot: Snapshot) -> Sealed | None:
        backup_id = _tagged(snapshot, BACKUP)
        if backup_id is None:
            return None
        try:
            manifest: Manifest | Damaged = self._manifest(safe_backup_id(backup_id), snapshot)
        except HoldfastError as error:
            manifest = Damaged(backup_id, str(error))
        return Sealed(backup_id, snapshot, manifest)

    def _manifest(self, backup_id: str, snapshot: Snapshot) -> Manifest:
        try:
            return decode(self._document(snapshot), backup_id)
        except BackupDamaged:
            raise
        except HoldfastError as error:
            if error.code != "repository-damaged":
                raise
            reason = str(error)
            raise BackupDamaged(backup=backup_id, path=FILE_NAME, reason=reason) from error

    def _document(self, snapshot: Snapshot) -> bytes:
        node = find(self._repository, snapshot.tree, FILE_NAME)
        with damage_in(self._repository.where, f"{FOLDER}/{snapshot.name}"):
            if node is None:
                raise DamagedError(f"it has no {FILE_NAME}")
            if node.size > LARGEST_MANIFEST:
                raise DamagedError(f"its {FILE_NAME} has {node.size} bytes")
        return b"".join(self._repository.blob(Kind.DATA, id_) for id_ in node.content)


def _tagged(snapshot: Snapshot, tag: str) -> str | None:
    found = [one.removeprefix(tag) for one in snapshot.tags if one.startswith(tag)]
    return found[0] if len(found) == 1 else None


def _one_of_each(every: Iterable[Sealed | Damaged | None]) -> Iterator[Sealed | Damaged]:
    """Give each id once: restic keeps a snapshot twice while it changes its tags."""
    by_id: dict[str, Sealed] = {}
    for found in every:
        if isinstance(found, Damaged):
            yield found
        elif isinstance(found, Sealed):
            by_id.setdefault(found.id, found)
    yield from by_id.values()
