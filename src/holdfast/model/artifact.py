"""What a source gives while it is held still: byte streams and file trees.

Both are read strictly in order and from the start; opening one again starts over, so that a retry
is safe. Contents travel in chunks of at most `CHUNK` bytes; whoever receives a chunk may keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath

CHUNK = 1 << 20
LARGE = 16 << 20  # bytes of a file that is worth threads of its own

Chunk = bytes | memoryview
Chunks = Iterator[Chunk]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a file that lie together, from ``offset`` of its content on.

    ``fill`` puts all of them, checked, into memory of just this size, or raises. It may be called
    in any thread.
    """

    offset: int
    size: int
    fill: Callable[[memoryview], None]


class Divided(Iterator[Chunk]):
    """The content of one file, which several threads may take at once, a stretch each.

    Who iterates over it gets all chunks in order, as of any content. Who takes ``stretches``
    instead gets every byte once; they are asked for one at a time, by whomever.
    """

    def __init__(self, chunks: Chunks, stretches: Iterator[Stretch]) -> None:
        """Give the same content in two ways, of which one is used."""
        self._chunks = chunks
        self.stretches = stretches

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def through(
        self, chunks: Callable[[Chunks], Chunks], stretch: Callable[[Stretch], Stretch]
    ) -> Divided:
        """Return the same content, where each way goes through what is given for it."""
        return Divided(chunks(self._chunks), map(stretch, self.stretches))


class EntryKind(StrEnum):
    """The kinds of file-system entries that are kept."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"  # a second name of a file that came earlier in the same tree
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, folder or link of a tree.

    ``path`` is relative, with ``/`` between its parts; undecodable bytes are kept by
    ``surrogateescape``. The root folder itself is the entry ``.``. A folder comes right before what
    is in it, and nothing else comes in between: a tree is walked in depth. ``size`` counts the
    holes of a sparse file too; ``extents`` are then the ranges (offset, length) that hold data, and
    only their bytes are in the content.
    """

    path: str
    kind: EntryKind
    mode: int = 0o644  # permission bits, set-id and sticky bits included
    mtime_ns: int = 0
    size: int = 0
    uid: int = 0
    gid: int = 0
    owner: str = ""
    group: str = ""
    target: str = ""  # of a symbolic link; or the earlier path of a hard link
    extents: tuple[tuple[int, int], ...] | None = None  # None: not sparse
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    device: int = 0  # with inode and ctime: what "unchanged" is judged by; not kept in archives
    inode: int = 0
    ctime_ns: int = 0
    links: int = field(default=0, compare=False)  # how many names a file has; 0: not known

    @property
    def stored_size(self) -> int:
        """How many bytes its content has: without the holes."""
        if self.kind is not EntryKind.FILE:
            return 0
        if self.extents is None:
            return self.size
        return sum(length for _offset, length in self.extents)


TreeItems = Iterator[tuple[Entry, Chunks]]
Known = Callable[[Entry], bool]


@dataclass(frozen=True, slots=True)
class Stream:
    """A named sequence of bytes, stored as one file under its own name.

    ``part`` tells several artifacts of one component apart. ``path`` is set where the content also
    lies in a file that nobody else writes to: in a sealed vault, or in a draft's workspace.
    ``disposable`` says that the vault may take that file for its own instead of copying it.
    ``compressible`` says that it is worth compressing for a vault that keeps it as a file: whoever
    reads it back gets what was given, and those who read the file itself see by its suffix that it
    is compressed.
    """

    name: str
    open: Callable[[], AbstractContextManager[Chunks]]
    size_hint: int = 0
    part: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    disposable: bool = False
    compressible: bool = False

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The suffix of the name with its dot; may be empty."""
        return PurePosixPath(self.name).suffix


@dataclass(frozen=True, slots=True)
class Tree:
    """A named file tree, read entry by entry; a vault chooses how to keep it.

    The chunks of an entry must be taken before the next entry is asked for; what was not taken is
    passed over. ``size_hint`` and ``entries_hint`` serve progress only.

    ``sparing``, where a source has it, opens the tree for somebody who knows some of its files
    already: a file of which the callable says so is not even opened, and comes without chunks,
    though its size is not 0, and without attributes. It is asked with all else that the file
    system says, and never of a file with several names, or with holes.

    ``apart`` says that the content of a file of `LARGE` bytes or more need not be taken before the
    next entry: it may be until the tree is closed, in other threads, and of several such files at
    once. It is how many threads are of use there, and such content is `Divided` where it has no
    holes; 0 where all must be taken in order.
    """

    name: str
    open: Callable[[], AbstractContextManager[TreeItems]]
    size_hint: int = 0
    entries_hint: int = 0
    part: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    sparing: Callable[[Known], AbstractContextManager[TreeItems]] | None = None
    apart: int = 0

    @property
    def stem(self) -> str:
        """The name itself: a folder has no suffix to take off."""
        return self.name


Artifact = Stream | Tree
