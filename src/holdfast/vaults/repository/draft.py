"""A draft in a repository: blobs that nothing refers to, until a snapshot does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from holdfast.errors import RepositoryDamaged
from holdfast.model.artifact import Artifact, Entry, Stream, Tree, TreeItems
from holdfast.model.manifest import FILE_NAME, Form, Manifest, Stored, decode, encode
from holdfast.model.progress import Telling

from .._digest import told
from . import nodes
from .backups import tags_of
from .gotext import SECOND
from .nodes import Node
from .parent import Parent
from .repository import Repository
from .snapshots import Snapshot, new_snapshot, save_snapshot
from .trees import TreeWriter, assemble
from .walk import find
from .write import Writer

GUIDE = "RESTORE.md"
DOCUMENTS = frozenset({FILE_NAME, GUIDE})
ENCODING = "blobs"  # what is stored under a path is a node, which names the blobs of the content
FILE_MODE, FOLDER_MODE = 0o600, 0o700
MOST_NOTES = 20
PREFACE = """\
## First: get it out of the repository

It lies in a repository of restic's format; the program `restic`, version 0.14 or later, opens it
with the password of this vault. This restores everything into a new folder, with this file in it:

```text
export RESTIC_REPOSITORY=…   # the place of the vault
restic check --read-data
restic restore latest --tag backup:{id} --target {id}
cd {id}
```

