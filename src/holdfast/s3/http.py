"""HTTP to an S3 server: one request at a time from each of many threads, repeated with patience.

Every request here may be sent twice without harm: what it makes is the same. So each is repeated
after a connection that could not be made or broke, and after the statuses that a server gives
while it is busy (`PASSING`), with growing pauses, `Patience.attempts` times in all. A body that
breaks off is continued from the byte it got to, and only if the object is still the same one.

Every failure leaves as a row of ``errors``, but for the statuses that a caller says it expects.
"""

from __future__ import annotations

import hashlib
import random
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from holdfast.errors import (
    AccessRefused,
    Cancelled,
    ConnectionLost,
    HoldfastError,
    ServerFailed,
    ServerUnreachable,
    SourceMissing,
)

from .sign import NOTHING, Query, Signer, canonical, quoted
from .wire import BrokenAnswerError, Connection, Head
from .xml import problem_in

PASSING = frozenset({408, 429, 500, 502, 503, 504})
PASSING_CODES = frozenset({"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"})
OTHER_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"})
REFUSED = frozenset({401, 403})
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 8.0  # seconds
AMAZON = "amazonaws.com"
SHOWN = 200  # characters of what a server says


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try, and how many seconds to wait for a connection and for the next byte."""

    attempts: int = 6
    connect: float = 10.0
    answer: float = 60.0

    def turns(self) -> Iterator[int]:
        """Count the attempts, with a pause before each but the first."""
        for turn in range(self.attempts):
            if turn:
                longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (turn - 1))
                time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - it spreads clients
            yield turn


@dataclass(frozen=True, slots=True)
class Address:
    """Where a bucket is. ``endpoint`` is empty for Amazon's own servers."""

    bucket: str
    endpoint: str = ""
    virtual: bool = False  # the bucket is a part of the host's name, not of the path

    @classmethod
    def of(cls, bucket: str, endpoint: str | None, addressing: str) -> Address:
        """Return where a bucket is; ``addressing`` is path, virtual, or auto: as is usual there."""
        server = (endpoint or "").rstrip("/")
        at_amazon = not server or AMAZON in server
        virtual = at_amazon and "." not in bucket  # a certificate covers one part of a name
        if addressing != "auto":
            virtual = addressing == "virtual"
        return cls(bucket, server, virtual)

    def base(self, region: str) -> str:
        """Return the URL of the server, without the bucket."""
        return self.endpoint or f"https://s3.{region}.{AMAZON}"

    def host(self, region: str) -> str:
        """Return the name that is asked, with its port where it is not the usual one."""
        host = urlsplit(self.base(region)).netloc.rpartition("@")[2]
        return f"{self.bucket}.{host}" if self.virtual else host

    def path(self, region: str, key: str) -> str:
        """Return the quoted path of a key, or of the bucket itself where that is empty."""
        above = urlsplit(self.base(region)).path.rstrip("/")
        if self.virtual:
            return f"{above}/{quoted(key)}"
        return f"{above}/{quoted(self.bucket)}/{quoted(key)}" if key else f"{above}/{self.bucket}"


@dataclass(slots=True)
class Answer:
    """What a server said. ``body`` is what was asked for, or an XML document."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes | bytearray = b""
    longer: bool = False  # the body was longer than the limit and is not here

    @property
    def code(self) -> str:
        """The server's word for what is wrong, such as ``NoSuchKey``; empty without one."""
        return problem_in(self.body)[0]

    @property
    def etag(self) -> str:
        """The entity tag, in its quotation marks."""
        return self.headers.get("etag", "")


@dataclass(slots=True)
class _Body:
    """The body of an object, as far as it got; it may come by several answers."""

    data: bytearray = field(default_factory=bytearray)
    got: int = 0

    def take(self, connection: Connection, size: int) -> None:
        """Read exactly ``size`` more bytes; what came before a break stays."""
        if not self.got:
            self.data = bytearray(size)
        if self.got + size != len(self.data):
            raise BrokenAnswerError("it continued with another length")
        with memoryview(self.data) as view:
            while self.got < len(self.data):
                self.got += connection.read_into(view[self.got :])


