"""HTTP/1.1 on one connection: requests that are sent whole, and answers that are read whole.

The standard library's client takes headers that broke off for all of them: what describes an object
would be lost in silence. It also spends more time on the headers of a small object than on all the
rest. This one knows what S3 servers say: lengths, chunks, and connections that end. See RFC 9112.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

BUFFER = 1 << 16  # bytes
LONGEST_LINE = 1 << 16
MOST_HEADERS = 1000
CONTINUE, NO_CONTENT, NOT_MODIFIED = 100, 204, 304


class BrokenAnswerError(OSError):
    """An answer ended before it was whole, or is none."""


@dataclass(slots=True)
class Head:
    """What comes before a body. Names of headers are in lower case.

    ``length`` is the number of bytes that follow; None: as many as there are chunks, or come until
    the connection ends.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = 0
    chunked: bool = False
    closes: bool = False


class Connection:
    """A connection, used by one thread at a time."""

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, connect: float, answer: float
    ) -> None:
        """Connect, within ``connect`` seconds. From then on each byte may take ``answer`` seconds.

        Raises ``OSError``.
        """
        sock = socket.create_connection((host, port), connect)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname=host)
            sock.settimeout(answer)
        except BaseException:
            sock.close()
            raise
        self._sock = sock
        raw = cast("io.RawIOBase", sock.makefile("rb", buffering=0))
        self._file = io.BufferedReader(raw, BUFFER)
        self.usable = True  # whether another request may follow

    def close(self) -> None:
        """End it."""
        self.usable = False
        self._file.close()
        self._sock.close()

    def interrupt(self) -> None:
        """Make whoever waits for it fail at once; may be called by another thread."""
        self._sock.shutdown(socket.SHUT_RDWR)

    def send(
        self, method: str, target: str, headers: Mapping[str, bytes], body: bytes | bytearray
    ) -> None:
        """Send a request. Raises ``OSError``, or ``ValueError`` for what no header may hold."""
        lines = [f"{method} {target} HTTP/1.1\r\n".encode("ascii")]
        for name, value in headers.items():
            if b"\r" in value or b"\n" in value or b"\0" in value:
                raise ValueError(f"the header {name} would hold control characters")
            lines.append(b"%s: %s\r\n" % (name.encode("ascii"), value))
        lines.append(b"content-length: %d\r\n\r\n" % len(body) if body else b"\r\n")
        if method in {"PUT", "POST"} and not body:
            lines[-1] = b"content-length: 0\r\n\r\n"
        self._sock.sendall(b"".join(lines))
        if body:
            self._sock.sendall(body)

    def head(self, method: str) -> Head:
        """Read what comes before the body of an answer.

        Raises ``OSError``.
        """
        head = self._head()
        while head.status == CONTINUE:
            head = self._head()
        headers = head.headers
        head.closes = "close" in headers.get("connection", "").lower()
        if method == "HEAD" or head.status in {NO_CONTENT, NOT_MODIFIED}:
            return head
        if "chunked" in headers.get("transfer-encoding", "").lower():
            head.chunked, head.length = True, None
        elif (length := headers.get("content-length")) is None:
            head.length, head.closes = None, True
        elif not length.isascii() or not length.isdecimal():
            raise BrokenAnswerError("its length is no number")
        else:
            head.length = int(length)
        return head

    def _head(self) -> Head:
        version, _space, rest = self._line().partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise BrokenAnswerError("it does not speak HTTP")
        head = Head(int(rest[:3]))
        for _number in range(MOST_HEADERS):
            line = self._line()
            if not line:
                return head
            name, colon, value = line.partition(b":")
            if not colon or name.strip() != name:
                raise BrokenAnswerError("its headers make no sense")
            key = name.decode("latin-1").lower()
            text = value.strip().decode("utf-8", "surrogateescape")
            before = head.headers.get(key)
            head.headers[key] = text if before is None else f"{before}, {text}"
        raise BrokenAnswerError("its headers have no end")

    def _line(self) -> bytes:
        line = self._file.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise BrokenAnswerError("it ended in its headers" if line else "it said nothing")
        return line.rstrip(b"\r\n")

    def read_into(self, view: memoryview) -> int:
        """Read some bytes of a body whose length is known. Raises ``OSError``, also at its end."""
        count = self._file.readinto(view)
        if not count:
            raise BrokenAnswerError(f"it ended {len(view)} bytes early")
        return count

    def read(self, head: Head, limit: int | None = None) -> bytes:
        """Read a whole body; of one that is longer than ``limit`` only so much as shows that.

        Raises ``OSError``.
        """
        if head.length is not None:
            return self._exactly(head.length)
        if not head.chunked:
            return self._file.read() if limit is None else self._file.read(limit + 1)
        parts = []
        size = 0
        while length := self._chunk_length():
            parts.append(self._exactly(length))
            self._line()
            size += length
            if limit is not None and size > limit:
                return b"".join(parts)
        while self._line():
            pass  # headers after the body
        return b"".join(parts)

    def _chunk_length(self) -> int:
        text = self._line().partition(b";")[0].strip()
        try:
            length = int(text, 16)
        except ValueError as error:
            raise BrokenAnswerError("its chunks make no sense") from error
        if length < 0:
            raise BrokenAnswerError("its chunks make no sense")
        return length

    def _exactly(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) != length:
            raise BrokenAnswerError(f"it ended {length - len(data)} bytes early")
        return data
