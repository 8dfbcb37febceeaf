"""HTTP to the server of a store: patience, errors in our own words, and bodies that stream.

A `Server` is one address with its credentials. It is used like this::

    with Server("vectors", url, headers={"api-key": key}, patience=Patience()) as server:
        names = server.call("GET", "/collections").json()
        with server.download(path("collections", name, "snapshots", snapshot), size=n) as chunks:
            ...

What is repeated, and when it is safe:

- A call is repeated only where its caller says ``again`` (reading ones by default): after a
  connection that could not be made or broke, and after the statuses in `PASSING`, which a server
  gives while it is busy or starting. Nothing that was sent as a stream is ever repeated.
- A download that breaks off goes on from the byte it got to, where the server can do that and the
  content has not changed meanwhile; a digest over the whole shows that it is one piece.
- Redirects are not followed: credentials stay with the server they are for.

Every failure is raised as a row of ``errors``; nothing of httpx gets out of here. It is imported on
use, so that whoever has no such server needs no such package.
"""

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    ExtraMissing,
    HoldfastError,
    ServerFailed,
    ServerUnreachable,
)
from holdfast.model.artifact import CHUNK, Chunk, Chunks

if TYPE_CHECKING:
    import httpx

READING = frozenset({"GET", "HEAD"})
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # a moment later it may be different
REFUSED = frozenset({401, 403})
LONGEST_PAUSE = 30.0  # seconds that a server may ask us to wait before we try again
SHOWN = 300  # characters of what a server says that are shown
MASK = "***"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds, and how often to try.

    ``answer`` is how long the server may be silent; a call that is known to take long brings its
    own. ``pause`` is what is waited before the second attempt, and doubles from there.
    """

    connect: float = 10.0
    answer: float = 60.0
    attempts: int = 4
    pause: float = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to a call: a status that was accepted, and the whole body."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    server: Server = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON; raises `ServerFailed` for one that is none."""
        import json

        try:
            return json.loads(self.body)
        except ValueError as error:
            raise self.server.failed("its answer is no JSON") from error


