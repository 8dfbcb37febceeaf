"""A file that is read while it is still being written, by several readers at once.

A server's dump comes once and at the server's pace, but is read by the vault, by whoever counts it,
and perhaps again. It is therefore written to the workspace as it comes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import HoldfastError, NoSpace, ServerFailed
from holdfast.model.artifact import CHUNK, Chunk, Chunks

from ._swap import FULL


class Spool:
    """One writer and any number of readers, which wait for what is still to come."""

    def __init__(self, path: Path) -> None:
        """Make the file."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._news = threading.Condition()
        self._ready = 0  # bytes that may be read
        self._written = 0
        self._over = False
        self._error: HoldfastError | None = None

    # --- writing ---

    def write(self, chunk: Chunk, *, hold_back: int = 0) -> None:
        """Append; the last ``hold_back`` bytes of the file are not given to readers yet.

        Raises:
            NoSpace: the disk is full.

        """
        view = memoryview(chunk)
        try:
            while view:
                done = os.write(self._fd, view)
                view = view[done:]
                self._written += done
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=self.path) from error
            raise
        with self._news:
            self._ready = max(self._ready, self._written - hold_back)
            self._news.notify_all()

    def finish(self, *, drop: int = 0, durable: bool = False) -> None:
        """End it, without its last ``drop`` bytes."""
        if drop:
            os.ftruncate(self._fd, self._written - drop)
        if durable:
            os.fsync(self._fd)
        self._end(self._written - drop, None)

    def fail(self, error: HoldfastError) -> None:
        """Let every reader know that no more will come."""
        self._end(self._ready, error)

    def _end(self, ready: int, error: HoldfastError | None) -> None:
        with self._news:
            self._ready, self._error, self._over = ready, error, True
            self._news.notify_all()

    def close(self) -> None:
        """Close the file. Whoever still reads gets an error."""
        os.close(self._fd)

    # --- reading ---

    @property
    def size(self) -> int:
        """How many bytes may be read so far."""
        return self._ready

    @property
    def over(self) -> bool:
        """Whether it ended, well or not."""
        return self._over

    @property
    def error(self) -> HoldfastError | None:
        """Why it ended early, if it did."""
        return self._error

    @contextmanager
    def opened(self) -> Iterator[Chunks]:
        """Read it from the start, waiting for what is to come; raises what the writer met."""
        yield self.chunks()

    def chunks(self) -> Chunks:
        """Give the content from the start."""
        position = 0
        while count := self._wait(position):
            data = os.pread(self._fd, min(count, CHUNK), position)
            position += len(data)
            yield data

    def _wait(self, position: int) -> int:
        """Wait until there is more beyond ``position``; returns how much, 0 at the end."""
        with self._news:
            self._news.wait_for(lambda: self._ready > position or self._over)
            if self._ready > position:
                return self._ready - position
            if self._error is not None:
                raise self._error
            return 0


@contextmanager
def spooling(
    path: Path, work: Callable[[Spool], None], stop: Callable[[], None], lost: ServerFailed
) -> Iterator[Spool]:
    """Run the writer in a thread while the spool is used; raises at the end if it failed.

    ``stop`` interrupts a writer that is still at work when the context is left. ``lost`` is what
    readers hear of a failure that nobody foresaw; the failure itself is raised on leaving.
    """
    spool = Spool(path)
    unforeseen: list[BaseException] = []

    def run() -> None:
        try:
            work(spool)
        except HoldfastError as error:
            spool.fail(error)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            unforeseen.append(error)
            spool.fail(lost)

    thread = threading.Thread(target=run, name="spool")
    thread.start()
    try:
        yield spool
        whole = spool.over
    finally:
        stop()
        thread.join()
        spool.close()
    if unforeseen:
        raise unforeseen[0]
    if whole and spool.error is not None:
        raise spool.error
