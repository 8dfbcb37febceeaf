"""Hashing what passes by, in a thread of its own: hashlib lets the interpreter go on meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ..errors import BackupDamaged
from ..model.artifact import Chunks
from ..model.manifest import Stored

WORTH_A_THREAD = 1 << 16  # bytes; handing a smaller chunk over costs more than hashing it


class Digest:
    """The size and SHA-256 of bytes that went `through` it."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """The digest of what has passed, in hexadecimal; complete when the chunks have ended."""
        return self._sha256.hexdigest()

    def through(self, chunks: Chunks) -> Chunks:
        """Give the same chunks; one at a time is hashed while the taker works on it."""
        with ThreadPoolExecutor(1, "hash") as thread:
            hashing: Future[None] | None = None
            for chunk in chunks:
                if hashing is not None:
                    hashing.result()
                    hashing = None
                if len(chunk) < WORTH_A_THREAD:
                    self._sha256.update(chunk)
                else:
                    hashing = thread.submit(self._sha256.update, chunk)
                self.size += len(chunk)
                yield chunk
            if hashing is not None:
                hashing.result()


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def verified(chunks: Chunks, stored: Stored, backup: str) -> Chunks:
    """Give the chunks of a stored artifact; raises `BackupDamaged` where they are not as was sworn.

    Too many bytes are refused before they are given; a wrong checksum after the last byte.
    """
    digest = Digest()
    for chunk in digest.through(chunks):
        if digest.size > stored.size:
            break
        yield chunk
    if problem := disagreement(digest, stored):
        raise BackupDamaged(backup=backup, path=stored.path, reason=problem)


def disagreement(digest: Digest, stored: Stored) -> str:
    """Return what is wrong with bytes that should be a stored artifact; nothing if all is well."""
    if digest.size != stored.size:
        return f"{counted(digest.size, stored.size)} bytes where {stored.size} were stored"
    return "" if digest.sha256 == stored.sha256 else "its checksum differs"


def counted(found: int, expected: int) -> str:
    """Return a count for a message; beyond what was expected, counting stopped."""
    return f"more than {expected}" if found > expected else str(found)


def told(chunks: Chunks, progress: Callable[[int], None]) -> Chunks:
    """Give the chunks and tell how many bytes each has."""
    for chunk in chunks:
        progress(len(chunk))
        yield chunk
