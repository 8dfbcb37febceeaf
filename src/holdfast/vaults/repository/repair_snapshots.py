"""What backups lost by damage, said precisely; and snapshots of what is left of them, if wanted.

A snapshot is never changed. On request a repaired one is stored beside it: without the files that
lost a part of their content, and without the folders that cannot be read. The repaired one of a
backup is a backup of its own, ``ID-repaired``, whose manifest says what it is: it is partial, the
artifacts swear to what is there now, a component that lost a whole artifact has failed, one that
lost files is kept as evidence of damage, and notes name what was lost. Where the manifest itself is
lost, the repaired snapshot is one for restic, and no backup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from holdfast.errors import RepositoryDamaged
from holdfast.model.manifest import FILE_NAME, Component, Form, Manifest, Status, Stored, encode
from holdfast.model.names import safe_backup_id
from holdfast.model.upkeep import Loss, SnapshotsRepaired

from . import nodes
from .backups import BACKUP, Backups, Sealed, tags_of
from .blobs import Kind, blob_id
from .cache import copies_for_now
from .damage import DamagedError, damage_in
from .draft import digest_of
from .inventory import take_inventory
from .marks import Marked
from .nodes import Node
from .packs import pack_name
from .repository import Repository
from .snapshots import FOLDER as SNAPSHOTS
from .snapshots import Snapshot, delete_snapshot, load_snapshot, save_snapshot
from .steps import Observer, Tell, always_ours, counted, nobody, step
from .walk import DEEPEST, find, pass_over, walk
from .write import Writer

REPAIRED = "repaired"  # the tag, as restic's
MOST_TOLD = 100_000  # losses that are listed; more are only counted
MOST_NOTES = 20  # losses that a manifest names

Save = Callable[[bytes], bytes]  # a tree to its id
Lost = Callable[[str, str], None]  # a path and why it is lost


def repair_snapshots(
    repository: Repository,
    *,
    write: bool = False,
    forget: bool = False,
    still_ours: Callable[[], None] = always_ours,
    observer: Observer = nobody,
) -> SnapshotsRepaired:
    """Tell what snapshots lost. The caller holds the exclusive lock.

    With ``write`` repaired snapshots are stored of those that lost anything; with ``forget`` the
    damaged ones are then removed, also those of which nothing is left, but none that is pinned.

    Raises:
        RepositoryDamaged: index files or packs are damaged: they are to be repaired first.

    """
    with copies_for_now(repository.store) as copies:
        repairing = _Repairing(repository.near(copies), still_ours, observer)
        return repairing.run(write=write, forget=write and forget)


class _Repairing:
    """One repair."""

    def __init__(
        self, repository: Repository, still_ours: Callable[[], None], observer: Observer
    ) -> None:
        self._repository = repository
        self._still_ours = still_ours
        self._observer = observer
        self._found = SnapshotsRepaired()
        self._changed: list[tuple[Snapshot, bytes, list[Loss]]] = []
        self._mended: dict[str, Snapshot] = {}  # by its original's name: repaired, and whole

    def run(self, *, write: bool, forget: bool) -> SnapshotsRepaired:
        names = self._repository.names(SNAPSHOTS)
        self._repository.load_index()
        for pack, reason in take_inventory(self._repository).wrong.items():
            with damage_in(self._repository.where, pack_name(pack)):
                raise DamagedError(f"{reason}: repair packs first")
        backups = {
            found.snapshot.name: found
            for found in Backups(self._repository).everything()
            if isinstance(found, Sealed)
        }
        if not write:
            self._look(names, backups, blob_id)
            return self._found
        self._repository.check_writable()
        with Writer(self._repository) as writer:
            self._look(names, backups, writer.tree)
            writer.finish()
        for snapshot, tree, losses in self._changed:
            self._store(snapshot, tree, losses, backups)
        if forget:
            self._forget(backups)
        return self._found

    def _step(self, name: str, total: int = 0) -> AbstractContextManager[Tell]:
        return step(self._observer, name, self._repository.where, total)

    # --- looking ---

    def _look(self, names: Sequence[str], backups: dict[str, Sealed], save: Save) -> None:
        trees = Trees(self._repository, save)
        with self._step("snapshots", len(names)) as tell:
            for name in counted(names, tell):
                try:
                    snapshot = load_snapshot(self._repository, name)
                except FileNotFoundError:
                    continue
                except RepositoryDamaged as error:
                    self._tell(Loss(name, "", "", "", error.fields["reason"]))
                    self._found.hopeless.append(name)
                    continue
                self._found.snapshots += 1
                self._one(snapshot, backups.get(name), trees)

    def _one(self, snapshot: Snapshot, backup: Sealed | None, trees: Trees) -> None:
        losses: list[Loss] = []

        def lost(path: str, reason: str) -> None:
            artifact = _artifact_at(backup, path)
            loss = Loss(snapshot.name, backup.id if backup else "", artifact, path, reason)
            losses.append(loss)
            self._tell(loss)

        tree = trees.repaired(snapshot.tree, lost)
        if tree is None:
            self._found.hopeless.append(snapshot.name)
        elif losses:
            self._changed.append((snapshot, tree, losses))
        elif REPAIRED in snapshot.tags:
            self._mended[snapshot.original] = snapshot

    def _tell(self, loss: Loss) -> None:
        if len(self._found.losses) < MOST_TOLD:
            self._found.losses.append(loss)
        else:
            self._found.more += 1

    # --- writing ---

    def _store(
        self, snapshot: Snapshot, tree: bytes, losses: list[Loss], backups: dict[str, Sealed]
    ) -> None:
        """Store the repaired snapshot of one, unless a run before this one did."""
        backup = backups.get(snapshot.name)
        original = snapshot.original or snapshot.name
        if (mended := self._mended.get(original)) is not None:
            self._found.repaired[snapshot.name] = mended.name
            if backup is not None and mended.name in backups:
                self._found.backups[backup.id] = backups[mended.name].id
            return
        tags = [tag for tag in snapshot.tags if not tag.startswith(BACKUP)]
        if backup is not None and isinstance(backup.manifest, Manifest):
            new_id = _free_id(backup.id, {one.id for one in backups.values()})
            manifest = self._renewed(backup.manifest, new_id, tree, losses)
            tree = self._with_manifest(tree, manifest)
            tags = list(tags_of(new_id, manifest.stack))
            self._found.backups[backup.id] = new_id
        self._still_ours()
        repaired = replace(
            snapshot, tree=tree, tags=[*tags, REPAIRED], original=original, parent="", name=""
        )
        self._found.repaired[snapshot.name] = save_snapshot(self._repository, repaired)

    def _renewed(
        self, manifest: Manifest, new_id: str, tree: bytes, losses: list[Loss]
    ) -> Manifest:
        """Return a manifest that says what is left."""
        renewed = {stored.path: self._artifact(tree, stored) for stored in manifest.artifacts}
        failed = {stored.component for stored in manifest.artifacts if not renewed[stored.path]}
        harmed = {
            stored.component for stored in manifest.artifacts if renewed[stored.path] != stored
        }
        artifacts = [
            after
            for before in manifest.artifacts
            if before.component not in failed and (after := renewed[before.path]) is not None
        ]
        told = [f"lost by damage: {loss.path}: {loss.reason}" for loss in losses[:MOST_NOTES]]
        if len(losses) > MOST_NOTES:
            told.append(f"and {len(losses) - MOST_NOTES} more")
        return replace(
            manifest,
            id=new_id,
            status=Status.PARTIAL,
            components=tuple(_judged(one, failed, harmed) for one in manifest.components),
            artifacts=tuple(artifacts),
            notes=(*manifest.notes, f"repaired: what is left of {manifest.id}", *told),
        )

    def _artifact(self, tree: bytes, stored: Stored) -> Stored | None:
        """Return an artifact as it is now; None if it is lost."""
        node = find(self._repository, tree, stored.path)
        if node is None:
            return None
        digest = digest_of(node)
        if digest == stored.sha256 or stored.form is not Form.TREE:
            return replace(stored, sha256=digest)
        size = entries = 0
        for found in walk(self._repository, node, pass_over):
            size += found.entry.stored_size
            entries += 1
        return replace(stored, sha256=digest, size=size, content_size=size, entries=entries)

    def _with_manifest(self, tree: bytes, manifest: Manifest) -> bytes:
        """Return the tree of a snapshot with another manifest in it."""
        with Writer(self._repository) as writer:
            ids, size = writer.file(iter((encode(manifest),)))
            texts = [
                nodes.encode_node(replace(node, size=size, content=ids))
                if node.name == FILE_NAME
                else text.encode()
                for node, text in nodes.decode_texts(self._repository.blob(Kind.TREE, tree))
            ]
            changed = writer.tree(nodes.joined(texts))
            writer.finish()
        return changed

    # --- forgetting ---

    def _forget(self, backups: dict[str, Sealed]) -> None:
        marks = Marked(self._repository)
        for name in (*self._found.repaired, *self._found.hopeless):
            backup = backups.get(name)
            if backup is not None and marks.read(backup.id).pinned is not None:
                self._found.pinned.append(backup.id)
                continue
            self._still_ours()
            delete_snapshot(self._repository, name)
            self._found.forgotten.append(name)
            if backup is not None:
                marks.forget(backup.id)


def _judged(component: Component, failed: set[str], harmed: set[str]) -> Component:
    if component.name in failed:
        return replace(component, status="failed", error="an artifact was lost by damage")
    return replace(component, evidence=component.evidence or component.name in harmed)


def _artifact_at(backup: Sealed | None, path: str) -> str:
    """Return the path of the artifact that a path is, or is in, or that is lost with it."""
    if backup is None or not isinstance(backup.manifest, Manifest):
        return ""
    for stored in backup.manifest.artifacts:
        if f"{path}/".startswith(f"{stored.path}/") or f"{stored.path}/".startswith(f"{path}/"):
            return stored.path
    return ""


def _free_id(backup_id: str, taken: set[str]) -> str:
    new_id, number = f"{backup_id}-{REPAIRED}", 1
    while new_id in taken:
        number += 1
        new_id = f"{backup_id}-{REPAIRED}-{number}"
    return safe_backup_id(new_id)


# --- trees ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Folder:
    """A folder that is being looked at."""

    tree: bytes
    path: str
    coming: Iterator[tuple[Node, str]]
    kept: list[str] = field(default_factory=list)  # nodes, as JSON
    changed: bool = False
    inner: str = ""  # the node of the folder in it that is looked at now


class Trees:
    """Trees without what is lost of them. Those that lost nothing are read once for all.

    ``save`` stores a changed tree. Nodes stay the very JSON that they are: what other programs
    wrote into them, and we do not know, is kept; and restic rewrites no tree that it would have
    written otherwise.
    """

    def __init__(self, repository: Repository, save: Save) -> None:
        self._repository = repository
        self._index = repository.index
        self._save = save
        self._whole: set[bytes] = set()  # in which nothing is lost

    def repaired(self, root: bytes, lost: Lost) -> bytes | None:
        """Return the id of a tree without what is lost of it; None if all of it is."""
        try:
            folders = [self._folder(root, "")]
        except RepositoryDamaged as error:
            lost("", error.fields["reason"])
            return None
        while True:
            folder = folders[-1]
            inner = self._next(folder, lost)
            if inner is not None:
                folders.append(inner)
                continue
            tree = self._ended(folders.pop())
            if not folders:
                return tree
            around = folders[-1]
            around.kept.append(around.inner.replace(_subtree(folder.tree), _subtree(tree)))
            around.changed = around.changed or folder.changed

    def _next(self, folder: _Folder, lost: Lost) -> _Folder | None:
        """Look at nodes until one is a folder that must be looked at first."""
        for node, text in folder.coming:
            path = folder.path + node.name
            if node.subtree is not None and node.subtree not in self._whole:
                try:
                    inner = self._folder(node.subtree, f"{path}/")
                except RepositoryDamaged as error:
                    lost(path, error.fields["reason"])
                    folder.changed = True
                    continue
                folder.inner = text
                return inner
            gone = [id_ for id_ in node.content if not self._index.has(Kind.DATA, id_)]
            if gone:
                lost(path, f"{len(gone)} of {len(node.content)} pieces are lost")
                folder.changed = True
            else:
                folder.kept.append(text)
        return None

    def _folder(self, tree: bytes, path: str) -> _Folder:
        document = self._repository.blob(Kind.TREE, tree)
        with damage_in(self._repository.where, f"tree {tree.hex()}"):
            if path.count("/") >= DEEPEST:
                raise DamagedError(f"it lies deeper than {DEEPEST} folders")
            found = list(nodes.decode_texts(document))
            for node, text in found:
                if node.subtree is not None and text.count(_subtree(node.subtree)) != 1:
                    raise DamagedError(f"{node.name!r} is not written as restic writes folders")
        return _Folder(tree, path, iter(found))

    def _ended(self, folder: _Folder) -> bytes:
        if folder.changed:
            return self._save(nodes.joined(text.encode() for text in folder.kept))
        self._whole.add(folder.tree)
        return folder.tree


def _subtree(tree: bytes) -> str:
    return f'"subtree":"{tree.hex()}"'
