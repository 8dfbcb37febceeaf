"""Reading a stream ahead of whoever wants it, in a thread of its own.

What comes over a network is received, and hashed, by one core while another hashes, compresses and
writes it. A bounded number of chunks waits in between.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.model.artifact import Chunk, Chunks

DEPTH = 8  # chunks that wait: 8 MiB at most
LOOK = 0.1  # seconds between two looks whether anybody still wants them


@contextmanager
def ahead(chunks: Chunks) -> Iterator[Chunks]:
    """Give the chunks, and what reading them raises, as they come.

    Leaving the context waits until the thread has let go of ``chunks``: no longer than the next one
    takes to come.
    """
    waiting: queue.Queue[Chunk | BaseException | None] = queue.Queue(DEPTH)
    over = threading.Event()

    def put(message: Chunk | BaseException | None) -> bool:
        while not over.is_set():
            try:
                waiting.put(message, timeout=LOOK)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        try:
            for chunk in chunks:
                if not put(chunk):
                    return
        except BaseException as error:  # noqa: BLE001 - raised again where the chunks are taken
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=read, name="ahead")
    thread.start()
    try:
        yield _taken(waiting)
    finally:
        over.set()
        thread.join()


def _taken(waiting: queue.Queue[Chunk | BaseException | None]) -> Chunks:
    while (message := waiting.get()) is not None:
        if isinstance(message, BaseException):
            raise message
        yield message
