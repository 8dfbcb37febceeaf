"""Talking to a Redis server: one connection, its handshake, commands and pipelines.

The protocol is RESP2, as https://redis.io/docs/latest/develop/reference/protocol-spec has it. It is
spoken here rather than by a driver because replication takes a connection over in the middle.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    ServerFailed,
    ServerUnreachable,
)
from holdfast.model.artifact import Chunk

from ._redis_place import Place

_BUFFER = 1 << 18
_REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM")
Word = str | bytes | int


@dataclass(frozen=True, slots=True)
class Said:
    """An error that the server answered with."""

    text: str

    @property
    def refused(self) -> bool:
        """Whether the account may not do it, or the server does not let anybody."""
        return self.text.startswith(_REFUSALS) or self.unknown

    @property
    def unknown(self) -> bool:
        """Whether the server has no such command, or has it under another name."""
        return self.text.lower().startswith(("err unknown command", "err unknown subcommand"))


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached. Its ``repr`` has no password."""

    component: str
    place: Place
    password: str = field(default="", repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    connect_timeout: float = 10.0
    timeout: float = 60.0

    def connect(self) -> Wire:
        """Return a connection on which the account is logged in.

        Raises:
            ServerUnreachable, AccessRefused: what it says.

        """
        wire = Wire(self, self._socket())
        try:
            wire.log_in()
        except BaseException:
            wire.close()
            raise
        return wire

    def _socket(self) -> socket.socket:
        try:
            talking = self._connected()
        except ssl.SSLCertVerificationError as error:
            raise self.unreachable(
                f"its certificate is not trusted: {error.verify_message}"
            ) from error
        except ssl.SSLError as error:
            raise self.unreachable(f"no TLS: {error.reason or error}") from error
        except OSError as error:
            raise self.unreachable(_reason(error)) from error
        talking.settimeout(self.timeout)
        return talking

    def _connected(self) -> socket.socket:
        place = self.place
        if place.path:
            with _closed_on_failure(socket.socket(socket.AF_UNIX)) as near:
                near.settimeout(self.connect_timeout)
                near.connect(place.path)
            return near
        with _closed_on_failure(
            socket.create_connection((place.host, place.port), self.connect_timeout)
        ) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._secured(plain) if place.secure else plain

    def _secured(self, plain: socket.socket) -> socket.socket:
        context = ssl.create_default_context(cafile=self.ca)
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        try:
            return context.wrap_socket(plain, server_hostname=self.place.host)
        except TimeoutError as error:
            raise self.unreachable("no TLS: it does not answer to a handshake") from error

    def unreachable(self, reason: str) -> ServerUnreachable:
        """Return the error that it cannot be reached."""
        return ServerUnreachable(component=self.component, where=self.place, reason=reason)

    def failed(self, reason: str) -> ServerFailed:
        """Return the error that the server failed."""
        return ServerFailed(component=self.component, where=self.place, reason=reason)

    def refused(self, reason: str) -> AccessRefused:
        """Return the error that it refuses access. A password that it repeats is left out."""
        shown = reason.replace(self.password, "…") if self.password else reason
        return AccessRefused(component=self.component, where=self.place, reason=shown)

    def lost(self, reason: str) -> ConnectionLost:
        """Return the error that the connection broke off."""
        return ConnectionLost(component=self.component, where=self.place, reason=reason)

    def error(self, command: str, said: Said) -> HoldfastError:
        """Return what an answer to a command means."""
        if said.text.startswith(_REFUSALS):
            return self.refused(f"{command}: {said.text}")
        return self.failed(f"{command}: {said.text}")


class Wire:
    """One connection. Not for several threads at once."""

    def __init__(self, access: Access, talking: socket.socket) -> None:
        self.access = access
        self.socket = talking
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it. May be called from another thread, to interrupt."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was faster
            pass
        finally:
            self.socket.close()

    def log_in(self) -> None:
        """Show the password, and find out whether the server wants one."""
        user, password = self.access.place.user, self.access.password
        if user or password:
            words = ["AUTH", *([user] if user else []), password]
            said = self.ask(*words)
            # A server without a password has nothing against one that is given.
            if isinstance(said, Said) and "without any password configured" not in said.text:
                raise self.access.refused(said.text)
        said = self.ask("PING")
        if isinstance(said, Said) and not said.text.startswith(("NOPERM", "LOADING", "BUSY")):
            raise self.access.error("PING", said)

    # --- commands ---

    def ask(self, *words: Word) -> Any:
        """Return the answer to a command, which may be `Said`.

        Raises:
            ConnectionLost: it broke off.

        """
        self.send(command(*words))
        return self.answer()

    def call(self, *words: Word) -> Any:
        """Return the answer to a command.

        Raises:
            AccessRefused, ServerFailed: it answered with an error.
            ConnectionLost: it broke off.

        """
        answer = self.ask(*words)
        if isinstance(answer, Said):
            raise self.access.error(str(words[0]), answer)
        return answer

    def info(self, section: str) -> dict[str, str]:
        """Return the fields of a section of ``INFO``."""
        lines = text(self.call("INFO", section)).splitlines()
        pairs = (line.partition(":") for line in lines if not line.startswith("#"))
        return {name: value for name, colon, value in pairs if colon}

    def setting(self, name: str) -> str | None:
        """Return a value of the server's configuration; None if it has none, or does not tell."""
        answer = self.ask("CONFIG", "GET", name)
        return text(answer[1]) if isinstance(answer, list) and len(answer) > 1 else None

    def send(self, data: Chunk) -> None:
        """Send bytes."""
        with self._connected():
            self.socket.sendall(data)

    # --- answers ---

    def answer(self) -> Any:
        """Return the next answer: text or number, bytes, None, a list, or `Said`."""
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode("utf-8", "backslashreplace")
        if kind == b"-":
            return Said(rest.decode("utf-8", "backslashreplace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            length = int(rest)
            return None if length < 0 else self.take(length + 2)[:-2]
        if kind == b"*":
            count = int(rest)
            return None if count < 0 else [self.answer() for _turn in range(count)]
        raise self.access.failed("it does not speak the protocol of Redis")

    def line(self) -> bytes:
        """Return the next line without its end."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _BUFFER:
                raise self.access.failed("it does not speak the protocol of Redis")
            self._more()
        return self.take(end + 2)[:-2]

    def take(self, count: int) -> bytes:
        """Return so many bytes."""
        while len(self._buffer) < count:
            self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def skip_newlines(self) -> None:
        """Pass over what the server sends only to show that it is alive."""
        while True:
            while self._buffer[:1] == b"\n":
                del self._buffer[:1]
            if self._buffer:
                return
            self._more()

    def rest(self, buffer: memoryview) -> int:
        """Put the next bytes that come into a buffer, and return how many."""
        if self._buffer:
            count = min(len(self._buffer), len(buffer))
            buffer[:count] = self._buffer[:count]
            del self._buffer[:count]
            return count
        with self._connected():
            count = self.socket.recv_into(buffer)
        if not count:
            raise self.access.lost("the server closed it")
        return count

    def _more(self) -> None:
        with self._connected():
            data = self.socket.recv(_BUFFER)
        if not data:
            raise self.access.lost("the server closed it")
        self._buffer += data

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            reason = f"nothing came for {self.access.timeout:g} s"
            raise self.access.lost(reason) from error
        except (OSError, ValueError) as error:
            raise self.access.lost(_reason(error)) from error


def command(*words: Word) -> bytes:
    """Return a command as it is sent."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = [b"*%d\r\n" % len(encoded)]
    parts += (b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
    return b"".join(parts)


def pipelined(wire: Wire, commands: Sequence[bytes]) -> Iterable[Any]:
    """Send several commands at once and give their answers; few enough to fit in its buffers."""
    wire.send(b"".join(commands))
    return [wire.answer() for _command in commands]


def text(value: Any) -> str:
    """Return an answer as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


@contextmanager
def _closed_on_failure(one: socket.socket) -> Iterator[socket.socket]:
    try:
        yield one
    except BaseException:
        one.close()
        raise


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
