"""Objects as files in a folder: the fallback of an application without a bucket, or a copy to keep.

The paths of the files are those of the tree that a backup holds (``docs/formats/objects.md``):
most keys as they are. What describes objects lies in extended attributes, if there is such.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from holdfast.errors import SourceMissing
from holdfast.model.artifact import CHUNK, Chunks, Entry, EntryKind, TreeItems

from ._objects_keys import MORE, VERSIONS, NotAKeyError, key_of, path_of
from ._objects_tally import Tally
from ._walk import Exclude, walk

LABEL = "disk"


class DiskStore:
    """A folder of objects."""

    label = LABEL

    def __init__(self, component: str, folder: Path, exclude: Exclude, *, versions: bool) -> None:
        """Touch nothing."""
        self._component = component
        self.folder = folder
        self._exclude = exclude
        self.versions = versions

    @property
    def where(self) -> str:
        """Say which folder it is."""
        return str(self.folder)

    def exists(self) -> bool:
        """Tell whether there is such a folder."""
        return self.folder.is_dir()

    def demand(self) -> None:
        """Raise `SourceMissing` unless there is such a folder."""
        if not self.exists():
            raise SourceMissing(component=self._component, path=self.folder)

    def count(self, tally: Tally) -> None:
        """Count what is there, without reading it."""
        for _entry, _chunks in self._items(tally, content=False):
            pass

    def software(self) -> str:
        """Return nothing: there is no server."""
        return ""

    def sample(self) -> int:
        """Return how many bytes there are."""
        tally = Tally()
        self.count(tally)
        return tally.size

    def items(self, tally: Tally, made_ns: int) -> TreeItems:
        """Give the files as objects of a tree."""
        del made_ns  # the folders have times of their own
        return self._items(tally, content=True)

    def keys(self) -> Iterator[str]:
        """Give the keys of the objects."""
        for entry, _chunks in self._items(Tally(), content=False):
            if entry.kind is EntryKind.FILE and not _is_version(entry.path):
                yield key_of(entry.path)

    def _items(self, tally: Tally, *, content: bool) -> TreeItems:
        found = walk(
            self.folder,
            component=self._component,
            survey=Tally(),
            exclude=self._exclude,
            content=content,
        )
        with closing(found):
            for met, chunks in found:
                entry, data = met, chunks
                if met.kind is EntryKind.FOLDER:
                    yield replace(met, path=_folder_path(met.path)), iter(())
                    continue
                if met.kind is EntryKind.HARDLINK:
                    entry, data = self._linked(met, content=content)
                if entry.kind is not EntryKind.FILE:
                    tally.note(met.path, f"is a {met.kind}, which is no object, and is left out")
                    continue
                dense = replace(entry, path=_file_path(met.path), extents=None)
                yield dense, _dense(entry, data)
                self._tally(tally, dense)

    def _linked(self, met: Entry, *, content: bool) -> tuple[Entry, Chunks]:
        """Return a second name of a file as a file of its own."""
        path = self.folder / met.path
        return next(walk(path, component=self._component, survey=Tally(), content=content))

    def _tally(self, tally: Tally, entry: Entry) -> None:
        if _is_version(entry.path):
            if self.versions:
                tally.add_version()
        else:
            tally.add(entry.size, tagged="user.s3.tags" in entry.xattrs)


def _is_version(path: str) -> bool:
    return path.startswith(f"{VERSIONS}/")


def _file_path(path: str) -> str:
    """Return the path of a file in the tree: its own, unless that stands for no key."""
    if _is_version(path):
        return path
    try:
        key_of(path)
    except NotAKeyError:
        return path_of(path)
    return path


def _folder_path(path: str) -> str:
    if path in {".", VERSIONS}:
        return path
    begun = path.removesuffix(MORE)
    return path if _file_path(begun) == begun else path_of(path)


def _dense(entry: Entry, chunks: Chunks) -> Chunks:
    """Give a content with its holes: an object has none."""
    if entry.extents is None:
        yield from chunks
        return
    position = 0
    rest = b""
    for offset, length in (*entry.extents, (entry.size, 0)):
        while position < offset:
            hole = min(CHUNK, offset - position)
            yield bytes(hole)
            position += hole
        left = length
        while left:
            chunk = rest or bytes(next(chunks))
            part, rest = chunk[:left], chunk[left:]
            yield part
            left -= len(part)
        position += length
