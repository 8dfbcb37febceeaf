"""A store in a folder of an SSH server that speaks SFTP.

A value is written aside, synced where the server can, and given its name without overwriting: no
name ever stands for half a value. Files are for their owner alone. Several requests are under way
at once, so that a far server costs no more time than its line.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ..errors import (
    AccessRefused,
    BackupExists,
    HoldfastError,
    NoSpace,
    ServerFailed,
    ValueTooShort,
    VaultUnavailable,
)
from ..model.artifact import CHUNK, Chunks
from ..model.names import safe_path
from ..model.urls import ssh_folder
from . import _sftp_files as files
from ._aside import gathered, is_aside
from ._sftp_session import KNOWN_HOSTS, Login, Session

if TYPE_CHECKING:
    from asyncssh import SFTPAttrs, SFTPClient, SFTPClientFile

    from ..model.store_options import StoreOptions

T = TypeVar("T")
UNDER_WAY = 4  # chunks of one value
LEFT = 24 * 3600  # seconds without a write: nobody writes that file any more
ROOM = 1 << 20  # bytes; where less is left, a failed write is put down to that


class SftpStore:
    """Values below ``root``, a path on the server; one that is relative is below the user's home.

    The folder is made when the first value is stored.
    """

    renames: ClassVar[bool] = True

    def __init__(self, session: Session, root: str) -> None:
        """Connect to nothing yet."""
        self._session = session
        self._root = os.fsencode(root.rstrip("/") or root)

    @classmethod
    def opened(cls, vault: str, options: StoreOptions, passing: Collection[str]) -> SftpStore:
        """Return the store of a vault; all that lies there is alike to it."""
        del passing
        folder = ssh_folder(str(options.url))
        login = Login(
            host=folder.host,
            user=folder.user,
            port=folder.port,
            keys=(Path(options.ssh_key),) if options.ssh_key else (),
            passphrase=options.ssh_key_password,
            password=options.ssh_password,
            known_hosts=(Path(options.known_hosts),) if options.known_hosts else KNOWN_HOSTS,
        )
        session = Session(vault, login, options.connect_timeout, options.timeout)
        return cls(session, folder.path)

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a free name; a failing read or a full disk leaves nothing."""
        path = self._path(name)
        with self._translated(name):
            if self._run(lambda sftp: files.found(sftp, path)) is not None:
                raise files.TakenError
            with self._written(path, chunks, name) as (aside, size):
                self._once(lambda sftp: files.move_to_free(sftp, aside, path))
        return size

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, atomically in place of an earlier one."""
        path = self._path(name)
        with self._translated(name), self._written(path, iter((data,)), name) as (aside, _size):
            self._once(lambda sftp: sftp.posix_rename(aside, path))

    @contextmanager
    def get(self, name: str) -> Iterator[Chunks]:
        """Give the bytes of a name in chunks of `CHUNK`."""
        with self._opened(name) as (file, size):
            yield self._chunks(file, size, name)

    def read(self, name: str) -> bytes:
        """Return a value whole."""
        with self.get(name) as chunks:
            return b"".join(chunks)

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value."""
        path = self._path(name)
        with self._translated(name, missing=True):
            found = self._run(lambda sftp: _part(sftp, path, start, length))
        if found is None:
            raise FileNotFoundError(2, "not a file", name)
        if len(found) < length:
            raise self._too_short(name)
        return found

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give every name below a folder; links too, though nobody says what they lead to."""
        yield from (name for name, _size in self.sizes(prefix))

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give every name below a folder with its size; a folder is one request, or a few."""
        for name, attrs in self._walk(prefix):
            if not is_aside(name):
                yield name, attrs.size or 0

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Give the names of the folders right below a folder."""
        found = self._content(prefix)
        yield from (os.fsdecode(name) for name, attrs in found if files.is_folder(attrs))

    def delete(self, name: str) -> None:
        """Delete a name, or a folder with everything in it."""
        path = self._path(name)
        with self._translated(name):
            is_gone = self._run(lambda sftp: files.remove_value(sftp, path))
        if is_gone:
            return
        for inner, _attrs in self._content(name):
            self.delete(f"{name}/{os.fsdecode(inner)}")
        with self._translated(name):
            self._run(lambda sftp: files.remove_folder(sftp, path))

    def rename(self, old: str, new: str) -> None:
        """Rename a file or a folder; raises `BackupExists` where the new name is taken."""
        source, target = self._path(old), self._path(new)
        with self._translated(new, missing=True):
            if self._run(lambda sftp: files.found(sftp, source)) is None:
                raise FileNotFoundError(2, "there is no such name", old)
            self._run(lambda sftp: files.make_folders(sftp, target.rpartition(b"/")[0]))
            self._once(lambda sftp: files.rename_to_free(sftp, source, target))

    def path(self, name: str) -> Path | None:
        """Return nothing: it lies on another machine."""
        safe_path(name, "name")
        return None

    def free(self) -> int | None:
        """Return how many bytes an ordinary user may still write there, if the server says so."""
        with self._translated(""):
            return self._run(lambda sftp: files.room(sftp, self._root))

    def sweep(self) -> list[str]:
        """Remove half-written files that nobody has written to for a day, by the server's clock."""
        left = [(name, attrs.mtime or 0) for name, attrs in self._walk("") if is_aside(name)]
        if not left:
            return []
        with self._translated(""):
            now = self._run(lambda sftp: files.clock(sftp, self._root))
        dead = [name for name, written in left if now - written > LEFT]
        for name in dead:
            self.delete(name)
        return [f"half-written file {name}" for name in dead]

    # --- writing ---

    @contextmanager
    def _written(self, path: bytes, chunks: Chunks, name: str) -> Iterator[tuple[bytes, int]]:
        """Give a file that was written aside, and its size; what it does not become is removed."""
        folder = path.rpartition(b"/")[0]
        aside, file = self._run(lambda sftp: files.create_aside(sftp, folder))
        try:
            try:
                size = self._write(file, chunks, name)
            except BaseException:
                self._session.close_later(file)
                raise
            self._once(lambda _sftp: files.close_durably(file))
            yield aside, size
        except BaseException as error:
            self._remove_after(error, aside)
            raise

    def _remove_after(self, error: BaseException, aside: bytes) -> None:
        """Remove a file after a failure, which a second one must not hide."""
        import asyncssh

        try:
            self._run(lambda sftp: files.remove_value(sftp, aside))
        except (HoldfastError, asyncssh.SFTPError) as also:
            error.add_note(f"a half-written file is left to be swept: {also}")

    def _write(self, file: SFTPClientFile, chunks: Chunks, name: str) -> int:
        """Write everything; only the errors of writing are ours, those of reading pass through."""
        going: deque[Future[None]] = deque()
        size = 0
        try:
            for chunk in gathered(chunks):
                data = bytes(chunk)
                with self._translated(name):
                    if len(going) == UNDER_WAY:
                        self._session.wait(going.popleft())
                    going.append(self._session.begin(_writing(file, data, size)))
                size += len(data)
            with self._translated(name):
                while going:
                    self._session.wait(going.popleft())
        finally:
            for future in going:
                future.cancel()
        return size

    # --- reading ---

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[SFTPClientFile, int]]:
        path = self._path(name)
        with self._translated(name, missing=True):
            opened = self._run(lambda sftp: files.open_value(sftp, path))
        if opened is None:
            raise FileNotFoundError(2, "not a file", name)
        file, size = opened
        try:
            yield file, size
        finally:
            self._session.close_later(file)

    def _chunks(self, file: SFTPClientFile, size: int, name: str) -> Chunks:
        going: deque[tuple[int, Future[bytes]]] = deque()
        starts = iter(range(0, size, CHUNK))
        try:
            while True:
                for start in starts:
                    length = min(CHUNK, size - start)
                    going.append((length, self._session.begin(_reading(file, start, length))))
                    if len(going) == UNDER_WAY:
                        break
                if not going:
                    return
                length, future = going.popleft()
                with self._translated(name):
                    data = self._session.wait(future)
                if len(data) < length:
                    raise self._too_short(name)
                yield data
        finally:
            for _length, future in going:
                future.cancel()

    def _walk(self, prefix: str) -> Iterator[tuple[str, SFTPAttrs]]:
        start = f"{prefix}/" if prefix else ""
        for found, attrs in self._content(prefix):
            name = start + os.fsdecode(found)
            if files.is_folder(attrs):
                yield from self._walk(name)
            else:
                yield name, attrs

    def _content(self, folder: str) -> list[tuple[bytes, SFTPAttrs]]:
        path = self._path(folder) if folder else self._root
        with self._translated(folder):
            return self._run(lambda sftp: files.content(sftp, path))

    # --- how ---

    def _path(self, name: str) -> bytes:
        return self._root + b"/" + os.fsencode(safe_path(name, "name"))

    def _run(self, work: Callable[[SFTPClient], Awaitable[T]]) -> T:
        return self._session.run(work)

    def _once(self, work: Callable[[SFTPClient], Awaitable[T]]) -> T:
        return self._session.once(work)

    @contextmanager
    def _translated(self, name: str, *, missing: bool = False) -> Iterator[None]:
        """Translate what the server says; with ``missing``, what is not there may be missed."""
        from asyncssh import SFTPError

        try:
            yield
        except files.TakenError:
            raise BackupExists(path=self._where(name)) from None
        except SFTPError as error:
            if missing and isinstance(error, files.not_there()):
                raise FileNotFoundError(2, "there is no such name", name) from error
            raise self._translation(error, name) from error

    def _translation(self, error: Exception, name: str) -> HoldfastError:
        import asyncssh

        where, component = self._where(name), self._session.component
        full = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
        if isinstance(error, full) or self._is_full(error):
            return NoSpace(path=where)
        reason = str(error) or type(error).__name__
        if isinstance(error, asyncssh.SFTPPermissionDenied | asyncssh.SFTPWriteProtect):
            return AccessRefused(component=component, where=where, reason=reason)
        if isinstance(error, files.not_there()):
            reason = "a file is in the way, or the folder has gone"
            return VaultUnavailable(vault=component, path=where, reason=reason)
        return ServerFailed(component=component, where=where, reason=reason)

    def _is_full(self, error: Exception) -> bool:
        """Tell whether a mere "failure", which is all the protocol has, comes of a full disk."""
        import asyncssh

        if type(error) is not asyncssh.SFTPFailure:
            return False
        try:
            room = self._run(lambda sftp: files.room(sftp, self._root))
        except (HoldfastError, asyncssh.SFTPError):
            return False  # what failed first is what counts
        return room is not None and room < ROOM

    def _where(self, name: str) -> str:
        root = os.fsdecode(self._root)
        slash = "" if root.startswith("/") else "/"
        return f"{self._session.login.where}{slash}{root}/{name}"

    def _too_short(self, name: str) -> ValueTooShort:
        reason = "it ends before the bytes that were asked for"
        return ValueTooShort(vault=self._session.component, path=self._where(name), reason=reason)


async def _part(sftp: SFTPClient, path: bytes, start: int, length: int) -> bytes | None:
    """Return some bytes of a value; fewer at its end, and None if it is no file."""
    opened = await files.open_value(sftp, path)
    if opened is None:
        return None
    try:
        return await files.read(sftp, opened[0], start, length)
    finally:
        await opened[0].close()


def _writing(
    file: SFTPClientFile, data: bytes, offset: int
) -> Callable[[SFTPClient], Awaitable[None]]:
    return lambda sftp: files.write(sftp, file, data, offset)


def _reading(
    file: SFTPClientFile, start: int, length: int
) -> Callable[[SFTPClient], Awaitable[bytes]]:
    return lambda sftp: files.read(sftp, file, start, length)