class Client:
    """Sends signed requests to one bucket. May be used by several threads."""

    def __init__(  # noqa: PLR0913, PLR0917 - whose, where, as whom, and how
        self,
        component: str,
        address: Address,
        signer: Signer,
        patience: Patience,
        context: ssl.SSLContext | None = None,
        ca: Path | None = None,
    ) -> None:
        """Connect to nothing yet. ``ca`` is a file of certificates to trust beside the system's."""
        self.component = component
        self.address = address
        self.signer = signer
        self.patience = patience
        self._context = context
        self.ca = ca
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._abandoned = False
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """Say which bucket it is, and at whose place; never as whom."""
        host = self.address.host(self.signer.region)
        return f"s3://{self.address.bucket} at {host}"

    def close(self) -> None:
        """Close the connections that are not in use."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def abandon(self) -> None:
        """Break off what other threads are asking; from now on every request fails at once."""
        with self._lock:
            self._abandoned = True
            busy = list(self._busy)
        for connection in busy:
            with suppress(OSError):  # it may have ended by itself
                connection.interrupt()

    # --- requests ---

    def call(  # noqa: PLR0913, PLR0917 - the parts of a request, in their order
        self,
        method: str,
        key: str = "",
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | bytearray = b"",
        accept: Collection[int] = (),
    ) -> Answer:
        """Send a request until it is answered, and return the answer.

        Raises:
            ServerUnreachable, ConnectionLost: it cannot be asked, or does not answer in time.
            AccessRefused, ServerFailed, SourceMissing: what it answers, unless ``accept`` has that.

        """
        failure: OSError | None = None
        answer: Answer | None = None
        for _turn in self.patience.turns():
            try:
                answer = self._once(method, key, query, headers or {}, body)
            except OSError as error:
                self._refuse_hopeless(error)
                failure, answer = error, None
                continue
            if not self._passing(answer):
                return self._judged(answer, key, accept)
        if answer is not None:
            return self._judged(answer, key, accept)
        raise self._unreachable(failure)

    def get(  # noqa: PLR0913 - what of an object, and which one
        self,
        key: str,
        query: Query = (),
        *,
        start: int = 0,
        length: int | None = None,
        etag: str = "",
        limit: int,
        accept: Collection[int] = (),
    ) -> Answer:
        """Read an object, or ``length`` bytes of it from ``start``, into memory.

        With ``etag`` it must be that one, or the answer has status 412. A body that breaks off is
        continued, never with the bytes of another object. Of one that is longer than ``limit``
        bytes only the headers are returned.

        Raises:
            As `call`.

        """
        body = _Body()
        first: Answer | None = None
        failure: OSError | None = None
        answer: Answer | None = None
        for _turn in self.patience.turns():
            end = None if length is None else start + length
            headers = _part(start + body.got, end, etag)
            try:
                answer = self._once("GET", key, query, headers, b"", body, limit)
            except OSError as error:
                self._refuse_hopeless(error)
                failure, answer = error, None
                if isinstance(error, BodyBrokenError) and first is None:
                    first = error.answer
                    etag = etag or first.etag
                continue
            if answer.status in {200, 206}:
                return replace(first or answer, body=body.data, longer=answer.longer)
            if not self._passing(answer):
                return self._judged(answer, key, accept)
        if answer is not None:
            return self._judged(answer, key, accept)
        raise self._unreachable(failure)

    # --- one request ---

    def _once(  # noqa: PLR0913, PLR0917 - the parts of a request, and where its answer goes
        self,
        method: str,
        key: str,
        query: Query,
        headers: Mapping[str, str],
        body: bytes | bytearray,
        into: _Body | None = None,
        limit: int = 0,
    ) -> Answer:
        """Send a request once. A connection that was idle may have ended: then once more."""
        connection, used = self._connection()
        while True:
            with self._watching(connection):
                try:
                    self._send(connection, method, key, query, headers, body)
                    head = connection.head(method)
                except OSError:
                    connection.close()
                    if not used:
                        raise
                else:
                    return self._received(connection, head, into, limit)
            connection, used = self._connect(), False

    @contextmanager
    def _watching(self, connection: Connection) -> Iterator[None]:
        """Let `abandon` know of a connection in use; keep it for the next one if it is good."""
        with self._lock:
            self._busy.add(connection)
        clean = False
        try:
            yield
            clean = connection.usable and not self._abandoned
        finally:
            with self._lock:
                self._busy.discard(connection)
                if clean:
                    self._idle.append(connection)
            if not clean:
                connection.close()

    def _send(  # noqa: PLR0913, PLR0917 - the parts of a request, in their order
        self,
        connection: Connection,
        method: str,
        key: str,
        query: Query,
        headers: Mapping[str, str],
        body: bytes | bytearray,
    ) -> None:
        region = self.signer.region
        host, path = self.address.host(region), self.address.path(region, key)
        sent = {name: value.encode("utf-8", "surrogateescape") for name, value in headers.items()}
        digest = hashlib.sha256(body).hexdigest() if body else NOTHING
        signed = self.signer.signed(method, host, path, query, sent, digest)
        target = f"{path}?{canonical(query)}" if query else path
        connection.send(method, target, signed, body)

    def _received(
        self,
        connection: Connection,
        head: Head,
        into: _Body | None,
        limit: int,
    ) -> Answer:
        """Read an answer; the body of an object goes ``into`` what of it there is already."""
        answer = Answer(head.status, head.headers)
        if into is None or head.status not in {200, 206}:
            answer.body = connection.read(head)
        elif into.got and head.status != 206:  # noqa: PLR2004 - partial content
            raise self._failed("it does not continue where an answer broke off")
        elif head.length is None and not into.got:
            into.data = bytearray(connection.read(head, limit))
            into.got = len(into.data)
            answer.longer = into.got > limit
        elif head.length is None or into.got + head.length > limit:
            answer.longer = True
        else:
            try:
                into.take(connection, head.length)
            except OSError as error:
                raise BodyBrokenError(answer, error) from error
        if head.closes or answer.longer:
            connection.close()
        return answer

    def _connection(self) -> tuple[Connection, bool]:
        """Return a connection, and whether it was used before."""
        with self._lock:
            if self._abandoned:
                raise Cancelled
            if self._idle:
                return self._idle.pop(), True
        return self._connect(), False

    def _connect(self) -> Connection:
        parts = urlsplit(self.address.base(self.signer.region))
        host = urlsplit(f"//{self.address.host(self.signer.region)}")
        secure = parts.scheme == "https"
        context = self._trusting() if secure else None
        try:
            return Connection(
                host.hostname or "",
                host.port or (443 if secure else 80),
                context,
                self.patience.connect,
                self.patience.answer,
            )
        except OSError as error:
            raise NotConnectedError(_said(error)) from error

    def _trusting(self) -> ssl.SSLContext:
        """Return what certificates are judged by; to make it takes as long as many requests."""
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
                if self.ca is not None:
                    self._context.load_verify_locations(self.ca)
            return self._context

    # --- judging ---

    def _passing(self, answer: Answer) -> bool:
        """Tell whether it is worth asking again; moves to the region that the server names."""
        if answer.status in PASSING or (answer.body and answer.code in PASSING_CODES):
            return True
        region = answer.headers.get("x-amz-bucket-region") or problem_in(answer.body)[2]
        moved = answer.status in {301, 307} or answer.code in OTHER_REGION
        if moved and region and region != self.signer.region:
            self.signer.region = region
            self.close()
            return True
        return False

    def _judged(self, answer: Answer, key: str, accept: Collection[int]) -> Answer:
        code, said, region = problem_in(answer.body)
        if answer.status in {200, 204, 206} and not code:
            return answer
        if code == "NoSuchBucket":
            raise SourceMissing(component=self.component, path=self.where)
        if answer.status in accept:
            return answer
        reason = f"{code or answer.status} {said}".strip()[:SHOWN]
        if answer.status in REFUSED:
            raise AccessRefused(component=self.component, where=self.where, reason=reason)
        if region:
            reason += f" (the bucket is in the region {region})"
        if key:
            reason = f"{key}: {reason}"
        raise self._failed(reason)

    def _failed(self, reason: str) -> HoldfastError:
        return ServerFailed(component=self.component, where=self.where, reason=reason)

    def _refuse_hopeless(self, error: Exception) -> None:
        """Raise at once where another attempt would end as this one did."""
        cause = error.__cause__ or error
        if isinstance(cause, ssl.SSLCertVerificationError):
            self._raise_unreachable(cause.verify_message)

    def _raise_unreachable(self, reason: str) -> NoReturn:
        raise ServerUnreachable(component=self.component, where=self.where, reason=reason)

    def _unreachable(self, error: Exception | None) -> HoldfastError:
        reason = _said(error)
        if isinstance(error, TimeoutError) or isinstance(error and error.__cause__, TimeoutError):
            reason = f"it has not answered for {self.patience.answer:g} s"
        if isinstance(error, NotConnectedError):
            return ServerUnreachable(component=self.component, where=self.where, reason=reason)
        return ConnectionLost(component=self.component, where=self.where, reason=reason)


class NotConnectedError(OSError):
    """No connection could be made."""


class BodyBrokenError(OSError):
    """A body broke off; ``answer`` has its headers."""

    def __init__(self, answer: Answer, error: Exception) -> None:
        super().__init__(_said(error))
        self.answer = answer


def _part(start: int, end: int | None, etag: str) -> dict[str, str]:
    headers = {"if-match": etag} if etag else {}
    if start or end is not None:
        headers["range"] = f"bytes={start}-" + ("" if end is None else str(end - 1))
    return headers


def _said(error: Exception | None) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


__all__ = ["Address", "Answer", "Client", "Patience"]
