"""HTTP to a server: what is repeated, what is not, and that every failure is a row of ours."""

from __future__ import annotations

import hashlib
import inspect
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from holdfast.errors import (
    AccessRefused,
    BackupDamaged,
    ConnectionLost,
    ExtraMissing,
    HoldfastError,
    ServerFailed,
    ServerUnreachable,
)
from holdfast.sources import _http
from holdfast.sources._http import Patience, Server, path, what_it_says, without_secrets
from servers.proxy import Proxy

QUICK = Patience(connect=5, answer=5, attempts=4, pause=0.01)
BODY = bytes(range(256)) * 8000  # 2 MB
DIGEST = hashlib.sha256(BODY).hexdigest()
SECRET = "very-secret-key"


class Handler(BaseHTTPRequestHandler):
    """Serves `BODY` with ranges; takes anything; says no as it is asked to."""

    protocol_version = "HTTP/1.1"
    requests: list[str]  # of the server of one test: set on a subclass
    taken: list[bytes]
    ranges = True
    tag = '"1"'

    def do_GET(self) -> None:
        self.requests.append(self.headers.get("range", "whole"))
        if self.path.startswith("/status/"):
            self.say(int(self.path.rpartition("/")[2]), f"no, {self.headers['api-key']}".encode())
            return
        wanted = self.headers.get("range") if self.ranges else None
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.send_header("ETag", self.tag)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        self.wfile.write(BODY[start:])

    def do_POST(self) -> None:
        while line := self.rfile.readline().strip():
            block = self.rfile.read(int(line, 16))
            self.rfile.readline()
            if not block:
                self.requests.append("post")
                self.say(200, b'{"size": %d}' % sum(map(len, self.taken)))
                return
            self.taken.append(block)
        self.close_connection = True

    def do_DELETE(self) -> None:
        self.requests.append("delete")
        self.say(503, b"busy")

    def say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(**changed: object) -> Iterator[tuple[int, type[Handler]]]:
    handler = type("Own", (Handler,), {"requests": [], "taken": [], **changed})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_port, handler
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def proxied(**changed: object) -> Iterator[tuple[Server, Proxy, type[Handler]]]:
    with serving(**changed) as (port, handler), Proxy(port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        with Server("it", url, headers={"api-key": SECRET}, patience=QUICK) as server:
            yield server, proxy, handler


def drained(server: Server, **how: object) -> bytes:
    with server.download("/body", **how) as chunks:  # type: ignore[arg-type]
        return b"".join(bytes(chunk) for chunk in chunks)


class TestCalls:
    def test_a_reading_call_is_repeated_after_trouble_that_passes(self) -> None:
        with proxied() as (server, proxy, handler):
            proxy.refuse()
            proxy.fail(503)
            proxy.cut_after(20)
            assert server.call("GET", "/body").body == BODY
            assert (proxy.accepted, len(handler.requests)) == (4, 2)

    def test_a_changing_call_is_sent_once(self) -> None:
        with proxied() as (server, _proxy, handler):
            with pytest.raises(ServerFailed, match="HTTP 503: busy"):
                server.call("DELETE", "/it")
            assert handler.requests == ["delete"]
            with pytest.raises(ServerFailed):
                server.call("DELETE", "/it", again=True)
            assert handler.requests == ["delete"] * (1 + QUICK.attempts)

    def test_a_lasting_refusal_is_not_repeated(self) -> None:
        with proxied() as (server, _proxy, handler):
            with pytest.raises(ServerFailed, match="HTTP 404"):
                server.call("GET", "/status/404")
            assert len(handler.requests) == 1

    def test_a_status_that_is_expected_is_an_answer(self) -> None:
        with proxied() as (server, _proxy, _handler):
            assert server.call("GET", "/status/404", accept=(404,)).status == 404

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_wrong_key_is_called_that_and_never_shown(self, status: int) -> None:
        with proxied() as (server, _proxy, _handler):
            with pytest.raises(AccessRefused) as caught:
                server.call("GET", f"/status/{status}")
            assert SECRET not in str(caught.value)
            assert "no, ***" in str(caught.value)

    def test_a_redirect_is_not_followed(self) -> None:
        with proxied() as (server, _proxy, handler):
            with pytest.raises(ServerFailed, match="302"):
                server.call("GET", "/status/302")
            assert len(handler.requests) == 1

    def test_silence_ends_the_waiting(self) -> None:
        with proxied() as (server, proxy, _handler):
            proxy.delay(3, times=QUICK.attempts)
            with pytest.raises(ConnectionLost, match="silent"):
                server.call("GET", "/body", seconds=0.05)

    def test_nobody_there_is_called_that(self) -> None:
        with serving() as (port, _handler):
            pass
        server = Server("it", f"http://127.0.0.1:{port}", patience=QUICK)
        with server, pytest.raises(ServerUnreachable, match=f"127.0.0.1:{port}"):
            server.call("GET", "/")

    def test_a_server_without_tls_is_not_spoken_to_by_tls(self) -> None:
        with serving() as (port, _handler), Proxy(port) as proxy:
            server = Server("it", f"https://127.0.0.1:{proxy.port}", patience=QUICK)
            with server, pytest.raises(ServerUnreachable, match="no trust"):
                server.call("GET", "/")
            assert proxy.accepted == 1

    def test_a_file_that_holds_no_certificates_is_named(self, tmp_path: Path) -> None:
        nothing = tmp_path / "nothing.pem"
        nothing.write_text("none")
        server = Server("it", "https://127.0.0.1:9", authority=nothing)
        with server, pytest.raises(ServerUnreachable, match=r"nothing\.pem"):
            server.call("GET", "/")


class TestUploads:
    def test_a_body_is_streamed(self) -> None:
        with proxied() as (server, _proxy, handler):
            chunks = (memoryview(BODY)[at : at + 1000] for at in range(0, len(BODY), 1000))
            assert server.call("POST", "/", content=chunks).json() == {"size": len(BODY)}
            assert b"".join(handler.taken) == BODY

    def test_a_body_that_cannot_be_read_is_never_whole_there(self) -> None:
        def content() -> Iterator[bytes]:
            yield BODY
            raise BackupDamaged(backup="b", path="p", reason="rotten")

        with proxied() as (server, _proxy, handler):
            with pytest.raises(BackupDamaged):
                server.call("POST", "/", content=content(), again=True)
            server.close()
        assert "post" not in handler.requests

    def test_a_body_is_never_sent_twice(self) -> None:
        with proxied() as (server, proxy, _handler):
            proxy.cut_upload_after(1000)
            with pytest.raises(ConnectionLost):
                server.call("POST", "/", content=iter([BODY]), again=True)
            assert proxy.accepted == 1


class TestDownloads:
    def test_chunks_are_whole_and_bounded(self) -> None:
        with proxied() as (server, _proxy, _handler):
            with server.download("/body", size=len(BODY), sha256=DIGEST.upper()) as chunks:
                sizes = [len(chunk) for chunk in chunks]
            assert sizes == [1 << 20, len(BODY) - (1 << 20)]

    def test_a_broken_download_goes_on_where_it_broke_off(self) -> None:
        with proxied() as (server, proxy, handler):
            proxy.cut_after(1_500_000)
            proxy.fail(503)
            proxy.refuse()
            assert drained(server, size=len(BODY), sha256=DIGEST) == BODY
            assert handler.requests == ["whole", f"bytes={1 << 20}-"]

    def test_it_does_not_go_on_where_that_is_not_safe(self) -> None:
        with proxied() as (server, proxy, handler):
            proxy.cut_after(1_500_000)
            with pytest.raises(ConnectionLost):
                drained(server, resume=False)
            assert len(handler.requests) == 1

    def test_it_does_not_go_on_with_other_content(self) -> None:
        with proxied() as (server, proxy, handler):
            proxy.cut_after(1_500_000)
            with server.download("/body") as chunks:
                next(chunks)
                handler.tag = '"2"'
                with pytest.raises(ServerFailed, match="changed"):
                    list(chunks)

    def test_it_does_not_go_on_from_the_start(self) -> None:
        with proxied(ranges=False) as (server, proxy, _handler):
            proxy.cut_after(1_500_000)
            with pytest.raises(ConnectionLost, match="cannot go on"):
                drained(server)

    def test_no_progress_ends_it(self) -> None:
        with proxied() as (server, proxy, _handler):
            proxy.cut_after(1_000, times=10)
            with pytest.raises(ConnectionLost):
                drained(server)
            assert proxy.accepted == QUICK.attempts

    def test_too_little_is_refused(self) -> None:
        said = f"{len(BODY)} bytes came"
        with proxied() as (server, *_others), pytest.raises(ServerFailed, match=said):
            drained(server, size=len(BODY) + 1)

    def test_another_content_is_refused_at_its_end(self) -> None:
        with proxied() as (server, *_others), pytest.raises(ServerFailed, match="checksum"):
            drained(server, sha256="0" * 64)

    def test_leaving_early_closes_the_connection(self) -> None:
        with proxied() as (server, _proxy, _handler):
            with server.download("/body") as chunks:
                next(chunks)
            assert len(drained(server)) == len(BODY)


def every_error() -> list[type[Exception]]:
    kinds = [kind for _name, kind in inspect.getmembers(httpx, inspect.isclass)]
    return [kind for kind in kinds if issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_library_is_a_row_of_ours(kind: type[Exception]) -> None:
    error = kind.__new__(kind)  # their own ways to be made differ
    Exception.__init__(error, "why")
    server = Server("it", "http://user:word@host/base?x=1")
    failure = server.translated(error)
    assert isinstance(failure, HoldfastError)
    assert "http://host/base" in str(failure)


def test_trust_is_told_from_other_trouble() -> None:
    error = httpx.ConnectError("self-signed")
    error.__cause__ = ssl.SSLError("self-signed")
    assert "no trust" in str(Server("it", "https://host").translated(error))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"status": {"error": "Wrong input"}, "time": 0.1}', "Wrong input"),
        (b'{"error": "NotFound", "message": "no collection"}', "no collection"),
        (b'{"detail": ["x"]}', '["x"]'),
        (b"plain\n  words", "plain words"),
        (b"", ""),
        (b"\xff", "�"),
    ],
)
def test_what_a_server_says(body: bytes, said: str) -> None:
    assert what_it_says(body) == said


def test_addresses_are_shown_without_secrets() -> None:
    shown = without_secrets("https://me:word@host:6333/base?key=x#y")
    assert shown == "https://host:6333/base"


def test_a_part_of_a_path_stays_one() -> None:
    assert path("a b", "../c", "d?e") == "/a%20b/..%2Fc/d%3Fe"


def test_a_missing_driver_is_missed_by_whoever_has_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_http, "find_spec", lambda _name: None)
    with pytest.raises(ExtraMissing, match="httpx"):
        Server("vectors", "http://127.0.0.1:1")
