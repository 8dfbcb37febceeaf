"""Reading a folder entry by entry, while others may write to it.

No link below the root is followed, also not one that is slipped in while we read: see `_folders`.
What changes under our hands is read again where it is small, and noted where it is not; an entry's
content always has the size that the entry says. What cannot be kept is noted, never passed over
in silence.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import SourceMissing, SourceUnreadable
from holdfast.model.artifact import CHUNK, Chunk, Chunks, Entry, EntryKind, Known

from ._extents import data_extents
from ._folders import Descent
from ._owners import People
from ._survey import Survey
from ._xattrs import AttributeReader

Exclude = Callable[[str, bool], bool]
Items = Generator[tuple[Entry, Chunks], None, None]

READINGS = 3  # of a small file that keeps changing
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_ROOT = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_UNKEPT = {stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


def walk(  # noqa: PLR0913 - what to read, and how
    root: Path,
    *,
    component: str,
    survey: Survey,
    exclude: Exclude | None = None,
    at: str = ".",
    content: bool = True,
    known: Known | None = None,
) -> Items:
    """Give the entries of a folder or of a single file, the folder itself first.

    ``at`` is the path that the root gets in the tree. A symbolic link that is the root itself is
    followed. Without ``content`` files are not opened, only counted; nor are those that ``known``
    tells of, as `Tree.sparing` has it.

    Raises:
        SourceMissing: there is nothing at ``root``.
        SourceUnreadable: something below may not be read, or the disk fails.

    """
    walker = _Walker(root, component, survey, exclude, content=content, known=known)
    for entry, chunks in walker.items(at):
        yield entry, chunks
        survey.count(entry)


class _Listed(NamedTuple):
    name: str
    folder: bool
    file: bool


class _Walker:
    """One reading of one root."""

    def __init__(  # noqa: PLR0913 - what to read, and how
        self,
        root: Path,
        component: str,
        survey: Survey,
        exclude: Exclude | None,
        *,
        content: bool,
        known: Known | None,
    ) -> None:
        self._root = root
        self._component = component
        self._survey = survey
        self._exclude = exclude
        self._content = content
        self._known = known
        self._at = "."
        self._names: dict[tuple[int, int], str] = {}  # files with several names: where they came
        self._attributes = AttributeReader(survey)
        self._people = People()

    def items(self, at: str) -> Items:
        self._at = at
        fd = self._open_root()
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            yield from self._tree(fd, at)
        else:
            try:
                yield from self._opened_file(fd, at)
            finally:
                os.close(fd)

    def _open_root(self) -> int:
        try:
            return os.open(self._root, _OPEN_ROOT)
        except FileNotFoundError as error:
            raise SourceMissing(component=self._component, path=self._root) from error
        except OSError as error:
            raise self._unreadable(self._at, error) from error

    def _tree(self, root: int, at: str) -> Items:
        """Walk depth first, with the names yet to come of each folder on a stack."""
        with Descent(root) as here:
            before = self._folder(here.fd, at)
            yield before, iter(())
            waiting = [(before, self._listed(here.fd, at))]
            while waiting:
                before, names = waiting[-1]
                folder = before.path
                listed = next(names, None)
                if listed is None:
                    self._compare(here, before)
                    waiting.pop()
                    here.leave()
                    continue
                path = listed.name if folder == "." else f"{folder}/{listed.name}"
                if self._exclude is not None and self._exclude(path, listed.folder):
                    continue
                above = self._above(here, folder)
                if above is None:  # moved away meanwhile: what it held can no longer be reached
                    waiting[-1] = before, iter(())
                elif not listed.folder:
                    yield from self._item(above, listed, path)
                elif self._entered(here, listed.name, path):
                    below = self._folder(here.fd, path)
                    yield below, iter(())
                    waiting.append((below, self._listed(here.fd, path)))

    def _compare(self, here: Descent, before: Entry) -> None:
        """Notice names that came or went: one may have moved from what was read to what was not."""
        above = self._above(here, before.path)
        if above is not None and os.fstat(above).st_mtime_ns != before.mtime_ns:
            self._survey.change(before.path, "names in it came or went while it was read")

    def _above(self, here: Descent, folder: str) -> int | None:
        try:
            return here.fd
        except (FileNotFoundError, NotADirectoryError):
            self._survey.change(folder, "moved away while it was read; not all of it was kept")
            return None
        except OSError as error:
            raise self._unreadable(folder, error) from error

    def _entered(self, here: Descent, name: str, path: str) -> bool:
        try:
            here.enter(name)
        except (FileNotFoundError, NotADirectoryError):
            self._survey.change(path, "vanished while the folder was read")
            return False
        except OSError as error:
            raise self._unreadable(path, error) from error
        return True

    def _listed(self, fd: int, path: str) -> Iterator[_Listed]:
        """Return the names in a folder, sorted, so that two readings agree on the order."""
        try:
            with os.scandir(fd) as found:
                names = [
                    _Listed(
                        item.name,
                        item.is_dir(follow_symlinks=False),
                        item.is_file(follow_symlinks=False),
                    )
                    for item in found
                ]
        except OSError as error:
            raise self._unreadable(path, error) from error
        names.sort()
        return iter(names)

    def _folder(self, fd: int, path: str) -> Entry:
        status = os.fstat(fd)
        return self._entry(
            path, EntryKind.FOLDER, status, xattrs=self._attributes.of(fd, status, path)
        )

    def _item(self, above: int, listed: _Listed, path: str) -> Items:
        """Give one entry that is not a folder, unless it vanished."""
        if not (listed.file and self._content):
            yield from self._looked_at(above, listed.name, path)
            return
        if entry := self._spared(above, listed.name, path):
            yield entry, iter(())
            return
        fd = self._open_file(above, listed.name, path)
        if fd is None:
            return
        try:
            yield from self._opened_file(fd, path)
        finally:
            os.close(fd)

    def _spared(self, above: int, name: str, path: str) -> Entry | None:
        """Return a file that need not be opened, because whoever takes the tree knows it."""
        if self._known is None:
            return None
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except OSError:
            return None  # opening it will tell why
        whole = status.st_nlink == 1 and status.st_blocks * 512 >= status.st_size
        if not (whole and stat.S_ISREG(status.st_mode)):
            return None
        entry = self._entry(path, EntryKind.FILE, status)
        return entry if self._known(entry) else None

    def _open_file(self, above: int, name: str, path: str) -> int | None:
        try:
            return os.open(name, _OPEN_FILE, dir_fd=above)
        except FileNotFoundError:
            self._survey.change(path, "vanished while the folder was read")
        except OSError as error:
            if not self._still_a_file(above, name):
                self._survey.change(path, "became something else while the folder was read")
            else:
                raise self._unreadable(path, error) from error
        return None

    @staticmethod
    def _still_a_file(above: int, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def _looked_at(self, above: int, name: str, path: str) -> Items:
        """Give a link, a pipe, or (where contents are not wanted) a file, by its status alone."""
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFLNK:
                target = os.readlink(name, dir_fd=above)
                yield self._entry(path, EntryKind.SYMLINK, status, target=target), iter(())
                return
        except FileNotFoundError:
            self._survey.change(path, "vanished while the folder was read")
            return
        except OSError as error:
            raise self._unreadable(path, error) from error
        if kind == stat.S_IFREG and not self._content:
            yield self._earlier(status, path) or self._entry(path, EntryKind.FILE, status), iter(())
        elif kind == stat.S_IFIFO:
            yield self._entry(path, EntryKind.FIFO, status), iter(())
        else:
            self._unkept(status, path)

    def _opened_file(self, fd: int, path: str) -> Items:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            self._unkept(status, path)
            return
        if earlier := self._earlier(status, path):
            yield earlier, iter(())
            return
        xattrs = self._attributes.of(fd, status, path)
        if status.st_size <= CHUNK and status.st_blocks * 512 >= status.st_size:
            status, data = self._whole(fd, status, path)
            entry = self._entry(path, EntryKind.FILE, status, size=len(data), xattrs=xattrs)
            yield entry, iter((data,) if data else ())
        else:
            extents = self._extents(fd, status, path)
            entry = self._entry(path, EntryKind.FILE, status, extents=extents, xattrs=xattrs)
            yield entry, self._streamed(fd, status, entry)

    def _earlier(self, status: os.stat_result, path: str) -> Entry | None:
        """Return a hard link if the same file came under another name before."""
        if status.st_nlink == 1:
            return None
        first = self._names.setdefault((status.st_dev, status.st_ino), path)
        if first == path:
            return None
        return self._entry(path, EntryKind.HARDLINK, status, size=0, target=first)

    def _whole(self, fd: int, status: os.stat_result, path: str) -> tuple[os.stat_result, bytes]:
        """Read a small file at once, and again if it changed meanwhile."""
        for _reading in range(READINGS):
            data = self._pread(fd, status.st_size + 1, 0, path)
            after = os.fstat(fd)
            if len(data) == status.st_size and _same(status, after):
                return status, data
            status = after
        self._survey.change(path, "changed each time it was read")
        return status, data[:CHUNK]

    def _extents(
        self, fd: int, status: os.stat_result, path: str
    ) -> tuple[tuple[int, int], ...] | None:
        if status.st_blocks * 512 >= status.st_size:
            return None
        try:
            return data_extents(fd, status.st_size)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _streamed(self, fd: int, before: os.stat_result, entry: Entry) -> Chunks:
        """Read a large file once, exactly as many bytes as its entry says."""
        ranges = ((0, entry.size),) if entry.extents is None else entry.extents
        missing = 0
        for start, length in ranges:
            offset, end = start, start + length
            while offset < end:
                wanted = min(CHUNK, end - offset)
                data: Chunk = self._pread(fd, wanted, offset, entry.path)
                if not data:
                    data = bytes(wanted)
                    missing += wanted
                offset += len(data)
                yield data
        if missing:
            self._survey.change(
                entry.path, f"shrank while it was read; the last {missing} bytes are zeros"
            )
        elif not _same(before, os.fstat(fd)):
            self._survey.change(entry.path, "changed while it was read")

    def _pread(self, fd: int, size: int, offset: int, path: str) -> bytes:
        try:
            return os.pread(fd, size, offset)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unkept(self, status: os.stat_result, path: str) -> None:
        what = _UNKEPT.get(stat.S_IFMT(status.st_mode))
        if what is None:  # it was a file when the folder was listed, and is a folder or so now
            self._survey.change(path, "became something else while the folder was read")
        else:
            self._survey.note(path, f"is {what}, which cannot be kept")

    def _unreadable(self, path: str, error: OSError) -> SourceUnreadable:
        below = path[len(self._at) :].lstrip("/") if self._at != "." else path
        place = self._root / below if below and below != "." else self._root
        return SourceUnreadable(
            component=self._component, path=place, reason=error.strerror or error
        )

    def _entry(  # noqa: PLR0913 - one parameter for each thing that only some kinds have
        self,
        path: str,
        kind: EntryKind,
        status: os.stat_result,
        *,
        size: int | None = None,
        target: str = "",
        extents: tuple[tuple[int, int], ...] | None = None,
        xattrs: dict[str, bytes] | None = None,
    ) -> Entry:
        if size is None:
            size = status.st_size if kind is EntryKind.FILE else 0
        return Entry(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            size=size,
            uid=status.st_uid,
            gid=status.st_gid,
            owner=self._people.user(status.st_uid),
            group=self._people.group(status.st_gid),
            target=target,
            extents=extents,
            xattrs=xattrs or {},
            device=status.st_dev,
            inode=status.st_ino,
            ctime_ns=status.st_ctime_ns,
            links=status.st_nlink,
        )


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
