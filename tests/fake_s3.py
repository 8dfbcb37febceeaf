"""A server that speaks just enough S3, and leaves out what some servers leave out.

It keeps objects in memory, checks no signatures, ignores ``If-None-Match`` and object lock.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

CHECKSUM_WANTED = (
    "<Error><Code>InvalidRequest</Code><Message>Content-MD5 OR x-amz-checksum- HTTP header is "
    "required for Put Object requests with Object Lock parameters</Message></Error>"
)


class FakeS3(ThreadingHTTPServer):
    """The server. ``objects`` is what it holds: bodies and marks by key."""

    daemon_threads = True

    def __init__(self, *, wants_md5: bool = False, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http" if context is None else "https"
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.wants_md5 = wants_md5
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_s3(*, wants_md5: bool = False, context: ssl.SSLContext | None = None) -> Iterator[FakeS3]:
    """Run a server."""
    with FakeS3(wants_md5=wants_md5, context=context) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeS3

    def _key(self) -> str:
        self.server.requests.append(f"{self.command} {self.path}")
        return unquote(urlsplit(self.path).path).lstrip("/").partition("/")[2]

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _object(self) -> None:
        key = self._key()
        if not key:
            self._list()
        elif key not in self.server.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            body, mark = self.server.objects[key]
            tag = f'"{hashlib.md5(body).hexdigest()}"'  # noqa: S324 - as S3 has it
            self._answer(
                200,
                body,
                etag=tag,
                x_amz_meta_holdfast_write=mark,
                last_modified="Wed, 04 Feb 2026 12:00:00 GMT",
            )

    def _list(self) -> None:
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        inside = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size>"
            "<LastModified>2026-02-04T12:00:00Z</LastModified></Contents>"
            for key, (body, _mark) in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{inside}</ListBucketResult>"
        self._answer(200, text.encode())

    def do_PUT(self) -> None:
        key = self._key()
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.wants_md5 and "content-md5" not in self.headers:
            self._answer(400, CHECKSUM_WANTED.encode())
            return
        self.server.objects[key] = body, self.headers.get("x-amz-meta-holdfast-write", "")
        self._answer(200, etag='"1"')

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._key(), None)
        self._answer(204)

    def do_POST(self) -> None:  # of many at once, the only one there is here
        self._key()
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        for key in re.findall("<Key>([^<]*)</Key>", body):
            self.server.objects.pop(key, None)
        self._answer(200, b"<DeleteResult></DeleteResult>")

    def do_GET(self) -> None:
        self._object()

    def do_HEAD(self) -> None:
        self._object()

    def handle(self) -> None:
        with suppress(ssl.SSLError, ConnectionError):  # of a client that does not trust us
            super().handle()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
