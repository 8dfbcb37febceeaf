"""zstd, bounded: what a frame says about its size is checked before memory is given to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zstandard

from holdfast.model.artifact import Chunk

from .damage import DamagedError

# What restic's `auto` stores in 1,042 MB (text, vectors, noise), 2 does in 1,025 MB, and 3 in 1,011
# with a fifth more processor time for the whole backup.
LEVEL = 2

_UNKNOWN = -1
_STEP = 1 << 20  # bytes unpacked at once where the size is not known
_of_thread = threading.local()  # contexts may serve one thread at a time, and cost 20 µs to make


def compress(plain: Chunk) -> bytes:
    """Return one frame that says how large its content is."""
    return _compressor().compress(plain)


def compress_all(plains: Sequence[Chunk]) -> Sequence[Chunk]:
    """Return a frame for each of several values, made in one step.

    The interpreter's lock is let go of once for all: with many small values, giving it away and
    waiting for it again would take as long as the work.
    """
    compressor = _compressor()
    if len(plains) == 1 or "multi_compress_to_buffer" not in zstandard.backend_features:
        return [compressor.compress(plain) for plain in plains]
    frames = compressor.multi_compress_to_buffer([*plains])
    return [memoryview(frames[at]) for at in range(len(frames))]  # type: ignore[arg-type]


def expand(frame: Chunk, limit: int) -> bytes:
    """Return the content of one frame.

    Raises:
        DamagedError: it is not a frame, has bytes after it, or more than ``limit`` bytes in it.

    """
    try:
        size = zstandard.frame_content_size(frame)
        if size > limit:
            raise DamagedError(f"it unpacks to {size} bytes, more than {limit}")
        if size == _UNKNOWN:
            return _expand_unknown(frame, limit)
        if size == 0:  # `decompress` takes that for unknown
            return b""
        return _decompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error


def _expand_unknown(frame: Chunk, limit: int) -> bytes:
    """Unpack piece by piece, so that a frame that does not say its size is stopped in time.

    A frame that breaks off gives what there was: it was authenticated, so whoever wrote it did so,
    and whoever reads it finds its JSON or its id wrong.
    """
    unpacked = bytearray()
    with _decompressor().stream_reader(frame) as reader:
        while piece := reader.read(_STEP):
            unpacked += piece
            if len(unpacked) > limit:
                raise DamagedError(f"it unpacks to more than {limit} bytes")
    return bytes(unpacked)


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_of_thread, "compressor"):
        _of_thread.compressor = zstandard.ZstdCompressor(level=LEVEL)
    compressor: zstandard.ZstdCompressor = _of_thread.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_of_thread, "decompressor"):
        _of_thread.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _of_thread.decompressor
    return decompressor
