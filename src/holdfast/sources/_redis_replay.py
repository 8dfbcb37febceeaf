"""Loading an RDB into a live server by commands: the last resort, where it may not be a replica.

Everything is removed first, then each key comes back by ``RESTORE``. That takes several times as
long as replication, and whoever reads meanwhile sees a part of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from holdfast.model.artifact import CHUNK

from ._redis_check import listed
from ._redis_crc import crc64
from ._redis_feed import Untouched
from ._redis_rdb import FUNCTION2, Item, Summary
from ._redis_wire import Said, Wire, command

_WAITING = 1 << 20  # bytes of commands that are sent at once
_MOST = 500  # and how many
_FOOTER = 10  # version and checksum, after a value


def replay(wire: Wire, rdb: Path, summary: Summary, begun: Callable[[], None]) -> None:
    """Replace all that the server holds. ``begun`` is called just before.

    Raises:
        Untouched: the server does not let this account remove everything.
        AccessRefused, ServerFailed, ConnectionLost: it failed on the way.

    """
    begun()
    said = wire.ask("FLUSHALL")
    if isinstance(said, Said):
        raise Untouched(wire.access.error("FLUSHALL", said), elsewise=said.refused)
    said = wire.ask("FUNCTION", "FLUSH")
    if isinstance(said, Said) and not said.unknown:
        raise wire.access.error("FUNCTION FLUSH", said)
    fd = os.open(rdb, os.O_RDONLY | os.O_CLOEXEC)
    try:
        restoring = _Restoring(wire, fd, summary.version)
        for item in listed(wire.access.component, rdb):
            restoring.restore(item)
        restoring.flush()
    finally:
        os.close(fd)


class _Restoring:
    def __init__(self, wire: Wire, fd: int, version: int) -> None:
        self._wire = wire
        self._fd = fd
        self._version = version.to_bytes(2, "little")
        self._database = 0
        self._waiting: list[bytes] = []
        self._size = 0

    def restore(self, item: Item) -> None:
        if item.kind != FUNCTION2 and item.database != self._database:
            self._add(command("SELECT", item.database))
            self._database = item.database
        size = 1 + item.end - item.start + _FOOTER
        if size > _WAITING:
            self._stream(item, size)
            return
        payload = bytes([item.kind]) + os.pread(self._fd, item.end - item.start, item.start)
        payload += self._version
        payload += crc64(payload).to_bytes(8, "little")
        self._add(command(*_words(item), payload, *_options(item)))

    def _add(self, one: bytes) -> None:
        self._waiting.append(one)
        self._size += len(one)
        if self._size >= _WAITING or len(self._waiting) >= _MOST:
            self.flush()

    def flush(self) -> None:
        """Send what waits, and hear what became of it."""
        self._wire.send(b"".join(self._waiting))
        for _one in self._waiting:
            self._expect_good()
        self._waiting, self._size = [], 0

    def _stream(self, item: Item, size: int) -> None:
        """Send a large value from the file, without ever holding it."""
        self.flush()
        before, after = _words(item), _options(item)
        head = b"*%d\r\n" % (len(before) + 1 + len(after))
        self._wire.send(head + _bulk(*before) + b"$%d\r\n" % size)
        crc = self._send(bytes([item.kind]), 0)
        position = item.start
        while position < item.end:
            data = os.pread(self._fd, min(CHUNK, item.end - position), position)
            crc = self._send(data, crc)
            position += len(data)
        crc = self._send(self._version, crc)
        self._wire.send(crc.to_bytes(8, "little") + b"\r\n" + _bulk(*after))
        self._expect_good()

    def _send(self, data: bytes, crc: int) -> int:
        self._wire.send(data)
        return crc64(data, crc)

    def _expect_good(self) -> None:
        answer = self._wire.answer()
        if isinstance(answer, Said):
            raise self._wire.access.error("RESTORE", answer)


def _words(item: Item) -> list[bytes]:
    if item.kind == FUNCTION2:
        return [b"FUNCTION", b"RESTORE"]
    return [b"RESTORE", item.key, b"%d" % (item.expires or 0)]


def _options(item: Item) -> list[bytes]:
    return [] if item.kind == FUNCTION2 else [b"REPLACE", b"ABSTTL"]


def _bulk(*words: bytes) -> bytes:
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
