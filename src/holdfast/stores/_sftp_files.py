"""What a store needs of a folder on an SFTP server, as coroutines: paths are bytes, as there.

See https://datatracker.ietf.org/doc/html/draft-ietf-secsh-filexfer-02 and, for the extensions
``fsync``, ``hardlink``, ``posix-rename`` and ``statvfs``, OpenSSH's file PROTOCOL.
"""

from __future__ import annotations

import asyncio
import secrets
import stat
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._aside import PREFIX
from ._folders import FILE_MODE, FOLDER_MODE

if TYPE_CHECKING:
    from asyncssh import SFTPAttrs, SFTPClient, SFTPClientFile

T = TypeVar("T")
LONGEST_PATH = 4096  # bytes
BLOCK = 32 << 10  # bytes that every server takes and gives
LARGEST_BLOCK = 255 << 10  # where one says that it takes more


class TakenError(Exception):
    """Something has that name already."""


def not_there() -> tuple[type[Exception], ...]:
    """Return the errors that say that there is nothing."""
    import asyncssh

    return asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory


async def found(sftp: SFTPClient, path: bytes) -> SFTPAttrs | None:
    """Return what lies at a path, links not followed; None if there is nothing."""
    try:
        return await sftp.lstat(path)
    except not_there():
        return None


def is_folder(attrs: SFTPAttrs) -> bool:
    """Tell whether what was found is a folder."""
    return stat.S_ISDIR(attrs.permissions or 0)


def is_file(attrs: SFTPAttrs) -> bool:
    """Tell whether what was found is a file."""
    return stat.S_ISREG(attrs.permissions or 0)


async def make_folders(sftp: SFTPClient, path: bytes) -> None:
    """Make a folder and those above it, where they are missing; others may do so too."""
    import asyncssh

    if not path or await found(sftp, path) is not None:
        return
    await make_folders(sftp, path.rpartition(b"/")[0])
    try:
        await sftp.mkdir(path, asyncssh.SFTPAttrs(permissions=FOLDER_MODE))
    except asyncssh.SFTPError:
        if await found(sftp, path) is None:
            raise


async def create_aside(sftp: SFTPClient, folder: bytes) -> tuple[bytes, SFTPClientFile]:
    """Create a file beside what it is to become; the folder is made where there is none."""
    import asyncssh

    path = folder + b"/" + f"{PREFIX}{secrets.token_hex(8)}".encode()
    how = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
    attrs = asyncssh.SFTPAttrs(permissions=FILE_MODE)
    try:
        return path, await sftp.open(path, how, attrs, encoding=None, block_size=0)
    except not_there():
        await make_folders(sftp, folder)
    return path, await sftp.open(path, how, attrs, encoding=None, block_size=0)


async def open_value(sftp: SFTPClient, path: bytes) -> tuple[SFTPClientFile, int] | None:
    """Return an open file and its size; None if it is no file."""
    import asyncssh

    if not is_file(await sftp.lstat(path)):  # first: to open a pipe would wait for its writer
        return None
    file = await sftp.open(path, asyncssh.FXF_READ, encoding=None, block_size=0)
    return file, (await file.stat()).size or 0


async def write(sftp: SFTPClient, file: SFTPClientFile, data: bytes, offset: int) -> None:
    """Write bytes, by as many requests at once as they take."""
    block = min(sftp.limits.max_write_len or BLOCK, LARGEST_BLOCK)
    starts = range(0, len(data), block)
    await _together([file.write(data[at : at + block], offset + at) for at in starts])


async def read(sftp: SFTPClient, file: SFTPClientFile, start: int, length: int) -> bytes:
    """Return bytes, by as many requests at once as they take; fewer at the end of the file."""
    block = min(sftp.limits.max_read_len or BLOCK, LARGEST_BLOCK)
    starts = range(start, start + length, block)
    sizes = [min(block, start + length - at) for at in starts]
    parts = await _together([_block(file, *one) for one in zip(starts, sizes, strict=True)])
    whole = len(parts)
    for number, part in enumerate(parts):
        if len(part) < sizes[number]:
            whole = number + 1  # what comes after the end is nothing, or was written since
            break
    return b"".join(parts[:whole])


