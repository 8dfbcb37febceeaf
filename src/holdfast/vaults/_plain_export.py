"""A backup as one ``.tar``: every name as it lies in the vault, the manifest first.

Unpacked with tar into an empty folder, an export is a plain vault with one backup in it. `Members`
reads one strictly in order, trusting nothing: it holds no more than a header, and a document of
bounded size, and every name and size must be the one that is expected next.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import BackupDamaged
from ..model.artifact import CHUNK, Chunk, Chunks
from ._plain_documents import MOST_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
RECORD = 20 * BLOCK  # a tar ends on a multiple of this
MOST_EXTENDED = 1 << 16  # bytes of an extended header: a long path and a size


def header(name: str, size: int) -> bytes:
    """Return the header of a file, extended where its name or its size needs that."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o600
    return member.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """Return what fills a block up after so many bytes."""
    return bytes(-size % BLOCK)


def ending(size: int) -> bytes:
    """Return what ends a tar after so many bytes: two empty blocks, and the record filled up."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % RECORD)


class Members:
    """The files of a tar, read in order from chunks."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._rest: memoryview = memoryview(b"")

    def next(self) -> tuple[str, int]:
        """Return name and size of the next file; its bytes must be taken before the next call."""
        block = self._take(BLOCK)
        member = _parsed(block)
        if member.type != tarfile.XHDTYPE:
            return self._file(member, {})
        if member.size > MOST_EXTENDED:
            raise unusable(f"an extended header of {member.size} bytes")
        extended = _records(self._take(member.size))
        self._skip_padding(member.size)
        return self._file(_parsed(self._take(BLOCK)), extended)

    def content(self, size: int) -> Chunks:
        """Give the bytes of the file whose header was read last."""
        left = size
        while left:
            part = self._some(min(left, CHUNK))
            left -= len(part)
            yield part
        self._skip_padding(size)

    def document(self, size: int) -> bytes:
        """Return a small file whole."""
        if size > MOST_DOCUMENT:
            raise unusable(f"a document of {size} bytes")
        return b"".join(self.content(size))

    def end(self) -> None:
        """Read to the end, where nothing but empty blocks may be."""
        self._expect_empty(self._take(2 * BLOCK))
        self._expect_empty(bytes(self._rest))
        for chunk in self._chunks:
            self._expect_empty(bytes(chunk))

    def _file(self, member: tarfile.TarInfo, extended: dict[str, str]) -> tuple[str, int]:
        if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise unusable(f"{member.name} is not a file")
        size = extended.get("size", str(member.size))
        if not size.isascii() or not size.isdecimal():
            raise unusable("a size that is no number")
        return extended.get("path", member.name), int(size)

    def _skip_padding(self, size: int) -> None:
        self._expect_empty(self._take(-size % BLOCK))

    def _expect_empty(self, data: bytes) -> None:
        if data.strip(b"\0"):
            raise unusable("bytes that belong to no file")

    def _take(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._some(size)
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def _some(self, size: int) -> memoryview:
        """Return from one byte up to ``size``."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise unusable("it is cut short")
            self._rest = memoryview(chunk).cast("B")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise unusable(f"a damaged header: {error}") from error


def _records(data: bytes) -> dict[str, str]:
    return dict(_each_record(data))


def _each_record(data: bytes) -> Iterator[tuple[str, str]]:
    while data:
        length, space, _rest = data.partition(b" ")
        size = int(length) if length.isdigit() and len(length) < len(str(MOST_EXTENDED)) + 1 else 0
        record, data = data[:size], data[size:]
        key, equals, value = record[len(length) + 1 :].partition(b"=")
        if not (space and equals and value.endswith(b"\n")):
            raise unusable("a damaged extended header")
        yield key.decode("utf-8", "replace"), value[:-1].decode("utf-8", "surrogateescape")


def unusable(reason: str) -> BackupDamaged:
    """Return the error for an export that cannot be taken in."""
    return BackupDamaged(backup="export", path="tar", reason=reason)