class Server:
    """A server at one address. May be used in several threads; making it touches nothing.

    ``headers`` hold what authorises us; their values are never shown. ``authority`` is a file of
    certificates to trust in place of the system's. Leave its context, or `close` it.
    """

    def __init__(
        self,
        component: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        authority: Path | None = None,
    ) -> None:
        if find_spec("httpx") is None:
            raise ExtraMissing(what=f"{component}, a server", package="httpx", extra="qdrant")
        self.component = component
        self.where = without_secrets(url)
        self.patience = patience or Patience()
        self._url = url
        self._headers = dict(headers or {})
        self._authority = authority

    # --- lifetime ---

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections; it can still be used and then opens new ones."""
        if "_client" in self.__dict__:
            self._client.close()
            del self.__dict__["_client"]

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        try:
            return httpx.Client(
                base_url=self._url,
                headers=self._headers,
                verify=self._trust(),
                timeout=self._timeout(self.patience.answer),
                follow_redirects=False,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise self.failed(f"its address cannot be used: {error}") from error

    def _trust(self) -> ssl.SSLContext:
        if urlsplit(self._url).scheme != "https":
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used; loading the trusted is slow
        try:
            return ssl.create_default_context(cafile=self._authority)
        except (OSError, ssl.SSLError) as error:
            reason = f"{self._authority} is no file of certificates: {error}"
            raise self._unreachable(reason) from error

    def _timeout(self, seconds: float) -> httpx.Timeout:
        import httpx

        return httpx.Timeout(seconds, connect=self.patience.connect)

    # --- calls with a short answer ---

    def call(  # noqa: PLR0913 - what a request consists of, and how patient to be
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: Iterable[Chunk] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
        seconds: float | None = None,
        again: bool | None = None,
    ) -> Answer:
        """Send one request and return its answer.

        Statuses below 300 and those in ``accept`` are answers, all others raise. ``json`` (a
        value, or bytes that are JSON already) or ``content`` is the body; what ``content`` raises
        comes out as it is, after the connection was closed in the middle of the request.
        ``seconds`` is how long the server may be silent. ``again`` says that the call may be
        repeated; by default only reading ones are.

        Raises:
            ServerUnreachable: no connection could be made, or its certificate is not trusted.
            AccessRefused: the server wants other credentials.
            ConnectionLost: the connection broke, or the answer did not come in time.
            ServerFailed: the server said no, or what it said makes no sense.

        """
        repeat = (method in READING if again is None else again) and content is None

        written = json if isinstance(json, bytes) else None
        if written is not None:
            about = {"content-type": "application/json", "content-length": str(len(written))}
            headers = {**about, **(headers or {})}

        def send() -> httpx.Response:
            body = content if written is None else _pieces(written)
            return self._client.request(
                method,
                path,
                params=params,
                json=json if written is None else None,
                content=None if body is None else _as_bytes(body),
                headers=headers,
                timeout=self._timeout(seconds or self.patience.answer),
            )

        response = self._accepted(send, accept, self.patience.attempts if repeat else 1)
        return Answer(response.status_code, response.content, response.headers, self)

    @contextmanager
    def ask(
        self, path: str, question: Any, *, accept: Collection[int] = ()
    ) -> Iterator[tuple[int, Chunks]]:
        """Post a question that changes nothing, as JSON, and give the status and a long answer.

        It is asked again, as `call` would, until the answer begins. Raises what `call` does, the
        chunks `ConnectionLost` where the answer breaks off.
        """

        def send() -> httpx.Response:
            timeout = self._timeout(self.patience.answer)
            request = self._client.build_request("POST", path, json=question, timeout=timeout)
            return self._client.send(request, stream=True)

        response = self._accepted(send, accept, self.patience.attempts)
        try:
            yield response.status_code, self._body_of(response)
        finally:
            response.close()

    def _body_of(self, response: httpx.Response) -> Chunks:
        import httpx

        try:
            yield from response.iter_bytes(CHUNK)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise self.translated(error) from error

    def _accepted(
        self, send: Callable[[], httpx.Response], accept: Collection[int], attempts: int
    ) -> httpx.Response:
        """Send until there is an answer that is a success or in ``accept``; others raise."""
        import httpx

        for attempt in range(1, attempts + 1):
            try:
                response = send()
                if response.is_success or response.status_code in accept:
                    return response
                body = response.read()
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                failure = self.translated(error)
                if attempt == attempts or not failure.retryable or _untrusted(error):
                    raise failure from error
                self._wait(attempt)
                continue
            response.close()
            if attempt == attempts or response.status_code not in PASSING:
                raise self.refused(response.status_code, body)
            self._wait(attempt, response.headers.get("retry-after", ""))
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, attempt: int, asked: str = "") -> None:
        seconds = self.patience.pause * 2 ** (attempt - 1)
        if asked.isdigit():
            seconds = max(seconds, float(asked))
        time.sleep(min(seconds, LONGEST_PAUSE))

    # --- long answers ---

    @contextmanager
    def download(  # noqa: PLR0913 - what to get, and by what to judge it
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        size: int | None = None,
        sha256: str = "",
        resume: bool = True,
        seconds: float | None = None,
    ) -> Iterator[Chunks]:
        """Give the body that a path has, in chunks of at most `CHUNK` bytes.

        ``size`` and ``sha256`` (hexadecimal; empty: not known) are what it must have at its end.
        ``resume`` says that a broken download may go on where it broke off: only for content that
        never changes under its path, and best with ``sha256``. ``seconds`` is how long the server
        may be silent.

        Raises:
            ServerUnreachable, AccessRefused, ServerFailed: as `call` does.
            ConnectionLost: it broke off, and could not be gone on with.
            ServerFailed: it was not as long as it should be, or is not what was sworn.

        """
        download = _Download(self, path, params or {}, seconds or self.patience.answer)
        try:
            yield download.chunks(size, sha256.lower(), resume=resume)
        finally:
            download.close()

    # --- errors ---

    def translated(self, error: Exception) -> HoldfastError:
        """Return the row of ``errors`` for what httpx raised."""
        import httpx

        reason = self._shown(str(error) or type(error).__name__)
        if isinstance(error, httpx.ConnectTimeout):
            return self._unreachable(f"no connection within {self.patience.connect:g} s")
        if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.PoolTimeout):
            return self._unreachable(f"no trust: {reason}" if _untrusted(error) else reason)
        if isinstance(error, httpx.TimeoutException):
            return self._lost("it was silent for too long")
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            return self._lost(reason)
        return self.failed(reason)

    def refused(self, status: int, body: bytes) -> HoldfastError:
        """Return the row of ``errors`` for a status that is no success."""
        said = self._shown(what_it_says(body))
        reason = f"HTTP {status}: {said}" if said else f"HTTP {status}"
        if status in REFUSED:
            return AccessRefused(component=self.component, where=self.where, reason=reason)
        return self.failed(reason)

    def failed(self, reason: str) -> ServerFailed:
        """Return the row for a server that does not do what it should."""
        return ServerFailed(component=self.component, where=self.where, reason=self._shown(reason))

    def _unreachable(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(component=self.component, where=self.where, reason=reason)

    def _lost(self, reason: str) -> ConnectionLost:
        return ConnectionLost(component=self.component, where=self.where, reason=reason)

    def _shown(self, text: str) -> str:
        """Return text that may be shown: short, and without our credentials, should it quote."""
        for secret in (*self._headers.values(), urlsplit(self._url).password or ""):
            if secret:
                text = text.replace(secret, MASK)
        return text if len(text) <= SHOWN else text[:SHOWN] + "…"


class _NotNowError(Exception):
    """A status that may be another one a moment later."""

    def __init__(self, failure: HoldfastError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class _Download:
    """A body on its way, over as many connections as it takes."""

    def __init__(
        self, server: Server, path: str, params: Mapping[str, str], seconds: float
    ) -> None:
        self._server = server
        self._path = path
        self._params = params
        self._seconds = seconds
        self._response: httpx.Response | None = None
        self._mark = ""  # what tells this content from another under the same path

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def chunks(self, size: int | None, sha256: str, *, resume: bool) -> Chunks:
        digest = hashlib.sha256() if sha256 else None
        done = 0
        for chunk in self._pieces(resume=resume):
            done += len(chunk)
            if digest is not None:
                digest.update(chunk)
            yield chunk
        if size is not None and done != size:
            raise self._server.failed(f"{done} bytes came of {self._path}, not {size}")
        if digest is not None and digest.hexdigest() != sha256:
            raise self._server.failed(f"what came of {self._path} has another checksum than it has")

    def _pieces(self, *, resume: bool) -> Chunks:
        import httpx

        done, failures = 0, 0
        while True:
            try:
                for chunk in self._body(done):
                    done += len(chunk)
                    failures = 0
                    yield chunk
            except (httpx.HTTPError, httpx.StreamError, _NotNowError) as error:
                passing = isinstance(error, _NotNowError)
                failure = (
                    error.failure
                    if isinstance(error, _NotNowError)
                    else self._server.translated(error)
                )
                failures += 1
                goes_on = (passing or failure.retryable) and not _untrusted(error)
                begun = done > 0 and not resume
                if begun or not goes_on or failures >= self._server.patience.attempts:
                    raise failure from error
                self._server._wait(failures)  # noqa: SLF001 - its own other half
            else:
                return

    def _body(self, start: int) -> Chunks:
        """Give the body from a byte on, over one connection."""
        self.close()
        client = self._server._client  # noqa: SLF001 - its own other half
        headers = {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        request = client.build_request(
            "GET",
            self._path,
            params=self._params,
            headers=headers,
            timeout=self._server._timeout(self._seconds),  # noqa: SLF001 - its own other half
        )
        self._response = client.send(request, stream=True)
        self._demand(self._response, start)
        yield from self._response.iter_raw(CHUNK)

    def _demand(self, response: httpx.Response, start: int) -> None:
        """Refuse an answer that is not the content from this byte on."""
        import httpx

        wanted = httpx.codes.PARTIAL_CONTENT if start else httpx.codes.OK
        if response.status_code != wanted:
            if start and response.is_success:
                raise httpx.RemoteProtocolError("and the server cannot go on where it broke off")
            failure = self._server.refused(response.status_code, response.read())
            raise _NotNowError(failure) if response.status_code in PASSING else failure
        came = response.headers.get("content-range", "")
        if start and not came.startswith(f"bytes {start}-"):
            raise httpx.RemoteProtocolError(f"asked for what follows byte {start}, got {came!r}")
        mark = response.headers.get("etag", "") or response.headers.get("last-modified", "")
        if start and mark != self._mark:
            raise self._server.failed(f"{self._path} changed while it was read")
        self._mark = mark


def path(*parts: str) -> str:
    """Return the path of these parts; whatever a part holds, it stays one part."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


def without_secrets(url: str) -> str:
    """Return a URL that may be shown: without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def what_it_says(body: bytes) -> str:
    """Return the reason in the body of a refusal, whatever form it has; empty where there is none.

    Known are ``{"status": {"error": …}}``, ``{"error": …, "message": …}``, ``{"detail": …}`` and
    plain text.
    """
    import json

    text = body.decode("utf-8", "replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return " ".join(text.split())
    while isinstance(said, dict):
        keys = ("message", "error", "detail", "status")
        said = next((said[key] for key in keys if said.get(key)), "")
    return said if isinstance(said, str) else json.dumps(said)


def _pieces(body: bytes) -> Iterator[bytes]:
    """Give a body in pieces: as one, a large one would be copied whenever a part of it is sent."""
    return (body[at : at + CHUNK] for at in range(0, len(body), CHUNK))


def _as_bytes(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    return (chunk if isinstance(chunk, bytes) else bytes(chunk) for chunk in chunks)


def _untrusted(error: BaseException | None) -> bool:
    """Tell whether a connection was refused for its certificate, which waiting does not change."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False
