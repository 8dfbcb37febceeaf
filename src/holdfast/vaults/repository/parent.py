"""The earlier backup that files are compared with, so that what did not change is not read again.

A file counts as unchanged if its size, both its times, its inode and its number of names are what
they were, as restic has it, and if its last change came before that backup began: what changes
while it is read, or a moment before, may change once more without its times showing it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from holdfast.errors import RepositoryDamaged
from holdfast.model.artifact import Entry, EntryKind

from .blobs import Kind
from .damage import damage_in
from .earlier import Folder, Kept
from .gotext import SECOND
from .repository import Repository

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
        self._folders: list[tuple[str, Folder | None]] = []  # from the root inwards
        self._asked: Entry | None = None
        self._answer: Kept | None = None

    def knows(self, entry: Entry) -> bool:
        """Tell whether a file need not be read."""
        return self.kept(entry) is not None

    def kept(self, entry: Entry) -> Kept | None:
        """Return what is known of a file that need not be read."""
        if entry is not self._asked:  # who is told that it is known asks at once for what is known
            self._asked, self._answer = entry, self._looked_up(entry)
        return self._answer

    def _looked_up(self, entry: Entry) -> Kept | None:
        if entry.kind is not EntryKind.FILE or not entry.inode or not entry.ctime_ns:
            return None
        if max(entry.ctime_ns, entry.mtime_ns) >= self._begun:
            return None
        above, _slash, name = entry.path.rpartition("/")
        folder = self._folder(above)
        kept = None if folder is None else folder.same(name, entry)
        return kept if kept is not None and self._holds(kept.content) else None

    def _folder(self, wanted: str) -> Folder | None:
        while self._folders and not _within(wanted, self._folders[-1][0]):
            self._folders.pop()
        if not self._folders:
            self._folders.append(("", self._load(self._tree)))
        path, found = self._folders[-1]
        while path != wanted:
            name = wanted[len(path) :].lstrip("/").partition("/")[0]
            subtree = None if found is None else found.subtree(name)
            path = f"{path}/{name}" if path else name
            found = None if subtree is None else self._load(subtree)
            self._folders.append((path, found))
        return found

    def _load(self, tree: bytes) -> Folder | None:
        """Return a folder; None where it cannot be read: then all in it is read anew."""
        try:
            document = self._repository.blob(Kind.TREE, tree)
            with damage_in(self._repository.where, f"tree {tree.hex()}"):
                return Folder(document)
        except RepositoryDamaged:
            return None


def _within(folder: str, path: str) -> bool:
    return not path or folder == path or folder.startswith(f"{path}/")
