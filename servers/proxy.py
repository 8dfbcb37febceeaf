"""A small TCP proxy between a client and a server, that makes trouble when it is told to.

::

    with Proxy(port) as proxy:
        proxy.cut_after(1000)          # the next connection breaks 1,000 bytes into the answers
        client = Client(f"http://127.0.0.1:{proxy.port}")

Each kind of trouble holds for as many connections as it is told, and then the proxy is honest
again. A connection that is alive already is met by `cut_now` alone.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

BLOCK = 1 << 16
FAILURE = (
    b"HTTP/1.1 %d Made up\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)


@dataclass(slots=True)
class Trouble:
    """What happens to a connection. All at their defaults: nothing."""

    down: int | None = None  # break after so many bytes of the answers
    up: int | None = None  # break after so many bytes of the requests
    delay: float = 0.0  # seconds that each block of the answers is late
    refuse: bool = False  # close at once
    answer: bytes = b""  # give this in place of what the server says, and close


@dataclass(slots=True)
class Proxy:
    """Forwards connections on a port of its own to ``target`` on 127.0.0.1."""

    target: int
    port: int = 0
    accepted: int = 0  # connections so far
    _listener: socket.socket | None = None
    _planned: list[Trouble] = field(default_factory=list)
    _always: Trouble | None = None
    _open: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._listener is not None
        self._over.set()
        # Closing alone does not wake a thread that waits in accept.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_now()
        for thread in self._threads:
            thread.join(10)

    # --- what it may be told ---

    def cut_after(self, size: int, *, times: int = 1) -> None:
        """Break the next connections after so many bytes of what the server answers."""
        self._plan(times, lambda: Trouble(down=size))

    def cut_upload_after(self, size: int, *, times: int = 1) -> None:
        """Break the next connections after so many bytes of what the client sends."""
        self._plan(times, lambda: Trouble(up=size))

    def delay(self, seconds: float, *, times: int = 1) -> None:
        """Hold back each block of the answers on the next connections."""
        self._plan(times, lambda: Trouble(delay=seconds))

    def refuse(self, *, times: int = 1) -> None:
        """Close the next connections at once."""
        self._plan(times, lambda: Trouble(refuse=True))

    def fail(self, status: int = 500, text: str = "made up", *, times: int = 1) -> None:
        """Answer the next connections by a status of its own; the server hears nothing."""
        said = text.encode()
        self._plan(times, lambda: Trouble(answer=FAILURE % (status, len(said), said)))

    def always(self, trouble: Trouble | None) -> None:
        """Make this trouble for every connection from now on, or none any more."""
        with self._lock:
            self._always = trouble

    def cut_now(self) -> None:
        """Break every connection there is, as a cable that is pulled."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            _break(end)

    # --- how it does it ---

    def _plan(self, times: int, trouble: Callable[[], Trouble]) -> None:
        with self._lock:
            self._planned += [trouble() for _time in range(times)]

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                trouble = self._planned.pop(0) if self._planned else self._always or Trouble()
            self._start(self._serve, client, trouble)

    def _serve(self, client: socket.socket, trouble: Trouble) -> None:
        if trouble.refuse:
            _break(client)
            return
        if trouble.answer:
            with self._lock:
                self._open.append(client)
            with client, suppress(OSError):
                client.recv(BLOCK)
                client.sendall(trouble.answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(BLOCK):
                    pass  # whoever closes with requests unread takes the answer back
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            _break(client)
            return
        with self._lock:
            self._open += [client, server]
        down = self._start(self._forward, server, client, trouble.down, trouble.delay)
        self._forward(client, server, trouble.up)
        down.join()
        for end in (client, server):
            end.close()

    def _forward(
        self, source: socket.socket, sink: socket.socket, limit: int | None, delay: float = 0.0
    ) -> None:
        done = 0
        try:
            while block := source.recv(BLOCK):
                self._over.wait(delay)
                if limit is not None and done + len(block) >= limit:
                    sink.sendall(block[: limit - done])
                    break
                sink.sendall(block)
                done += len(block)
            else:
                sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        # What was forwarded is to arrive: a reset would take back what is not read yet.
        _break(sink, abruptly=limit is None)
        _break(source)


def _break(end: socket.socket, *, abruptly: bool = True) -> None:
    """Close an end, by a reset or after what was sent, and wake whoever reads from it."""
    try:
        if abruptly:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
