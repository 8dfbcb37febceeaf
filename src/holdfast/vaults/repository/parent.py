"""The earlier backup that files are compared with, so that what did not change is not read again.

A file counts as unchanged if its size, both its times, its inode and its number of names are what
they were, as restic has it, and if its last change came before that backup began: what changes
while it is read, or a moment before, may change once more without its times showing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.errors import RepositoryDamaged
from holdfast.model.artifact import Entry, EntryKind

from . import nodes
from .gotext import SECOND
from .nodes import Node
from .repository import Repository
from .walk import nodes_in

TICK = SECOND // 10  # no file system's clock is coarser than this, among those that have inodes


class Parent:
    """The files of one tree of an earlier snapshot.

    Asked for the entries of a tree in its order; holds the folders above one of them.
    """

    def __init__(
        self,
        repository: Repository,
        tree: bytes,
        begun: int,
        holds: Callable[[Iterable[bytes]], bool],
    ) -> None:
        """Compare with ``tree``, whose reading began at ``begun``, in nanoseconds.

        ``holds`` tells whether all of some blobs are still stored.
        """
        self._repository = repository
        self._begun = begun - TICK
        self._holds = holds
        self._tree = tree
        self._folders: list[tuple[str, dict[str, Node]]] = []  # from the root inwards

    def knows(self, entry: Entry) -> bool:
        """Tell whether a file need not be read."""
        return self.node(entry) is not None

    def node(self, entry: Entry) -> Node | None:
        """Return the node of a file that need not be read."""
        if entry.kind is not EntryKind.FILE or not entry.inode or not entry.ctime_ns:
            return None
        folder, _slash, name = entry.path.rpartition("/")
        node = self._nodes(folder).get(name)
        if node is None or not self._unchanged(entry, node) or not self._holds(node.content):
            return None
        return node

    def _unchanged(self, entry: Entry, node: Node) -> bool:
        return (
            node.type == nodes.FILE
            and node.size == entry.size
            and node.mtime == entry.mtime_ns
            and node.ctime == entry.ctime_ns
            and node.inode == entry.inode
            and max(entry.ctime_ns, entry.mtime_ns) < self._begun
        )

    def _nodes(self, folder: str) -> dict[str, Node]:
        while self._folders and not _within(folder, self._folders[-1][0]):
            self._folders.pop()
        if not self._folders:
            self._folders.append(("", self._load(self._tree)))
        path, found = self._folders[-1]
        while path != folder:
            name = folder[len(path) :].lstrip("/").partition("/")[0]
            node = found.get(name)
            subtree = node.subtree if node is not None else None
            path = f"{path}/{name}" if path else name
            found = self._load(subtree) if subtree is not None else {}
            self._folders.append((path, found))
        return found

    def _load(self, tree: bytes) -> dict[str, Node]:
        """Return the nodes of a folder; none where they cannot be read: then all is read anew."""
        try:
            return {node.name: node for node in nodes_in(self._repository, tree)}
        except RepositoryDamaged:
            return {}


def _within(folder: str, path: str) -> bool:
    return not path or folder == path or folder.startswith(f"{path}/")
