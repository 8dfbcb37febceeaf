"""Taking a server's dump over its replication handshake, as a replica does.

The server forks, and its child sends the data of that one instant as an RDB: writers go on, and no
file of the server is touched. Before Redis 7 the handshake cannot say that nothing but the RDB is
wanted; the connection is closed as soon as it has come.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ._redis_spool import Spool
from ._redis_wire import Access, Said, Wire, command

_BUFFER = 1 << 20
_MARK = 40  # bytes, random, after a dump whose length is not known in advance


class PullRefused(Exception):
    """The account may not be a replica, or the server lets nobody be one."""


@dataclass(frozen=True, slots=True)
class Pull:
    """A dump that is about to come. ``history`` and ``offset`` name its instant on the server."""

    wire: Wire
    history: str
    offset: int
    instant: datetime
    server_time: float | None  # its clock at that instant; None: it did not tell

    def run(self, spool: Spool) -> None:
        """Take the dump to its end.

        Raises:
            ConnectionLost: it broke off.
            NoSpace: it cannot be kept.

        """
        with self.wire:
            self.wire.skip_newlines()
            head = self.wire.line()
            if head.startswith(b"$EOF:"):
                self._until(head[5:], spool)
            elif head.startswith(b"$") and head[1:].isdigit():
                self._counted(int(head[1:]), spool)
            else:
                raise self.wire.access.failed("it sent no dump where one should begin")

    def _counted(self, left: int, spool: Spool) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        while left:
            count = self.wire.rest(buffer[:left])
            spool.write(buffer[:count])
            left -= count
        spool.finish()

    def _until(self, mark: bytes, spool: Spool) -> None:
        """Take everything up to the mark. Nothing follows it: the server waits for us then."""
        if len(mark) != _MARK:
            raise self.wire.access.failed("it sent no mark to end a dump with")
        buffer = memoryview(bytearray(_BUFFER))
        tail = b""
        while tail != mark:
            count = self.wire.rest(buffer)
            spool.write(buffer[:count], hold_back=_MARK)
            tail = (tail + bytes(buffer[max(0, count - _MARK) : count]))[-_MARK:]
        spool.finish(drop=_MARK)

    def stop(self) -> None:
        """Interrupt it, from another thread."""
        self.wire.close()


def begin_pull(access: Access) -> Pull:
    """Ask for a dump and return when its instant has come.

    That may take a while: by default a server waits 5 s whether other replicas want one too, and
    another dump that is under way is ended first.

    Raises:
        PullRefused: replication is not for this account, or not for anybody.
        ServerUnreachable, AccessRefused, ServerFailed, ConnectionLost: it cannot be had.

    """
    wire = access.connect()
    try:
        return _begun(wire)
    except BaseException:
        wire.close()
        raise


def _begun(wire: Wire) -> Pull:
    clock = wire.ask("TIME")
    for words in (("capa", "eof"), ("rdb-only", "1")):  # what is not known is refused, no harm
        wire.ask("REPLCONF", *words)
    asked = datetime.now(UTC)
    wire.send(command("PSYNC", "?", "-1"))
    wire.skip_newlines()
    answer = wire.answer()
    instant = datetime.now(UTC)
    if isinstance(answer, Said):
        if answer.refused:
            raise PullRefused(answer.text)
        raise wire.access.error("PSYNC", answer)
    match str(answer).split():
        case ["FULLRESYNC", history, offset] if offset.isdigit():
            waited = (instant - asked).total_seconds()
            server_time = float(clock[0]) + waited if isinstance(clock, list) else None
            return Pull(wire, history, int(offset), instant, server_time)
    raise wire.access.failed(f"PSYNC: {answer}")
