"""Writing a tree below a folder, trusting none of its entries.

Every folder is opened inside the one above it and no link is followed (see `_folders`); every file,
folder and link is created anew, never opened. So whatever an archive says, nothing outside the
root is written, and nothing that was there before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.errors import HoldfastError, NoSpace, TargetUnfit, TreeUnsafe, UnsafeName
from holdfast.model.artifact import LARGE, Chunk, Chunks, Divided, Entry, EntryKind, Stretch
from holdfast.model.names import safe_path

from ._aside import Aside, Work
from ._folders import OPEN_FOLDER, Descent
from ._large import LargeFile, Rooms, open_straight
from ._mounts import takes_direct
from ._owners import Owners
from ._survey import Survey
from ._sync import Disk, begin_writing

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID = stat.S_ISUID | stat.S_ISGID
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MISFIT = {errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}
_ROOT = "."
_PRIVATE = 0o600
_WAITING = 16  # large files that are open and wait for their content
_MANY = 8 << 20  # bytes of a file that the system begins to write to its disk together


class Planter:
    """Creates the entries of one tree, each after its folder, in whatever order otherwise.

    ``root`` must be new or an empty folder; if the first entry is a file, it becomes that file.
    Everything is private to this user until its folder is complete. `finish` makes it durable.

    With ``apart``, as `Tree` has it, large files get their content in as many threads, while what
    comes after them is created. What fails there is raised by a later `add`, or by `finish`.
    """

    def __init__(self, root: Path, component: str, *, apart: int = 0) -> None:
        self._root = root
        self._component = component
        self._survey = Survey()
        self._owners = Owners(self._survey)
        self._here: Descent | None = None
        self._open: list[Entry] = []  # for each folder of `_here` what it gets when it is left
        self._unseen = False  # whether nobody else can look into the root yet
        self._aside = Aside(_WAITING, apart) if apart else None
        self._rooms = Rooms()
        self._is_direct = False  # whether large files are written past the cache
        self._ending = ExitStack()
        self._disk: Disk | None = None  # from before the first write

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._aside is not None:
            self._aside.close()
        if self._here is not None:
            self._here.close()
        self._ending.close()

    @property
    def notes(self) -> list[str]:
        """What could not be kept here, one line each."""
        return [*self._survey.facts().notes]

    def add(self, entry: Entry, chunks: Chunks) -> None:
        """Create one entry with its content.

        Raises:
            TreeUnsafe: it leads out of the root, comes twice, or does not fit the others.
            NoSpace: the file system is full.
            TargetUnfit: the file system refuses it for another reason.

        """
        if self._aside is not None:
            self._aside.check()
        if self._here is None:
            self._begin(entry, chunks)
        else:
            path = self._safe(entry.path)
            folder, _slash, name = path.rpartition("/")
            with self._foreseen(path):
                self._go_to(folder)
                self._create(self._here, name, entry, chunks)

    def finish(self, *, durable: bool = True) -> None:
        """Give the folders their times and permissions.

        With ``durable`` this waits until all of it is on the disk; without, the caller must.
        """
        if self._here is None or self._disk is None:
            raise self._unsafe(_ROOT, "it is empty: not even its folder is in it")
        if self._aside is not None:
            if self._aside.busy:  # the disk can take the others meanwhile
                with self._foreseen(_ROOT):
                    self._disk.sync()
            self._aside.finish()
        with self._foreseen(_ROOT):
            while self._open:
                self._leave()
            if durable:
                self._disk.sync()

    def _begin(self, entry: Entry, chunks: Chunks) -> None:
        if entry.path != _ROOT:
            raise self._unsafe(entry.path, "the tree does not begin with its own folder")
        with self._foreseen(_ROOT):
            self._root.parent.mkdir(parents=True, exist_ok=True)
            self._disk = self._ending.enter_context(Disk(self._root.parent))
            self._is_direct = self._aside is not None and takes_direct(self._root.parent)
            if entry.kind is EntryKind.FOLDER:
                self._here = Descent(self._own_folder())
                self._open.append(entry)
                return
            above = os.open(self._root.parent, OPEN_FOLDER & ~os.O_NOFOLLOW)
            self._here = Descent(above)
            self._create(self._here, self._root.name, entry, chunks)

    def _own_folder(self) -> int:
        try:
            self._root.mkdir(mode=0o700)
            self._unseen = True
        except FileExistsError:
            if any(self._root.iterdir()):
                raise OSError(errno.ENOTEMPTY, "there is something there already") from None
        return os.open(self._root, OPEN_FOLDER)

    def _safe(self, path: str) -> str:
        try:
            return safe_path(path, "path")
        except UnsafeName as error:
            reason = "it comes twice" if path == _ROOT else "it leads out of the folder"
            raise self._unsafe(path, reason) from error

    def _go_to(self, folder: str) -> None:
        """Make ``folder`` the present one, leaving for good those that it does not lie in."""
        here = self._here
        if here is None or not self._open:
            raise OSError(errno.ENOTDIR, "the tree is a single file")
        while not _inside(folder, self._open[-1].path):
            self._leave()
        path = self._open[-1].path
        below = folder if path == _ROOT else folder[len(path) + 1 :]
        for name in below.split("/") if below else ():
            path = name if path == _ROOT else f"{path}/{name}"
            self._open.append(_as_it_is(path, here.enter(name)))

    def _leave(self) -> None:
        """Give the present folder what it is to have, now that nothing more comes into it."""
        if self._here is None:
            return
        entry = self._open.pop()
        self._dress(self._here.fd, entry)
        if self._open:
            self._here.leave()

    def _create(self, here: Descent, name: str, entry: Entry, chunks: Chunks) -> None:
        if entry.kind is EntryKind.FILE:
            self._file(here.fd, name, entry, chunks)
        elif entry.kind is EntryKind.FOLDER:
            os.mkdir(name, 0o700, dir_fd=here.fd)
            here.enter(name)
            self._open.append(entry)
        elif entry.kind is EntryKind.HARDLINK:
            self._hard_link(here, name, entry)
        else:
            self._special(here.fd, name, entry)

    def _file(self, folder: int, name: str, entry: Entry, chunks: Chunks) -> None:
        mode = _PRIVATE | (entry.mode & 0o777 if self._unseen else 0)
        fd = os.open(name, _NEW_FILE, mode, dir_fd=folder)
        if self._aside is None or entry.stored_size < LARGE:
            try:
                self._complete(fd, entry, self._fill(fd, entry, chunks))
            finally:
                os.close(fd)
            return
        written: list[int] = []  # bytes of each piece
        pieces: Iterator[Work]
        if isinstance(chunks, Divided) and entry.extents is None:
            straight = open_straight(name, folder, size=entry.size) if self._is_direct else None
            file = LargeFile(fd, straight, self._rooms)
            pieces = (partial(self._stretch, file, entry, one, written) for one in chunks.stretches)
        else:
            file = LargeFile(fd, None, self._rooms)
            pieces = iter((partial(self._all_aside, file, entry, chunks, written),))
        try:
            self._aside.share(pieces, partial(self._end_aside, self._aside, file, entry, written))
        except BaseException:
            file.close()  # it was not taken
            raise

    def _stretch(self, file: LargeFile, entry: Entry, stretch: Stretch, written: list[int]) -> None:
        with self._foreseen(entry.path):
            file.take(stretch)
            written.append(stretch.size)

    def _all_aside(self, file: LargeFile, entry: Entry, chunks: Chunks, written: list[int]) -> None:
        with self._foreseen(entry.path):
            written.append(self._fill(file.fd, entry, self._while_wanted(chunks)))

    def _while_wanted(self, chunks: Chunks) -> Chunks:
        """Give the chunks, until what becomes of the file matters to nobody."""
        while self._aside is not None and not self._aside.over:
            chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _end_aside(self, aside: Aside, file: LargeFile, entry: Entry, written: list[int]) -> None:
        try:
            if not aside.over:
                with self._foreseen(entry.path):
                    file.finish()
                    self._complete(file.fd, entry, sum(written))
        finally:
            file.close()

    def _complete(self, fd: int, entry: Entry, written: int) -> None:
        """Give a file that has got its content all else."""
        if written != entry.stored_size:
            reason = f"it has {written} bytes of data instead of {entry.stored_size}"
            raise self._unsafe(entry.path, reason)
        self._dress(fd, entry)

    def _fill(self, fd: int, entry: Entry, chunks: Chunks) -> int:
        """Give a file its content; returns how many bytes that were."""
        if entry.extents is not None:
            return self._fill_extents(fd, entry, chunks)
        written = begun = 0
        for chunk in chunks:
            written += len(chunk)
            _write(fd, chunk)
            if written - begun >= _MANY:
                begin_writing(fd)
                begun = written
        return written

    def _fill_extents(self, fd: int, entry: Entry, chunks: Chunks) -> int:
        """Write the data of a sparse file where it belongs; what lies between stays a hole."""
        os.ftruncate(fd, entry.size)
        rest = self._ranges(entry)
        start, room = next(rest, (0, 0))
        written = 0
        for chunk in chunks:
            view = memoryview(chunk)
            written += len(view)
            while view:
                if not room:
                    start, room = next(rest, (0, 0))
                if not room:
                    raise self._unsafe(entry.path, "it has more data than its map says")
                os.lseek(fd, start, os.SEEK_SET)
                part, view = view[:room], view[room:]
                _write(fd, part)
                start, room = start + len(part), room - len(part)
        return written

    def _ranges(self, entry: Entry) -> Iterator[tuple[int, int]]:
        end = 0
        for start, length in entry.extents or ():
            if start < end or length < 0 or start + length > entry.size:
                raise self._unsafe(entry.path, "its map of holes contradicts itself")
            end = start + length
            if length:
                yield start, length

    def _hard_link(self, here: Descent, name: str, entry: Entry) -> None:
        """Link to a file of this tree: looked up below the root, through no symbolic link."""
        folder, _slash, target = self._safe(entry.target).rpartition("/")
        with Descent(os.dup(here.root)) as there:
            for part in folder.split("/") if folder else ():
                there.enter(part)
            if not stat.S_ISREG(os.stat(target, dir_fd=there.fd, follow_symlinks=False).st_mode):
                raise self._unsafe(entry.path, f"it links to {entry.target}, which is not a file")
            os.link(target, name, src_dir_fd=there.fd, dst_dir_fd=here.fd, follow_symlinks=False)

    def _special(self, folder: int, name: str, entry: Entry) -> None:
        """Create a symbolic link or a named pipe.

        The folder is still private, so nobody can put something else in their place in between.
        """
        if entry.kind is EntryKind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=folder)
        else:
            os.mkfifo(name, 0o600, dir_fd=folder)
        whose = self._owners.of(entry)
        if whose:
            os.chown(name, *whose, dir_fd=folder, follow_symlinks=False)
        if entry.kind is EntryKind.FIFO:
            os.chmod(name, self._mode(entry), dir_fd=folder)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def _dress(self, fd: int, entry: Entry) -> None:
        """Give an open file or folder its owner, permissions, attributes and time, in this order.

        A change of owner takes set-id bits away; attributes need the right to write.
        """
        for name, value in entry.xattrs.items():
            self._attribute(fd, entry.path, name, value)
        status, mode = os.fstat(fd), self._mode(entry)
        whose = self._owners.of(entry)
        given = whose is not None and whose != (status.st_uid, status.st_gid)
        if whose is not None and given:
            os.fchown(fd, *whose)
        if given or mode != stat.S_IMODE(status.st_mode):
            os.fchmod(fd, mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _mode(self, entry: Entry) -> int:
        """Return the permission bits; a program never runs as someone it did not belong to."""
        mode = entry.mode & 0o7777
        if mode & _SET_ID and entry.kind is EntryKind.FILE and not self._owners.kept(entry):
            self._survey.note(entry.path, "its set-id bits were dropped with its owner")
            return mode & ~_SET_ID
        return mode

    def _attribute(self, fd: int, path: str, name: str, value: bytes) -> None:
        if not name.startswith("user."):
            self._survey.note(path, f"attribute {name} was left out: only those in user. are set")
            return
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            self._survey.note(path, f"attribute {name} was not set: {error.strerror}")

    @contextmanager
    def _foreseen(self, path: str) -> Iterator[None]:
        try:
            yield
        except HoldfastError:
            raise
        except (OverflowError, ValueError) as error:
            raise self._unsafe(path, f"its attributes are out of range: {error}") from error
        except OSError as error:
            raise self._translated(path, error) from error

    def _translated(self, path: str, error: OSError) -> HoldfastError:
        place = self._root if path == _ROOT else self._root / path
        if error.errno in _FULL:
            return NoSpace(path=place)
        reason = error.strerror or str(error)
        if error.errno in _MISFIT and path != _ROOT:
            return self._unsafe(path, f"it does not fit what came before it: {reason}")
        return TargetUnfit(component=self._component, path=place, reason=reason)

    def _unsafe(self, path: str, reason: str) -> TreeUnsafe:
        return TreeUnsafe(component=self._component, path=path, reason=reason)


def _inside(folder: str, other: str) -> bool:
    return other in {_ROOT, folder} or folder.startswith(other + "/")


def _as_it_is(path: str, fd: int) -> Entry:
    """Describe a folder that was complete once, so that it looks the same after another entry."""
    status = os.fstat(fd)
    if not status.st_mode & stat.S_IWUSR or not status.st_mode & stat.S_IXUSR:
        os.fchmod(fd, 0o700)
    mode, time = stat.S_IMODE(status.st_mode), status.st_mtime_ns
    return Entry(path, EntryKind.FOLDER, mode, time, uid=status.st_uid, gid=status.st_gid)


def _write(fd: int, data: Chunk) -> None:
    written = os.write(fd, data)
    while written < len(data):
        data = memoryview(data)[written:]
        written = os.write(fd, data)
