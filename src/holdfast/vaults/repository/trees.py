"""Writing a tree: entries come folder by folder, and become blobs from the bottom up.

Only folders that are not complete are held, and files that may get another name later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Protocol

from holdfast.model.artifact import Chunks, Entry, EntryKind

from . import nodes
from .earlier import Kept
from .gotext import EARLIEST, LATEST
from .holes import HoleWriter
from .nodes import Node

TYPES = {
    EntryKind.FILE: nodes.FILE,
    EntryKind.FOLDER: nodes.FOLDER,
    EntryKind.SYMLINK: nodes.SYMLINK,
    EntryKind.FIFO: nodes.FIFO,
}
ROOT = "."
DEVICE_BITS = 32
_NO_NAMES = {b"", b".", b".."}


class Blobs(Protocol):
    """Where content goes: a `Writer`."""

    def file(self, chunks: Chunks) -> tuple[list[bytes], int]:
        """Store a stream; returns the ids of its blobs, and its size."""

    def tree(self, document: bytes) -> bytes:
        """Store the JSON of a folder; returns its id."""


Known = Callable[[Entry], Kept | None]
Note = Callable[[str, str], None]


@dataclass(slots=True)
class _Folder:
    """A folder whose entries are still coming."""

    path: str
    node: Node
    entries: dict[bytes, bytes] = field(default_factory=dict)  # by the bytes of the name: JSON


class TreeWriter:
    """Turns the entries of one tree into nodes and blobs.

    ``origin`` tells the trees of one snapshot apart: the same inode in two of them may be two
    files. ``known`` may give what is kept of a file that need not be read, because it is as it was
    in an earlier snapshot. ``note`` hears of what the format cannot hold, by path and reason.
    """

    def __init__(self, blobs: Blobs, *, origin: int, known: Known, note: Note) -> None:
        self._blobs = blobs
        self._origin = origin % (1 << 30)
        self._known = known
        self._note = note
        self._holes = HoleWriter(blobs.file)
        self._open: list[_Folder] = []
        self._root: Node | None = None
        self._links: dict[str, tuple[Node, int]] = {}  # by path: files, and names yet to come
        self._numbers = count(1)  # of files whose inode is not known

    def add(self, entry: Entry, chunks: Chunks) -> None:
        """Take an entry and its content; a folder comes before what is in it, and right before.

        Raises ``ValueError`` for what no source may give: an entry outside the folders that are
        open, a name twice, content of another size than announced, a link to what did not come.
        """
        kept = self._known(entry) if entry.kind is EntryKind.FILE else None
        if kept is not None and entry.links == 1:  # nothing about it changed, or its ctime had
            folder, _slash, name = entry.path.rpartition("/")
            self._put(self._folder(folder, entry.path), name, kept.encoded)
            return
        node = self._node(entry, chunks, kept)
        if entry.path == ROOT and self._root is None:
            self._root = node
        else:
            self._keep(entry.path, node)
        if node.type == nodes.FOLDER:
            self._open.append(_Folder(entry.path, node))

    def finish(self, name: str) -> Node:
        """Return the tree's root as a node of this name; nothing may be added afterwards."""
        while self._open:
            self._close()
        if self._root is None:
            bug = f"the tree {name} has no root"
            raise ValueError(bug)
        return replace(self._root, name=name)

    def _keep(self, path: str, node: Node) -> None:
        folder = self._folder(path.rpartition("/")[0], path)
        if node.type != nodes.FOLDER:
            self._put(folder, node.name, nodes.encode_node(node))

    def _folder(self, wanted: str, path: str) -> _Folder:
        """Return the folder that ``path`` is in; those that are complete by then are stored."""
        while self._open and self._open[-1].path != (wanted or ROOT):
            self._close()
        if not self._open:
            bug = f"{path} does not come right after the folder that it is in"
            raise ValueError(bug)
        return self._open[-1]

    @staticmethod
    def _put(folder: _Folder, name: str, encoded: bytes) -> None:
        raw = name.encode("utf-8", "surrogateescape")
        if raw in folder.entries or raw in _NO_NAMES:
            bug = f"{folder.path} has two entries of the name {name}, or it is none"
            raise ValueError(bug)
        folder.entries[raw] = encoded

    def _close(self) -> None:
        """Store the innermost folder, and put it into the one around it."""
        folder = self._open.pop()
        document = nodes.joined(folder.entries[name] for name in sorted(folder.entries))
        folder.entries.clear()
        node = replace(folder.node, subtree=self._blobs.tree(document))
        if self._open:
            self._put(self._open[-1], node.name, nodes.encode_node(node))
        else:
            self._root = node

    def _node(self, entry: Entry, chunks: Chunks, kept: Kept | None) -> Node:
        name = entry.path.rpartition("/")[2]
        if entry.kind is EntryKind.HARDLINK:
            return replace(self._linked(entry), name=name)
        file = entry.kind is EntryKind.FILE
        content = kept.content if kept else self._content(entry, chunks) if file else ()
        inode, device, links = self._identity(entry) if file else (entry.inode, 0, 0)
        node = Node(
            name=name,
            type=TYPES[entry.kind],
            mode=entry.mode,
            mtime=self._time(entry, entry.mtime_ns),
            atime=entry.mtime_ns,  # as restic does: reading must not change what is stored
            ctime=entry.ctime_ns,
            uid=entry.uid,
            gid=entry.gid,
            user=entry.owner,
            group=entry.group,
            inode=inode,
            device_id=device,
            size=entry.size if file else 0,
            links=links or int(entry.kind is EntryKind.SYMLINK),
            target=entry.target if entry.kind is EntryKind.SYMLINK else "",
            xattrs=self._xattrs(entry) if entry.xattrs else (),
            content=content,
        )
        if links > 1:
            self._links[entry.path] = node, entry.links - 1
        return node

    def _identity(self, entry: Entry) -> tuple[int, int, int]:
        """Return what tells the file from others: inode, device and number of names.

        restic looks for other names of those files only that have two or more: a file whose number
        of names is not known has two.
        """
        if entry.links == 1:
            return entry.inode, 0, 1
        device = self._origin << DEVICE_BITS | entry.device % (1 << DEVICE_BITS)
        return entry.inode or next(self._numbers), device, max(2, entry.links)

    def _content(self, entry: Entry, chunks: Chunks) -> Sequence[bytes]:
        if entry.extents is None:
            ids, size = self._blobs.file(chunks)
        else:
            ids, size = self._holes.file(entry, chunks)
        if size != entry.size:
            bug = f"{entry.path} has not the {entry.size} bytes that it announced"
            raise ValueError(bug)
        return ids

    def _linked(self, entry: Entry) -> Node:
        found = self._links.get(entry.target)
        if found is None:
            bug = f"{entry.path} is a link to {entry.target}, which did not come before"
            raise ValueError(bug)
        node, names = found
        if names == 1:  # the last one: nothing will refer to it any more
            del self._links[entry.target]
        else:
            self._links[entry.target] = node, names - 1
        return node

    def _time(self, entry: Entry, nanoseconds: int) -> int:
        if not EARLIEST <= nanoseconds <= LATEST:
            self._note(
                entry.path, "its time is outside the years 1 to 9999, and kept as the nearest"
            )
        return nanoseconds

    def _xattrs(self, entry: Entry) -> tuple[tuple[str, bytes], ...]:
        kept = [(name, value) for name, value in entry.xattrs.items() if nodes.is_text(name)]
        if len(kept) < len(entry.xattrs):
            self._note(entry.path, "an attribute is not kept: its name is not UTF-8")
        return tuple(sorted(kept))


def assemble(tree: Callable[[bytes], bytes], found: Mapping[str, Node], around: Node) -> bytes:
    """Store folders around nodes that were made on their own; returns the id of the whole.

    ``found`` has the nodes by their paths; ``around`` says how the folders look.
    """
    inside: dict[str, dict[str, Node]] = {}
    held: list[Node] = []
    for path, node in found.items():
        first, _slash, rest = path.partition("/")
        if rest:
            inside.setdefault(first, {})[rest] = node
        else:
            held.append(replace(node, name=first))
    for name, below in inside.items():
        held.append(replace(around, name=name, subtree=assemble(tree, below, around)))
    held.sort(key=lambda node: node.name.encode("utf-8", "surrogateescape"))
    return tree(nodes.joined(map(nodes.encode_node, held)))
