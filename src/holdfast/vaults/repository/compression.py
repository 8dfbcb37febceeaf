"""zstd, bounded: what a frame says about its size is checked before memory is given to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import zstandard

from holdfast.model.artifact import Chunk

from .damage import DamagedError

# zstd's level 1, with a table twice as large. What restic's `auto` stores in 1,041 MB (text, noise,
# vectors) takes 1,052 so. Level 1 itself makes it 1,070, with 4 % less processor time for the whole
# backup; level 2 1,026, with 5 % more; level 3 1,011, with 20 % more.
LEVEL, TABLE = 1, 15
_TYPICAL = 1 << 20  # bytes that are compressed at once

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


def expand_into(frame: Chunk, room: memoryview) -> None:
    """Put the content of one frame into memory that it fills; bytes after it are passed over.

    Raises:
        DamagedError: it is not a frame, or has another size.

    """
    try:
        size = zstandard.frame_content_size(frame)
        if size not in {len(room), _UNKNOWN}:
            raise DamagedError(f"it unpacks to {size} bytes instead of {len(room)}")
        with _decompressor().stream_reader(frame) as reader:
            filled = 0
            while filled < len(room) and (count := reader.readinto(room[filled:])):
                filled += count
    except zstandard.ZstdError as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error
    if filled < len(room):
        raise DamagedError(f"it unpacks to {filled} bytes instead of {len(room)}")


def expand_all(frames: Sequence[Chunk], sizes: Sequence[int]) -> Sequence[Chunk]:
    """Return the contents of several frames, of which the sizes are known, unpacked in one step.

    As with `compress_all` the interpreter's lock is let go of once for all. Bytes that follow a
    frame are passed over: whoever knows the hash of the content loses nothing by that. They share
    one piece of memory, which is there until nobody has any of them.

    Raises:
        DamagedError: one is not a frame, or has another size.

    """
    try:
        if not _can_be_together(frames, sizes):
            return [expand(frame, size) for frame, size in zip(frames, sizes, strict=True)]
        unpacked = _decompressor().multi_decompress_to_buffer([*frames])
        return [memoryview(unpacked[at]) for at in range(len(unpacked))]  # type: ignore[arg-type]
    except zstandard.ZstdError as error:
        raise DamagedError(f"it cannot be unpacked: {error}") from error


def _can_be_together(frames: Sequence[Chunk], sizes: Sequence[int]) -> bool:
    """Tell whether frames can be unpacked in one step: each says its size, and none is empty."""
    return (
        len(frames) > 1
        and "multi_decompress_to_buffer" in zstandard.backend_features
        and all(
            size > 0 and zstandard.frame_content_size(frame) == size
            for frame, size in zip(frames, sizes, strict=True)
        )
    )


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
        _of_thread.compressor = zstandard.ZstdCompressor(compression_params=_parameters())
    compressor: zstandard.ZstdCompressor = _of_thread.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_of_thread, "decompressor"):
        _of_thread.decompressor = zstandard.ZstdDecompressor()
    decompressor: zstandard.ZstdDecompressor = _of_thread.decompressor
    return decompressor


def _parameters() -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=_TYPICAL, hash_log=TABLE, write_content_size=True
    )
