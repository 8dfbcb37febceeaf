"""A store in a local folder.

A value is written aside, synced, renamed to its name without overwriting, and the folder synced: at
no moment does a name stand for half a value, not even after a power cut. No symbolic link below the
root is followed. Files are for their owner alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import BackupExists, HoldfastError, NoSpace, ValueTooShort, VaultUnavailable
from ..model.artifact import CHUNK, Chunk, Chunks
from ..model.names import safe_path
from ._aside import create_aside, gathered, is_aside, kept_aside, remove_if_dead
from ._folders import FILE_MODE, folders_in, open_folder, remove, walk, walk_sizes
from ._rename import rename_free

if TYPE_CHECKING:
    from ..model.store_options import StoreOptions

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # a link is not followed: not there
_CANNOT_MOVE = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ELOOP}
_WORTH_A_CALL = 128 << 10  # bytes; copying more takes longer than calling the system once more
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe must not hold us up


class LocalStore:
    """Names below ``root``, a folder that is made when the first value is stored."""

    renames: ClassVar[bool] = True

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @classmethod
    def opened(cls, vault: str, options: StoreOptions, passing: Collection[str]) -> LocalStore:
        """Return the store of a vault; a local folder needs to know of nothing but its place."""
        del vault, passing
        return cls(Path(options.url))

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a free name, durably; a failing read or a full disk leaves nothing."""
        with self._parent(name, create=True) as (folder, last):
            self._refuse_taken(folder, last, name)
            with self._aside(folder, name) as (written, file):
                size = self._write(file, chunks, name)
                with self._translated(name):
                    os.fsync(file)
                    rename_free(written, last, folder, folder)
            with self._translated(name):
                os.fsync(folder)
        return size

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, atomically in place of an earlier one."""
        with self._parent(name, create=True) as (folder, last):
            with self._aside(folder, name) as (written, file):
                self._write(file, iter((data,)), name)
                with self._translated(name):
                    os.fsync(file)
                    os.rename(written, last, src_dir_fd=folder, dst_dir_fd=folder)
            with self._translated(name):
                os.fsync(folder)

    def adopt(self, name: str, file: Path) -> bool:
        """Take a file for its own by renaming it, if it lies on the same file system."""
        with self._parent(name, create=True) as (folder, last), self._translated(name):
            try:
                source = open_folder(file.parent, ())
            except OSError:
                return False  # it cannot be reached that way: whoever copies it will say why
            try:
                return _move(file.name, source, last, folder)
            finally:
                os.close(source)

    @contextmanager
    def get(self, name: str) -> Iterator[Chunks]:
        """Give the bytes of a name in chunks of `CHUNK`."""
        with self._opened(name) as file:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            yield self._chunks(file, name)

    def read(self, name: str) -> bytes:
        """Return a value whole."""
        with self._opened(name) as file:
            return b"".join(self._chunks(file, name))

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value."""
        with self._opened(name) as file:
            with self._translated(name):
                found = os.pread(file, length, start)
            while len(found) < length:
                with self._translated(name):
                    more = os.pread(file, length - len(found), start + len(found))
                if not more:
                    raise self._too_short(name, start + length, start + len(found))
                found += more
        return found

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give every name below a folder; links too, though they cannot be read."""
        start = f"{prefix}/" if prefix else ""
        with suppress(FileNotFoundError), self._folder(prefix) as folder, self._translated(prefix):
            yield from (start + name for name in walk(folder) if not is_aside(name))

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give every name below a folder with its size; of a link, that of the link itself."""
        start = f"{prefix}/" if prefix else ""
        with suppress(FileNotFoundError), self._folder(prefix) as folder, self._translated(prefix):
            yield from (
                (start + name, size) for name, size in walk_sizes(folder) if not is_aside(name)
            )

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Give the names of the folders right below a folder."""
        with suppress(FileNotFoundError), self._folder(prefix) as folder, self._translated(prefix):
            yield from folders_in(folder)

    def delete(self, name: str) -> None:
        """Delete a name, or a folder with everything in it."""
        with (
            suppress(FileNotFoundError),
            self._parent(name) as (folder, last),
            self._translated(name),
        ):
            remove(folder, last)
            os.fsync(folder)

    def rename(self, old: str, new: str) -> None:
        """Rename a file or a folder, durably; raises `BackupExists` where the new name is taken."""
        with (
            self._parent(old) as (source, first),
            self._parent(new, create=True) as (target, last),
            self._translated(new, missing=True),
        ):
            rename_free(first, last, source, target)
            os.fsync(target)
            os.fsync(source)

    def path(self, name: str) -> Path | None:
        """Return where a name lies; nothing if a symbolic link stands in the way."""
        safe_path(name, "name")
        path = self.root
        for part in name.split("/"):
            path /= part
            with self._translated(name):
                is_link = path.is_symlink()
            if is_link:
                return None
        return path

    def free(self) -> int | None:
        """Return how many bytes an ordinary user may still write there."""
        existing = next(p for p in (self.root, *self.root.parents) if p.exists())
        with self._translated(""):
            found = os.statvfs(existing)
        return found.f_bavail * found.f_frsize

    def sweep(self) -> list[str]:
        """Remove files that a dead writer left half-written."""
        with suppress(FileNotFoundError), self._folder("") as root, self._translated(""):
            left = [name for name in walk(root) if is_aside(name)]
            return [f"half-written file {name}" for name in left if self._remove_if_dead(name)]
        return []

    # --- how ---

    def _remove_if_dead(self, name: str) -> bool:
        with suppress(FileNotFoundError), self._parent(name) as (folder, last):
            return remove_if_dead(folder, last)
        return False

    @contextmanager
    def _folder(self, name: str, *, create: bool = False) -> Iterator[int]:
        parts = safe_path(name, "folder").split("/") if name else []
        with self._translated(name, missing=not create):
            folder = open_folder(self.root, parts, create=create)
        try:
            yield folder
        finally:
            os.close(folder)

    @contextmanager
    def _parent(self, name: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Give the open folder that a name lies in, and the last part of the name."""
        before, _slash, last = safe_path(name, "name").rpartition("/")
        with self._folder(before, create=create) as folder:
            yield folder, last

    @contextmanager
    def _aside(self, folder: int, name: str) -> Iterator[tuple[str, int]]:
        with self._translated(name):
            written, file = create_aside(folder)
        with kept_aside(folder, written, file):
            yield written, file

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        with self._parent(name) as (folder, last), self._translated(name, missing=True):
            file = os.open(last, _READ, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FileNotFoundError(errno.ENOENT, "not a file", name)
            yield file
        finally:
            os.close(file)

    def _too_short(self, name: str, wanted: int, found: int) -> ValueTooShort:
        reason = f"it ends before byte {wanted}, after {found}"
        return ValueTooShort(vault=self.root, path=self.root / name, reason=reason)

    def _chunks(self, file: int, name: str) -> Chunks:
        while chunk := self._read(file, name):
            yield chunk

    def _read(self, file: int, name: str) -> Chunk:
        with self._translated(name):
            return os.read(file, CHUNK)

    def _write(self, file: int, chunks: Chunks, name: str) -> int:
        """Write everything; only the errors of writing are ours, those of reading pass through."""
        size = 0
        for chunk in gathered(chunks, _WORTH_A_CALL):
            rest = memoryview(chunk).cast("B")
            size += rest.nbytes
            with self._translated(name):
                while rest:
                    rest = rest[os.write(file, rest) :]
        return size

    def _refuse_taken(self, folder: int, last: str, name: str) -> None:
        with suppress(FileNotFoundError):
            os.stat(last, dir_fd=folder, follow_symlinks=False)
            raise BackupExists(path=self.root / name)

    @contextmanager
    def _translated(self, name: str, *, missing: bool = False) -> Iterator[None]:
        """Translate the errors of the system; with ``missing``, what is not there may be missed."""
        try:
            yield
        except OSError as error:
            if missing and error.errno in _NOT_THERE:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error
            raise self._translation(error, name) from error

    def _translation(self, error: OSError, name: str) -> HoldfastError:
        path = self.root / name
        if error.errno in _FULL:
            return NoSpace(path=path)
        if error.errno == errno.EEXIST:
            return BackupExists(path=path)
        reason = error.strerror or str(error)
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            reason = "a file or a symbolic link is in the way, and links are not followed"
        return VaultUnavailable(vault=self.root, path=path, reason=reason)


def _move(old: str, source: int, new: str, target: int) -> bool:
    """Rename a file between two open folders; returns False where only copying could do it."""
    try:
        file = os.open(old, _READ, dir_fd=source)
    except OSError:
        return False
    try:
        os.fchmod(file, FILE_MODE)
        os.fsync(file)
        rename_free(old, new, source, target)
    except OSError as error:
        if error.errno in _CANNOT_MOVE:
            return False
        raise
    finally:
        os.close(file)
    os.fsync(target)
    return True