async def _block(file: SFTPClientFile, start: int, length: int) -> bytes:
    """Read one block: a server may give less than it was asked for."""
    data = b""
    while len(data) < length:
        more = cast("bytes", await file.read(length - len(data), start + len(data)))
        if not more:
            break
        data += more
    return data


async def _together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at once, and raise the first error when every one has ended."""
    done = await asyncio.gather(*works, return_exceptions=True)
    results: list[T] = []
    for one in done:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results


async def close_durably(file: SFTPClientFile) -> None:
    """Close a file when it is on the disk, where the server can say that."""
    import asyncssh

    with suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()
    await file.close()


async def move_to_free(sftp: SFTPClient, old: bytes, new: bytes) -> None:
    """Give a file a name that nothing has. Raises ``TakenError`` where something has it.

    A second name, by ``hardlink``, never takes another's place. Where there is none, the rename of
    the protocol is to refuse that; what does not know better might overwrite: so we look before.
    """
    import asyncssh

    try:
        await sftp.link(old, new)
    except asyncssh.SFTPError:
        await rename_to_free(sftp, old, new)
    else:
        await sftp.remove(old)


async def rename_to_free(sftp: SFTPClient, old: bytes, new: bytes) -> None:
    """Rename a file or a folder. Raises ``TakenError`` where the new name is taken."""
    import asyncssh

    if await found(sftp, new) is not None:
        raise TakenError(new)
    try:
        await sftp.rename(old, new)
    except asyncssh.SFTPError:
        if await found(sftp, old) is not None and await found(sftp, new) is not None:
            raise TakenError(new) from None
        raise


async def content(sftp: SFTPClient, folder: bytes) -> list[tuple[bytes, SFTPAttrs]]:
    """Return what lies right in a folder: names, and what is known of them; of no folder nothing.

    Raises ``SFTPError`` for names that no folder can hold.
    """
    import asyncssh

    if len(folder) > LONGEST_PATH:
        raise asyncssh.SFTPFailure("folders in folders without an end")
    try:
        entries = await sftp.readdir(folder)
    except not_there():
        return []
    listed = [(_raw(entry.filename), entry.attrs) for entry in entries]
    return [(name, attrs) for name, attrs in listed if name not in {b".", b".."}]


def _raw(name: bytes | str) -> bytes:
    import asyncssh

    if not isinstance(name, bytes) or not name or b"/" in name or b"\0" in name:
        raise asyncssh.SFTPFailure("a name that is no name")
    return name


async def remove_value(sftp: SFTPClient, path: bytes) -> bool:
    """Remove a file or a link, by one request; returns False for a folder, which stays."""
    import asyncssh

    try:
        await sftp.remove(path)
    except not_there():
        return True
    except asyncssh.SFTPError:
        attrs = await found(sftp, path)
        if attrs is None or not is_folder(attrs):
            raise
        return False
    return True


async def remove_folder(sftp: SFTPClient, path: bytes) -> None:
    """Remove an empty folder; one that got new content meanwhile stays."""
    import asyncssh

    try:
        await sftp.rmdir(path)
    except not_there():
        return  # another process was quicker
    except asyncssh.SFTPFailure:
        if not await content(sftp, path):
            raise


async def room(sftp: SFTPClient, folder: bytes) -> int | None:
    """Return how many bytes fit where a folder is, or will be; None if the server cannot say."""
    import asyncssh

    while folder and await found(sftp, folder) is None:
        folder = folder.rpartition(b"/")[0]
    try:
        attrs = await sftp.statvfs(folder or b".")
    except asyncssh.SFTPOpUnsupported:
        return None
    return (attrs.bavail or 0) * (attrs.frsize or attrs.bsize or 0)


async def clock(sftp: SFTPClient, folder: bytes) -> int:
    """Return the server's time, in seconds since 1970: that of a file written just now."""
    path, file = await create_aside(sftp, folder)
    try:
        await file.write(b"now", 0)
        return (await file.stat()).mtime or 0
    finally:
        await file.close()
        await sftp.remove(path)
