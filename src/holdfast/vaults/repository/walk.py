"""Reading trees: the nodes of a snapshot as entries, each folder's own before what is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from holdfast.model.artifact import Entry, EntryKind

from . import nodes
from .blobs import Kind
from .damage import DamagedError, damage_in
from .holes import extents_of
from .index import Places
from .nodes import Node
from .repository import Repository
from .trees import DEVICE_BITS, ROOT

DEEPEST = 2000  # folders in folders; a path of Linux has no more than 2048 parts
_KINDS = {
    nodes.FILE: EntryKind.FILE,
    nodes.FOLDER: EntryKind.FOLDER,
    nodes.SYMLINK: EntryKind.SYMLINK,
    nodes.FIFO: EntryKind.FIFO,
}
Note = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """An entry and where its content lies: for each blob the places it may be read from."""

    entry: Entry
    content: list[Places]


def pass_over(_path: str, _reason: str) -> None:
    """Hear of what restic keeps and we never write, where nobody needs to be told."""


def nodes_in(repository: Repository, tree: bytes) -> Iterator[Node]:
    """Give the nodes of one folder.

    Raises:
        RepositoryDamaged: its blob is missing or damaged, or is not a tree.

    """
    document = repository.blob(Kind.TREE, tree)
    with damage_in(repository.where, f"tree {tree.hex()}"):
        yield from nodes.decode_tree(document)


def find(repository: Repository, tree: bytes, path: str) -> Node | None:
    """Return the node at a path below a tree, if there is one."""
    *folders, last = path.split("/")
    for name in folders:
        folder = _named(repository, tree, name)
        if folder is None or folder.subtree is None:
            return None
        tree = folder.subtree
    return _named(repository, tree, last)


def _named(repository: Repository, tree: bytes, name: str) -> Node | None:
    return next((node for node in nodes_in(repository, tree) if node.name == name), None)


def walk(repository: Repository, root: Node, note: Note) -> Iterator[Found]:
    """Give a node and everything below it; the node itself has the path ``.``.

    ``note`` hears of what an entry cannot be, by path and reason: sockets and devices, that restic
    keeps.

    Raises:
        RepositoryDamaged: a tree is missing or damaged, or contradicts itself.

    """
    reading = _Reading(repository, note)
    yield from reading.one(root, ROOT)
    waiting = [("", reading.below(root))]
    while waiting:
        prefix, coming = waiting[-1]
        node = next(coming, None)
        if node is None:
            waiting.pop()
            continue
        path = prefix + node.name
        yield from reading.one(node, path)
        if node.type == nodes.FOLDER:
            if len(waiting) >= DEEPEST:
                with damage_in(repository.where, f"tree {_hex(node.subtree)}"):
                    raise DamagedError(f"it lies deeper than {DEEPEST} folders")
            waiting.append((f"{path}/", reading.below(node)))


class _Reading:
    """One reading of one tree."""

    def __init__(self, repository: Repository, note: Note) -> None:
        self._repository = repository
        self._note = note
        self._links: dict[tuple[int, int], tuple[str, bytes, int]] = {}

    def below(self, node: Node) -> Iterator[Node]:
        """Give what is in a folder, other folders last: its large files can be begun then."""
        folders = []
        for found in () if node.subtree is None else nodes_in(self._repository, node.subtree):
            if found.type == nodes.FOLDER:
                folders.append(found)
            else:
                yield found
        yield from folders

    def one(self, node: Node, path: str) -> Iterator[Found]:
        if node.type in nodes.OTHERS:
            self._note(path, f"is a {node.type}, which is not restored")
            return
        if node.type != nodes.FILE:
            yield Found(_entry(node, path), [])
            return
        earlier = self._earlier(node, path)
        if earlier:
            yield Found(_entry(node, path, kind=EntryKind.HARDLINK, target=earlier), [])
            return
        content = [self._repository.places(Kind.DATA, id_) for id_ in node.content]
        sizes = [places[0].blob.size for places in content]
        with damage_in(self._repository.where, path):
            if sum(sizes) != node.size:
                raise DamagedError(f"it has {sum(sizes)} bytes of the {node.size} of its node")
        extents = extents_of(list(zip(node.content, sizes, strict=True)))
        if extents is not None:
            content = _only_data(content, sizes, extents)
        yield Found(_entry(node, path, extents=extents), content)

    def _earlier(self, node: Node, path: str) -> str:
        """Return an earlier path of the same file, if there was one.

        Of the same file are names of one inode and one device, and of the same content: what came
        and went while restic looked must not become one file.
        """
        if node.links <= 1:
            return ""
        key, content = (node.inode, node.device_id), sha256(b"".join(node.content)).digest()
        found = self._links.get(key)
        if found is None:
            self._links[key] = path, content, node.links - 1
            return ""
        first, same, names = found
        if same != content:
            return ""
        if names == 1:
            del self._links[key]
        else:
            self._links[key] = first, same, names - 1
        return first


def _entry(
    node: Node,
    path: str,
    *,
    kind: EntryKind | None = None,
    target: str = "",
    extents: tuple[tuple[int, int], ...] | None = None,
) -> Entry:
    kind = kind or _KINDS[node.type]
    return Entry(
        path=path,
        kind=kind,
        mode=node.mode,
        mtime_ns=node.mtime,
        size=node.size if kind is EntryKind.FILE else 0,
        uid=node.uid,
        gid=node.gid,
        owner=node.user,
        group=node.group,
        target=target or node.target,
        extents=extents,
        xattrs=dict(node.xattrs) if kind is not EntryKind.HARDLINK else {},
        device=node.device_id % (1 << DEVICE_BITS),
        inode=node.inode,
        ctime_ns=node.ctime,
        links=node.links,
    )


def _only_data(
    content: list[Places], sizes: list[int], extents: tuple[tuple[int, int], ...]
) -> list[Places]:
    """Leave out the blobs that lie in holes: extents begin and end where blobs do."""
    ranges = iter(extents)
    start, length = next(ranges, (0, 0))
    kept, position = [], 0
    for places, size in zip(content, sizes, strict=True):
        if position >= start + length:
            start, length = next(ranges, (start, length))
        if start <= position < start + length:
            kept.append(places)
        position += size
    return kept


def _hex(id_: bytes | None) -> str:
    return id_.hex() if id_ else ""
