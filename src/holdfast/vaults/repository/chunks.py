"""Content-defined chunking: where a stream is cut depends on its bytes, and on a secret.

What is inserted or removed moves the boundaries beside it and no others, so that everything else is
found again in older backups. A chunk has 512 KiB to 8 MiB, restic's own bounds, and 1 MiB on the
average of random data. `docs/formats/repository.md` states the method exactly; changing anything
here means that everything is stored once more.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property

from holdfast.model.artifact import Chunk

from . import gear
from .pieces import gathered

LEAST = 512 << 10
MOST = 8 << 20

_SALT = b"holdfast chunk boundaries 1"
_LOOKED_AT = 64 << 10  # smaller pieces are joined, so that none is looked at too often


class Chunker:
    """Cuts streams as one repository does. May be used by several threads.

    ``polynomial`` is that of the repository's config. Repositories that share it cut alike.
    """

    def __init__(self, polynomial: int) -> None:
        self._permutation = permutation(polynomial)

    @cached_property
    def _search(self) -> gear.Search:
        """The program that finds boundaries: loaded for the first stream that may have one."""
        search, _reason = gear.fastest()
        return search

    def cut(self, pieces: Iterable[Chunk]) -> Iterator[Chunk]:
        """Give a stream in chunks; where it came in pieces of whatever sizes makes no difference.

        Of an empty stream nothing is given. Holds no more than `MOST` and one piece.
        """
        held = _Held(pieces)
        while held.reach(LEAST + 1):
            yield held.take(self._boundary(held))
        if held.size:
            yield held.take(held.size)

    def _boundary(self, held: _Held) -> int:
        """Return the length of the next chunk, looking at one window after the other."""
        for start in range(LEAST, MOST, gear.WINDOW):
            window = held.window(start, gear.WINDOW)
            length = self._search(window.translate(self._permutation))
            if length < len(window) or len(window) < gear.WINDOW:
                return start + length
        return MOST


def notice() -> str:
    """Return what those should be told whose machine cuts slowly; empty where all is well."""
    _search, reason = gear.fastest()
    return reason and f"chunks are found more slowly on this machine: {reason}"


def permutation(polynomial: int) -> bytes:
    """Return the secret order that the hash sees byte values in, as a table for `translate`.

    It is the byte values sorted by HKDF-SHA-256 of the polynomial, with the value as its ``info``.
    """
    secret = hmac.digest(_SALT, f"{polynomial:x}".encode(), "sha256")
    keys = [hmac.digest(secret, bytes((value, 1)), "sha256") for value in range(256)]
    return bytes(sorted(range(256), key=keys.__getitem__))


class _Held:
    """What was read of a stream and not given yet."""

    def __init__(self, pieces: Iterable[Chunk]) -> None:
        self._coming = gathered(pieces, _LOOKED_AT)
        self._pieces: deque[Chunk] = deque()
        self.size = 0

    def reach(self, size: int) -> bool:
        """Read on until so many bytes are held; returns whether there were as many."""
        while self.size < size:
            piece = next(self._coming, None)
            if piece is None:
                return False
            self._pieces.append(piece)
            self.size += len(piece)
        return True

    def window(self, start: int, length: int) -> bytes:
        """Return some of what is held, or is read now; less where the stream ends."""
        self.reach(start + length)
        found = []
        for piece in self._pieces:
            if start < len(piece):
                part = piece[start : start + length]
                found.append(part)
                length -= len(part)
                if not length:
                    break
            start = max(0, start - len(piece))
        return b"".join(found)

    def take(self, size: int) -> Chunk:
        """Return the first bytes; without a copy where they came so.

        A view is copied: it might hold much more memory than it shows.
        """
        self.size -= size
        first = self._pieces.popleft()
        if len(first) == size and isinstance(first, bytes):
            return first
        taken = []
        while len(first) < size:
            taken.append(first)
            size -= len(first)
            first = self._pieces.popleft()
        view = memoryview(first)
        taken.append(view[:size])
        if size < len(first):
            self._pieces.appendleft(view[size:])
        return b"".join(taken)
