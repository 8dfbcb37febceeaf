"""Compression of streams: parallel on the way in, bounded on the way out.

The stream is cut into blocks that are compressed side by side, each as a frame (zstd) or a member
(gzip) of its own. Both formats say that such parts, one after another, are one file, so the zstd,
gzip and tar programs read them as ever. What is stored may be hostile by the time it is read: no
input makes the reader hold more than one chunk and one window.
"""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from functools import cache
from typing import IO, TYPE_CHECKING, Protocol, cast

from holdfast.model.artifact import CHUNK, Chunk, Chunks

if TYPE_CHECKING:
    import zstandard
    from typing_extensions import Buffer

BLOCK = CHUNK  # more costs memory and cache misses, and gains no ratio worth it
MOST_WORKERS = 8
WINDOW = 8 << 20  # bytes of memory that a zstd frame may demand; all usual levels stay below
ZSTD_LEVEL = 1  # as fast as the disk; 2 is a fifth slower and 6 % smaller, 3 as much again
ZSTD_STORE = -5  # as fast as memory: what does not compress passes through, in a frame as well
SAMPLES, SAMPLE = 4, 16 << 10  # how many, and how many bytes, are tried of each block
WORTH = 7 / 8  # of its size; a block that stays larger is not worth six times the work
GZIP_LEVEL = 2  # of igzip, whose levels go to 3, which is slower and hardly smaller


class Method(StrEnum):
    """How bytes are compressed."""

    ZSTD = "zstd"
    GZIP = "gzip"


class DamagedError(ValueError):
    """The compressed bytes are not what a compressor wrote."""


def compress(pieces: Iterable[Chunk], method: Method) -> Chunks:
    """Compress a stream on all cores. Pieces may be small: they are gathered into blocks.

    An empty stream gives a valid empty file.
    """
    squeeze = _zstd() if method is Method.ZSTD else _gzip()
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(workers, "compress") as threads:
        under_way: deque[Future[bytes]] = deque()
        try:
            for block in _blocks(pieces):
                under_way.append(threads.submit(squeeze, block))
                if len(under_way) > workers + 1:
                    yield from _cut(under_way.popleft().result())
            while under_way:
                yield from _cut(under_way.popleft().result())
        finally:
            threads.shutdown(wait=True, cancel_futures=True)


def _blocks(pieces: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    block: list[Chunk] = []
    size = 0
    empty = True
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield block
            block, size, empty = [], 0, False
    if block or empty:
        yield block


def _cut(data: bytes) -> Chunks:
    if len(data) <= CHUNK:
        yield data
        return
    view = memoryview(data)
    for offset in range(0, len(view), CHUNK):
        yield view[offset : offset + CHUNK]


def _zstd() -> Callable[[list[Chunk]], bytes]:
    import threading

    import zstandard

    own = threading.local()  # a compressor serves one thread at a time

    def made(level: int) -> zstandard.ZstdCompressor:
        return zstandard.ZstdCompressor(level=level, write_checksum=True)

    def squeeze(block: list[Chunk]) -> bytes:
        if not hasattr(own, "smaller"):
            own.smaller, own.stored = made(ZSTD_LEVEL), made(ZSTD_STORE)
        data = b"".join(block)
        compressor = own.smaller if _shrinks(data, own.smaller) else own.stored
        packed: bytes = compressor.compress(data)
        return packed

    return squeeze


def _shrinks(data: bytes, compressor: zstandard.ZstdCompressor) -> bool:
    """Tell by samples whether any part of a block is worth compressing.

    Embeddings, images and archives are not; they are most of what these applications keep.
    """
    if len(data) <= SAMPLES * SAMPLE:
        return True
    view = memoryview(data)
    for number in range(SAMPLES):
        start = (len(data) - SAMPLE) * number // (SAMPLES - 1)
        if len(compressor.compress(view[start : start + SAMPLE])) < SAMPLE * WORTH:
            return True
    return False


def _gzip() -> Callable[[list[Chunk]], bytes]:
    from isal import igzip_lib

    def squeeze(block: list[Chunk]) -> bytes:
        return igzip_lib.compress(b"".join(block), GZIP_LEVEL, igzip_lib.COMP_GZIP)

    return squeeze


def decompress(chunks: Iterable[Chunk], method: Method) -> Chunks:
    """Give what was compressed, in chunks of at most `CHUNK` bytes. Reads its input to the end.

    An input that ends in the middle of a zstd frame ends the output early: the caller knows how
    much there must be. Raises `DamagedError` where the bytes cannot be decompressed.
    """
    source = _Source(chunks)
    reader = _zstd_reader(source) if method is Method.ZSTD else _gzip_reader(source)
    try:
        while data := _read(reader):
            yield data
    finally:
        reader.close()
    source.drain()


def _read(reader: _Reader) -> bytes:
    """Read one chunk, and call what the libraries raise by one name."""
    try:
        return reader.read(CHUNK)
    except _library_errors() as error:
        raise DamagedError(str(error)) from error
    except EOFError as error:
        raise DamagedError("it ends too early") from error
    except OSError as error:
        if error.errno is None:  # gzip's own errors are OSErrors without a number
            raise DamagedError(str(error)) from error
        raise


@cache
def _library_errors() -> tuple[type[Exception], ...]:
    import zlib

    import zstandard
    from isal import igzip_lib

    return zstandard.ZstdError, zlib.error, cast("type[Exception]", igzip_lib.error)


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


def _zstd_reader(source: _Source) -> _Reader:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    file = cast("IO[bytes]", source)
    return decompressor.stream_reader(file, read_size=CHUNK, read_across_frames=True)


def _gzip_reader(source: _Source) -> _Reader:
    from isal import igzip

    reader: _Reader = igzip.IGzipFile(fileobj=source, mode="rb")  # type: ignore[no-untyped-call]
    return reader


class _Source(io.RawIOBase):
    """Chunks as a file to read from."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        room = memoryview(buffer).cast("B")
        part = self.take(len(room))
        room[: len(part)] = part
        return len(part)

    def read(self, size: int = -1, /) -> bytes:
        return bytes(self.take(size))

    def take(self, size: int) -> memoryview:
        """Return up to ``size`` bytes of the present chunk, or of the next; none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk)
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def drain(self) -> None:
        for _chunk in self._chunks:
            pass
