"""Loading an RDB into a live server over replication: we play the master for one full sync.

The server becomes a replica of ours, takes the RDB, replaces all it has in one step and is made a
master again. Until it has taken every byte it keeps its data. Whoever connects to us must show the
history that the server told us on its own connection: nobody else is given anything.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from holdfast.errors import HoldfastError

from ._redis_wire import Access, Said, Wire

POLL = 0.02  # seconds
_MOST_WORDS, _LONGEST_WORD = 32, 4096


class Untouched(Exception):
    """It failed and the server's data is certainly as it was.

    ``elsewise`` says that another way of loading may work.
    """

    def __init__(self, error: HoldfastError, *, elsewise: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.elsewise = elsewise


class Feed:
    """A master that has one RDB, for the one replica that shows ``history``."""

    def __init__(self, rdb: Path, address: tuple[str, int], history: str, identity: str) -> None:
        """Listen. ``identity`` is what the replica will name its new data by.

        An address that is not this machine's own is one by which others reach it, through a router
        or from inside a container: then all its addresses are listened on.
        """
        self._rdb = rdb
        self._history = history.encode()
        self._identity = identity.encode()
        self._lock = threading.Lock()
        self.joined = threading.Event()  # the replica is here
        self.sent = threading.Event()  # every byte was handed over
        self.broken = ""  # why it will not come to an end
        self._listener = _listening(*address)
        self.port: int = self._listener.getsockname()[1]
        self._talking: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="feed", daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _close(self._listener)
        with self._lock:
            talking = list(self._talking)
        for one in talking:
            _close(one)
        for thread in list(self._threads):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                one, _address = self._listener.accept()
            except OSError:  # closed: the feed is over
                return
            with self._lock:
                self._talking.add(one)
            thread = threading.Thread(target=self._talk, args=(one,), name="feed", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, one: socket.socket) -> None:
        try:
            with one, one.makefile("rb") as incoming:
                while words := _command(incoming):
                    if words[0] == b"PSYNC":
                        if not self._sync(one, words):
                            return
                    elif words[:2] != [b"REPLCONF", b"ACK"]:
                        one.sendall(b"+PONG\r\n" if words[0] == b"PING" else b"+OK\r\n")
        except (OSError, ValueError) as error:
            if self.joined.is_set() and not self.sent.is_set():
                self.broken = self.broken or f"the link broke off half-way: {error}"
        finally:
            with self._lock:
                self._talking.discard(one)

    def _sync(self, one: socket.socket, words: list[bytes]) -> bool:
        """Send the RDB to the one that may have it, once."""
        if self.sent.is_set() and words[1:2] == [self._identity]:
            one.sendall(b"+CONTINUE %s\r\n" % self._identity)  # it lost us, and not the data
            return True
        if self.joined.is_set():
            # It has come back for it: what it got the first time it did not take.
            self.broken = self.broken or "the server did not take what it was sent"
            return False
        if words[1:2] != [self._history]:
            return False
        self.joined.set()
        with self._rdb.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            one.sendall(b"+FULLRESYNC %s 0\r\n$%d\r\n" % (self._identity, size))
            one.sendfile(file)
        self.sent.set()
        return True


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL and not isinstance(error, socket.gaierror):
            raise
    return socket.create_server(("", port), family=family)


def _command(incoming: BinaryIO) -> list[bytes]:
    """Return the next command; empty at the end. Raises ``ValueError`` at anything else."""
    while (head := incoming.readline(_LONGEST_WORD)) == b"\n":
        pass  # a replica that is loading shows that it is alive
    if not head:
        return []
    count = int(head[1:]) if head[:1] == b"*" else 0
    if not 0 < count <= _MOST_WORDS:
        raise ValueError("no command of a replica")
    words = []
    for _turn in range(count):
        length = int(incoming.readline(_LONGEST_WORD)[1:])
        if not 0 <= length <= _LONGEST_WORD:
            raise ValueError("no command of a replica")
        words.append(incoming.read(length + 2)[:-2])
    return [words[0].upper(), *words[1:]]


def _close(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected any more
        pass
    finally:
        one.close()


class Feeding:
    """One loading by replication. ``listen`` is our address as the server is to call it."""

    def __init__(self, access: Access, listen: tuple[str, int], identity: str) -> None:
        self._access = access
        self._listen = listen
        self._identity = identity

    def load(self, wire: Wire, rdb: Path, begun: Callable[[int], None]) -> None:
        """Let the server behind ``wire`` take the RDB.

        ``begun`` is called with our port when the server is about to become a replica.

        Raises:
            Untouched: it could not be, or did not get all of it.
            ServerFailed, ConnectionLost: it is not known what it has now.

        """
        history = wire.info("replication")["master_replid"]
        keeps = wire.setting("repl-diskless-load") in {"disabled", "swapdb", "on-empty-db"}
        try:
            feed = Feed(rdb, self._listen, history, self._identity)
        except OSError as error:
            reason = f"cannot listen on {self._listen[0]}: {error.strerror or error}"
            raise Untouched(self._access.failed(reason), elsewise=True) from error
        with feed:
            begun(feed.port)
            self._ask(wire, feed)
            try:
                self._wait(wire, feed)
            except _Failed as failure:
                reason = str(failure)
            else:
                reason = "it took the data, and lost it again"
            wire.call("REPLICAOF", "NO", "ONE")
        # It names its data by our identity from the moment when it has loaded all of it.
        if wire.info("replication").get("master_replid2") == self._identity:
            return
        failed = self._access.failed(reason)
        if keeps or not feed.joined.is_set():
            raise Untouched(failed, elsewise=not feed.joined.is_set())
        raise failed

    def _ask(self, wire: Wire, feed: Feed) -> None:
        said = wire.ask("REPLICAOF", self._listen[0], feed.port)
        if isinstance(said, Said):
            error = self._access.error("REPLICAOF", said)
            raise Untouched(error, elsewise=said.refused)

    def _wait(self, wire: Wire, feed: Feed) -> None:
        """Wait until the link is up, which is when the server has loaded everything."""
        patience = time.monotonic() + self._access.connect_timeout
        while True:
            state = wire.info("replication")
            if state.get("master_link_status") == "up":
                return
            if feed.broken:
                raise _Failed(feed.broken)
            if state.get("role") != "slave":
                raise _Failed("somebody made it a master again meanwhile")
            if not feed.joined.is_set() and time.monotonic() > patience:
                where = f"{self._listen[0]}:{feed.port}"
                raise _Failed(
                    f"it could not reach {where} within {self._access.connect_timeout:g} s;"
                    " say with `listen` how it reaches this machine"
                )
            time.sleep(POLL)


class _Failed(Exception):
    """The server will not come to have the data."""
