"""Archives in archives, read once while their bytes go by.

A snapshot of Qdrant is a tar file that holds one more for each segment; most of it is of no
interest here, and all of it passes in chunks on its way to a vault. So the reader is a coroutine
that is given the chunks, hands on what it was asked for, and keeps nothing.

The form is ustar with GNU's long names and sparse files: the ``tar`` crate of Rust writes no other.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol

from holdfast.model.artifact import Chunk

BLOCK = 512
LONG_NAME = b"L"
REGULAR = (b"0", b"\0")
SPARSE = b"S"
PASSED_OVER = (b"5", b"g", b"x")  # folders, and extended headers that nothing here depends on
LONGEST_NAME = 1 << 16
SPARSE_MAP = (386, 4)  # where it begins in a header, and how many ranges it has there
FURTHER_RANGES = 21  # in each block that extends the map
IS_EXTENDED, REAL_SIZE = 482, slice(483, 495)

Take = Callable[[int, memoryview], None]
"""Gets a piece of a file and the offset in the file that it belongs to."""
Steps = Generator[None, None, None]
Ranges = list[tuple[int, int]]


class NotATarError(ValueError):
    """The bytes are no archive of a form that is known here."""


class Visitor(Protocol):
    """Decides what to do with each file of an archive."""

    def enter(self, name: str) -> bool:
        """Tell whether a file is itself an archive to be visited, under its name as a folder."""

    def open(self, name: str, size: int) -> Take | None:
        """Return who takes the content of a file, or None to pass over it."""

    def close(self, name: str) -> None:
        """Hear that a file which was opened, or an archive that was entered, is complete."""


class TarReader:
    """Reads one archive from the chunks it is given; raises `NotATarError` from `push`."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._left = memoryview(b"")
        self._steps = self._archive("", None)
        self._done = False

    @property
    def complete(self) -> bool:
        """Whether the archive has come to its end."""
        return self._done

    def push(self, chunk: Chunk) -> None:
        """Take in the next bytes."""
        self._left = memoryview(chunk)
        if not self._done:
            try:
                next(self._steps)
            except StopIteration:
                self._done = True

    # --- the archive ---

    def _archive(self, folder: str, size: int | None) -> Steps:
        """Visit an archive of ``size`` bytes (None: up to its end mark)."""
        used = 0
        name = ""
        while size is None or used < size:
            header = yield from self._bytes(BLOCK)
            used += BLOCK
            if not any(header):
                break
            kind, length = header[156:157], number(header[124:136])
            demand_whole(header)
            if kind == LONG_NAME:
                if length > LONGEST_NAME:
                    raise NotATarError("a name is longer than any")
                name = text((yield from self._bytes(padded(length)))[:length])
                used += padded(length)
                continue
            path = folder + (name or name_of(header))
            name = ""
            if kind == SPARSE:
                used += yield from self._sparse(path, header, length)
            elif kind in REGULAR:
                yield from self._regular(path, length)
            elif kind in PASSED_OVER:
                yield from self._pour(padded(length), None)
            else:
                raise NotATarError(f"{path} is neither a file nor a folder")
            used += padded(length)
        if size is not None:
            if used > size:
                raise NotATarError(f"{folder} holds more than it has room for")
            yield from self._pour(size - used, None)

    def _regular(self, path: str, length: int) -> Steps:
        if self._visitor.enter(path):
            folder = path.removesuffix(".tar") + "/"
            yield from self._archive(folder, length)
            yield from self._pour(padded(length) - length, None)
            self._visitor.close(path)
            return
        yield from self._content(path, [(0, length)], length, length)

    def _sparse(self, path: str, header: bytes, length: int) -> Generator[None, None, int]:
        """Visit a file with holes; returns how many bytes its map took beyond the header."""
        if self._visitor.enter(path):
            raise NotATarError(f"{path} is an archive with holes")
        start, count = SPARSE_MAP
        ranges = _ranges(header[start : start + count * 24])
        more, used = header[IS_EXTENDED], 0
        while more:
            block = yield from self._bytes(BLOCK)
            used += BLOCK
            ranges += _ranges(block[: FURTHER_RANGES * 24])
            more = block[FURTHER_RANGES * 24]
        if sum(size for _offset, size in ranges) != length:
            raise NotATarError(f"the map of {path} does not fit its content")
        yield from self._content(path, ranges, length, number(header[REAL_SIZE]))
        return used

    def _content(self, path: str, ranges: Ranges, length: int, size: int) -> Steps:
        take = self._visitor.open(path, size)
        if take is None:
            yield from self._pour(padded(length), None)
            return
        for offset, count in ranges:
            yield from self._pour(count, take, offset)
        yield from self._pour(padded(length) - length, None)
        self._visitor.close(path)

    # --- bytes ---

    def _bytes(self, count: int) -> Generator[None, None, bytes]:
        found = bytearray()
        while len(found) < count:
            if not self._left:
                yield
                continue
            piece = self._left[: count - len(found)]
            self._left = self._left[len(piece) :]
            found += piece
        return bytes(found)

    def _pour(self, count: int, take: Take | None, offset: int = 0) -> Steps:
        while count > 0:
            if not self._left:
                yield
                continue
            piece = self._left[:count]
            self._left = self._left[len(piece) :]
            if take is not None:
                take(offset, piece)
            count -= len(piece)
            offset += len(piece)


def demand_whole(header: bytes) -> None:
    """Raise `NotATarError` for a header whose sum is not what it says."""
    stated = number(header[148:156])
    if stated != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise NotATarError("a header is damaged")


def number(field: bytes) -> int:
    """Return a number of a header: octal digits, or GNU's binary form for large ones."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F, *field[1:]]), "big")
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    try:
        return int(digits or b"0", 8)
    except ValueError as error:
        raise NotATarError("a header holds no number where one belongs") from error


def _ranges(text: bytes) -> Ranges:
    pairs = [text[at : at + 24] for at in range(0, len(text), 24)]
    found = [(number(pair[:12]), number(pair[12:])) for pair in pairs if pair[0]]
    return [(offset, size) for offset, size in found if size]


def name_of(header: bytes) -> str:
    """Return the name in a header."""
    # Only where the magic is POSIX's own do these bytes hold the beginning of a name.
    posix = header[257:263] == b"ustar\0"
    prefix = text(header[345:500]) if posix else ""
    name = text(header[:100])
    return f"{prefix}/{name}" if prefix else name


def text(field: bytes) -> str:
    """Return the text of a field, up to the first zero."""
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def padded(size: int) -> int:
    """Return how many bytes a content of this size takes."""
    return -(-size // BLOCK) * BLOCK
