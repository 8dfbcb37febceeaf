"""The backups of a repository: the snapshots that are ours, each with its manifest.

Snapshots never change. Each is read once and remembered, and so is its manifest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from holdfast.errors import BackupDamaged, BackupNotFound, HoldfastError, RepositoryDamaged
from holdfast.model.manifest import FILE_NAME, Manifest, decode
from holdfast.model.names import safe_backup_id
from holdfast.ports import Damaged

from . import cache
from .ahead import in_order
from .blobs import Kind
from .damage import DamagedError, damage_in
from .documents import READERS, Documents
from .nodes import decode_tree
from .repository import Repository
from .snapshots import FOLDER, Snapshot, load_snapshot

BACKUP, STACK = "backup:", "stack:"
LARGEST_MANIFEST = 64 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A backup: what it is called, its snapshot, and its manifest or why it has none."""

    id: str
    snapshot: Snapshot
    manifest: Manifest | Damaged
    blobs: Sequence[bytes] = ()  # the ids of those that the manifest was read from


def tags_of(backup_id: str, stack: str) -> tuple[str, str]:
    """Return the tags that say what a snapshot of ours is."""
    return f"{BACKUP}{backup_id}", f"{STACK}{stack}"


def newest_first(found: Iterable[Sealed | Damaged], host: str) -> list[tuple[Snapshot, Manifest]]:
    """Return the backups that files of this machine are compared with; no clock is asked."""
    ours = [
        (one.snapshot, one.manifest)
        for one in found
        if isinstance(one, Sealed)
        and isinstance(one.manifest, Manifest)
        and one.snapshot.hostname == host
    ]
    ours.sort(key=lambda one: (one[1].sequence, one[1].created_at, one[1].id), reverse=True)
    return ours


class Backups:
    """What there is. May be used by several threads.

    Lists are read through ``near``, which may have copies on this machine; what is to prove
    anything, from ``repository``.
    """

    def __init__(self, repository: Repository, near: Repository | None = None) -> None:
        self._repository = repository
        self._near = near or repository
        self._known: dict[str, Sealed | Damaged | None] = {}  # by snapshot; None: not ours
        self._looking = threading.Lock()

    def everything(self) -> list[Sealed | Damaged]:
        """Return each backup there is now, and each snapshot that cannot be read, in no order.

        Raises:
            HoldfastError: the repository cannot be looked at.

        """
        with self._looking:
            names = self._near.names(FOLDER)
            new = [name for name in names if name not in self._known]
            known = self._known | dict(zip(new, self._read(new), strict=True))
            self._known = {name: known[name] for name in names}
            if new or len(known) > len(names):
                self._forget_copies()
            return list(_one_of_each(self._known.values()))

    def give_index(self, other: Repository) -> None:
        """Let another have the index that backups were read by, as far as it is loaded."""
        with self._looking:
            self._near.give_index(other)

    def take_index(self, other: Repository) -> None:
        """Have the index back, if everything is stored that it lists."""
        with self._looking:
            if not other.index.pending:
                other.give_index(self._near)

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
        """Return one manifest as it lies in the repository now, whatever is remembered of it."""
        name = self.sealed(backup_id).snapshot.name
        try:
            return self._manifest(backup_id, load_snapshot(self._repository, name))
        except FileNotFoundError:
            raise BackupNotFound(backup=backup_id, where=self._repository.where) from None

    def _manifest(self, backup_id: str, snapshot: Snapshot) -> Manifest:
        (document,) = _documents(self._repository, [snapshot])
        return _decoded(backup_id, document)

    # --- many at once ---

    def _read(self, names: Sequence[str]) -> list[Sealed | Damaged | None]:
        """Read snapshots, and then, because the index is younger than they are, their manifests."""
        found = list(in_order(READERS, self._snapshot, names))
        ours = [one for one in found if isinstance(one, Snapshot) and _tagged(one, BACKUP)]
        texts = zip((one.name for one in ours), _documents(self._near, ours), strict=True)
        manifests = dict(texts)
        return [_sealed(one, manifests) if isinstance(one, Snapshot) else one for one in found]

    def _snapshot(self, name: str) -> Snapshot | Damaged | None:
        try:
            return load_snapshot(self._near, name)
        except FileNotFoundError:
            return None  # it was deleted just now
        except HoldfastError as error:
            return Damaged(f"snapshot_{name[:8]}", str(error))

    def _forget_copies(self) -> None:
        """Remove copies of snapshots that are no more, and of what their manifests were in."""
        copies, known = self._near.copies, self._known
        blobs = {
            id_.hex() for one in known.values() if isinstance(one, Sealed) for id_ in one.blobs
        }
        copies.retain(cache.SNAPSHOTS, known.__contains__)
        copies.retain(cache.BLOBS, blobs.__contains__)


@dataclass(frozen=True, slots=True)
class _Document:
    """The text of a manifest, or what is wrong with it; and the blobs that it was read from."""

    text: bytes | HoldfastError
    blobs: Sequence[bytes] = ()


def _documents(repository: Repository, snapshots: Sequence[Snapshot]) -> Iterator[_Document]:
    """Give what the manifests of snapshots say."""
    documents = Documents(repository)
    roots = documents.read(Kind.TREE, [one.tree for one in snapshots])
    contents = [_content(repository, one, roots[one.tree]) for one in snapshots]
    ids = [id_ for one in contents if not isinstance(one, HoldfastError) for id_ in one]
    pieces = documents.read(Kind.DATA, ids)
    for snapshot, content in zip(snapshots, contents, strict=True):
        if isinstance(content, HoldfastError):
            yield _Document(content)
        else:
            yield _Document(_joined([pieces[id_] for id_ in content]), (snapshot.tree, *content))


def _content(
    repository: Repository, snapshot: Snapshot, root: bytes | HoldfastError
) -> Sequence[bytes] | HoldfastError:
    """Return the ids of the blobs that hold the text of a manifest."""
    if isinstance(root, HoldfastError):
        return root
    try:
        with damage_in(repository.where, f"{FOLDER}/{snapshot.name}"):
            node = next((one for one in decode_tree(root) if one.name == FILE_NAME), None)
            if node is None:
                raise DamagedError(f"it has no {FILE_NAME}")
            if node.size > LARGEST_MANIFEST:
                raise DamagedError(f"its {FILE_NAME} has {node.size} bytes")
    except RepositoryDamaged as error:
        return error
    return node.content


def _joined(pieces: Sequence[bytes | HoldfastError]) -> bytes | HoldfastError:
    wrong = next((one for one in pieces if isinstance(one, HoldfastError)), None)
    return wrong or b"".join(one for one in pieces if isinstance(one, bytes))


def _sealed(snapshot: Snapshot, documents: Mapping[str, _Document]) -> Sealed | None:
    backup_id = _tagged(snapshot, BACKUP)
    if backup_id is None:
        return None
    document = documents[snapshot.name]
    try:
        manifest: Manifest | Damaged = _decoded(safe_backup_id(backup_id), document)
    except HoldfastError as error:
        manifest = Damaged(backup_id, str(error))
    return Sealed(backup_id, snapshot, manifest, document.blobs)


def _decoded(backup_id: str, document: _Document) -> Manifest:
    """Return the manifest. Raises `BackupDamaged`, `BackupTooNew`, or why it cannot be read."""
    text = document.text
    if isinstance(text, bytes):
        return decode(text, backup_id)
    if text.code != "repository-damaged":
        raise text
    raise BackupDamaged(backup=backup_id, path=FILE_NAME, reason=str(text)) from text


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