A single file can be streamed: `restic dump --tag backup:{id} latest /path | …`. The commands below
are to be run in the folder that this file lies in.
"""


class RepositoryDraft:
    """A backup that nobody sees yet. See `holdfast.ports.Draft`.

    What is discarded, and what a draft leaves that is never sealed, are blobs that no snapshot
    needs: the next backup finds them, and pruning removes them.
    """

    def __init__(  # noqa: PLR0913 - all that a backup is made of
        self,
        repository: Repository,
        writer: Writer,
        backup_id: str,
        instant: datetime,
        *,
        workspace: Path,
        earlier: Sequence[tuple[Snapshot, Manifest]],
        program: str,
        still_ours: Callable[[], None],
    ) -> None:
        """Compare files with those of ``earlier`` backups, the newest of which comes first.

        ``still_ours`` raises when others may have taken the repository from us.
        """
        self.workspace = workspace
        self._repository = repository
        self._writer = writer
        self._id = backup_id
        self._instant = instant
        self._earlier = earlier
        self._program = program
        self._still_ours = still_ours
        self._nodes: dict[str, Node] = {}
        self._owners: dict[str, str] = {}
        self._notes: list[str] = []
        self._lock = threading.Lock()

    def notes(self) -> list[str]:
        """What could not be kept just as it is."""
        with self._lock:
            more = len(self._notes) - MOST_NOTES
            return [*self._notes[:MOST_NOTES], *([f"and {more} more"] if more > 0 else [])]

    # --- artifacts ---

    def put(self, component: str, artifact: Artifact, progress: Callable[[int], None]) -> Stored:
        """Store the content of an artifact; what is stored already is only referred to."""
        path = self._claimed(component, artifact)
        try:
            if isinstance(artifact, Stream):
                return self._put_stream(component, artifact, path, progress)
            return self._put_tree(component, artifact, path, progress)
        except BaseException:
            self._drop(path)
            raise

    def discard(self, component: str) -> None:
        """Drop what was put for a component."""
        for path in [path for path, owner in self._owners.items() if owner == component]:
            self._drop(path)

    def link(self, stored: Stored) -> str:
        """Return the path of an artifact from the folder that ``RESTORE.md`` will lie in."""
        return stored.path

    def preface(self) -> str:
        """Say how restic gets the files that are named below."""
        return PREFACE.format(id=self._id)

    def _claimed(self, component: str, artifact: Artifact) -> str:
        """Return where an artifact lies in the snapshot, and let nothing else lie there.

        A component's only tree is the component's folder itself, where it has the same name.
        """
        inside = f"{component}/{artifact.name}"
        same = isinstance(artifact, Tree) and artifact.name == component
        with self._lock:
            for path in (component, inside) if same else (inside,):
                if not any(_collide(path, other) for other in (*self._owners, *DOCUMENTS)):
                    self._owners[path] = component
                    return path
        bug = f"{component} gives two artifacts that would lie at {inside}"
        raise ValueError(bug)

    def _drop(self, path: str) -> None:
        with self._lock:
            self._owners.pop(path, None)
            self._nodes.pop(path, None)

    def _put_stream(
        self, component: str, stream: Stream, path: str, progress: Callable[[int], None]
    ) -> Stored:
        with stream.open() as chunks:
            ids, size = self._writer.file(told(chunks, progress))
        node = self._document_node(path, ids, size)
        self._nodes[path] = node
        return Stored(
            component=component,
            name=stream.name,
            form=Form.STREAM,
            path=path,
            size=size,
            sha256=digest_of(node),
            encoding=ENCODING,
            content_size=size,
            part=stream.part,
            labels=dict(stream.labels),
        )

    def _put_tree(
        self, component: str, tree: Tree, path: str, progress: Callable[[int], None]
    ) -> Stored:
        parent = self._parent_of(component, tree)
        known = parent.kept if parent is not None else _nothing_known
        origin = int.from_bytes(sha256(path.encode("utf-8", "surrogateescape")).digest()[:4], "big")
        writer = TreeWriter(self._writer, origin=origin, known=known, note=self._note)
        size = entries = 0
        telling = Telling(progress)
        with _opened(tree, parent) as items:
            for entry, chunks in items:
                before, stored_size = telling.size, entry.stored_size
                writer.add(entry, telling.chunks(chunks))
                telling.add(stored_size - (telling.size - before))  # what was not read
                size += stored_size
                entries += 1
        telling.tell()
        node = writer.finish(path.rpartition("/")[2])
        self._nodes[path] = node
        return Stored(
            component=component,
            name=tree.name,
            form=Form.TREE,
            path=path,
            size=size,
            sha256=digest_of(node),
            encoding=ENCODING,
            content_size=size,
            entries=entries,
            part=tree.part,
            labels=dict(tree.labels),
        )

    def _parent_of(self, component: str, tree: Tree) -> Parent | None:
        """Return the same tree in the newest backup that has it: some have other components."""
        for snapshot, manifest in self._earlier:
            for stored in manifest.of(component):
                if (stored.form, stored.name, stored.part) == (Form.TREE, tree.name, tree.part):
                    node = self._node_of(snapshot, stored.path)
                    if node is not None and node.subtree is not None:
                        holds = self._writer.holds
                        return Parent(self._repository, node.subtree, snapshot.time, holds)
        return None

    def _node_of(self, snapshot: Snapshot, path: str) -> Node | None:
        try:
            return find(self._repository, snapshot.tree, path)
        except RepositoryDamaged:
            return None  # an earlier backup is damaged: that makes no other impossible

    def _note(self, path: str, reason: str) -> None:
        with self._lock:
            self._notes.append(f"{path}: {reason}")

    # --- sealing ---

    def seal(self, manifest: Manifest, guide: str) -> None:
        """Make the backup exist: the snapshot comes last, when all it needs is stored."""
        put = {stored.path for stored in manifest.artifacts}
        if manifest.id != self._id or put != self._nodes.keys():
            bug = f"the manifest of {manifest.id} does not list what was put into this draft"
            raise ValueError(bug)
        metadata = encode(manifest)
        if encode(decode(metadata, manifest.id)) != metadata:
            bug = f"the manifest of {manifest.id} is not the same when it is read back"
            raise ValueError(bug)
        tree = self._assembled({FILE_NAME: metadata, GUIDE: guide.encode()})
        self._writer.finish()
        self._still_ours()
        paths = sorted({f"/{stored.component}" for stored in manifest.artifacts})
        tags = tags_of(manifest.id, manifest.stack)
        snapshot = new_snapshot(self._instant, tree, paths, tags, self._program)
        save_snapshot(self._repository, snapshot)

    def _assembled(self, documents: Mapping[str, bytes]) -> bytes:
        found = dict(self._nodes)
        for name, text in documents.items():
            ids, size = self._writer.file(iter((text,)))
            found[name] = self._document_node(name, ids, size)
        now = self._now
        around = Node(
            name="",
            type=nodes.FOLDER,
            mode=FOLDER_MODE,
            mtime=now,
            atime=now,
            ctime=now,
            uid=os.geteuid(),
            gid=os.getegid(),
        )
        return assemble(self._writer.tree, found, around)

    def _document_node(self, path: str, ids: list[bytes], size: int) -> Node:
        now = self._now
        return Node(
            name=path.rpartition("/")[2],
            type=nodes.FILE,
            mode=FILE_MODE,
            mtime=now,
            atime=now,
            ctime=now,
            uid=os.geteuid(),
            gid=os.getegid(),
            size=size,
            content=ids,
            links=1,
        )

    @property
    def _now(self) -> int:
        return int(self._instant.timestamp()) * SECOND + self._instant.microsecond * 1000


def digest_of(node: Node) -> str:
    """Return what swears to an artifact: the id of its tree, or the SHA-256 of its blobs' ids."""
    if node.subtree is not None:
        return node.subtree.hex()
    return sha256(b"".join(node.content)).hexdigest()


def _opened(tree: Tree, parent: Parent | None) -> AbstractContextManager[TreeItems]:
    """Open a tree, without reading what did not change, where the source can do that."""
    if parent is None or tree.sparing is None:
        return tree.open()
    return tree.sparing(parent.knows)


def _nothing_known(_entry: Entry) -> None:
    """Know of no earlier backup."""


def _collide(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
