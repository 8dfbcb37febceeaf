"""A store whose line is shared: so many bytes a second go up and down, whoever asks for them.

A bucket of tokens, one for each byte, fills evenly and holds as many as come in ``BURST`` seconds.
Who takes more than there is owes them, and waits as long as they take to come: so what is taken in
large pieces comes out at the same rate, and nobody who takes little waits for ever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..model.artifact import Chunks
from ..ports import Store
from ._wrapping import WrappingStore

BURST = 0.5  # seconds


class Tokens:
    """A bucket that fills by ``rate`` tokens a second. May be used by several threads."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._held = rate * BURST
        self._then = clock()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take tokens, and wait until they have come."""
        with self._lock:
            now = self._clock()
            self._held = min(self._rate * BURST, self._held + (now - self._then) * self._rate)
            self._then = now
            self._held -= count
            owed = -self._held
        if owed > 0:
            self._sleep(owed / self._rate)


class LimitedStore(WrappingStore):
    """A store whose bytes are counted on their way; None: as fast as they go.

    A file that is moved into a folder of the same disk takes no time, and is not counted.
    """

    def __init__(self, store: Store, upload: Tokens | None, download: Tokens | None) -> None:
        super().__init__(store)
        self._upload = upload
        self._download = download

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a free name, no faster than allowed."""
        return super().put(name, _counted(chunks, self._upload))

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, in place of an earlier one."""
        _take(self._upload, len(data))
        super().replace(name, data)

    @contextmanager
    def get(self, name: str) -> Iterator[Chunks]:
        """Give the bytes of a name in chunks, no faster than allowed."""
        with super().get(name) as chunks:
            yield _counted(chunks, self._download)

    def read(self, name: str) -> bytes:
        """Return a value whole; its size is known, and waited for, only then."""
        data = super().read(name)
        _take(self._download, len(data))
        return data

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value."""
        _take(self._download, length)
        return super().part(name, start, length)


def _counted(chunks: Chunks, tokens: Tokens | None) -> Chunks:
    for chunk in chunks:
        _take(tokens, len(chunk))
        yield chunk


def _take(tokens: Tokens | None, count: int) -> None:
    if tokens is not None:
        tokens.take(count)
