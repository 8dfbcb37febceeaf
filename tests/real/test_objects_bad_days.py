"""Servers that fail, lie, vanish or refuse, and connections that break."""

from __future__ import annotations

import http.server
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    NoScratch,
    ServerFailed,
    ServerUnreachable,
    SourceMissing,
)
from holdfast.model.artifact import Tree
from holdfast.s3 import http as s3_http
from holdfast.sources import _objects_read
from holdfast.sources.objects import ObjectsOptions, ObjectsSource
from holdfast.testing._artifacts import failing
from holdfast.testing._trips import back_up, read_artifact, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from servers.proxy import Proxy
from servers.s3 import READER_KEY, READER_SECRET, s3_server, shared_server
from tests.objects_world import bucket_of, client, make_bucket, names, picture, put, source_of

PIECE = 256 << 10
TRUNCATED = b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>"


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_objects_read, "PIECE", PIECE)


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    bucket = bucket_of(tmp_path)
    make_bucket(bucket)
    for number in range(10):
        put(bucket, f"small/{number}.bin", os.urandom(20_000))
    put(bucket, "z-large.bin", os.urandom(5 * PIECE + 17))
    return bucket


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(shared_server().port) as proxy:
        yield proxy


def through(proxy: Proxy, bucket: str, **changes: Any) -> ObjectsSource:
    return source_of(bucket, endpoint=f"http://127.0.0.1:{proxy.port}", **changes)


def read_all(source: ObjectsSource, folder: Path) -> tuple[dict[str, bytes], bool]:
    """Back up into a vault, and return what it holds, and whether it is exact."""
    vault = MemoryVault()
    manifest = back_up([source], vault, folder / f"backing-up-{time.monotonic_ns()}")
    found = {}
    for artifact in stored_artifacts(vault, manifest, source.name):
        assert isinstance(artifact, Tree)
        with artifact.open() as items:
            for entry, chunks in items:
                body = b"".join(bytes(chunk) for chunk in chunks)
                if entry.kind == "file":
                    found[entry.path] = body
    record = manifest.component(source.name)
    assert record is not None
    return found, record.exact


def bodies(bucket: str) -> dict[str, bytes]:
    return {key: body for key, (body, _described) in picture(bucket).items()}


# --- connections ---


@pytest.mark.parametrize("after", [0, 100, 5_000, PIECE, PIECE + 5_000])
def test_a_connection_that_breaks_is_continued(
    bucket: str, tmp_path: Path, proxy: Proxy, after: int
) -> None:
    source = through(proxy, bucket, concurrency=2)
    proxy.cut_after(after, times=2)
    assert read_all(source, tmp_path) == (bodies(bucket), True)


def test_connections_that_always_break_are_given_up(
    bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    source = through(proxy, bucket, attempts=3)
    proxy.cut_after(50, times=10_000)
    with pytest.raises(ConnectionLost):
        read_all(source, tmp_path)
    assert proxy.accepted < 3 + source.options.concurrency * 3


def test_a_continued_body_is_never_of_two_versions(
    bucket: str, tmp_path: Path, proxy: Proxy
) -> None:
    """The connection breaks in the middle of an object, which is replaced before it goes on."""
    put(bucket, "changing", b"1" * 200_000)
    source = through(proxy, bucket)
    store = source._bucket
    assert store is not None
    with store.open() as ours:
        once = ours.client._once
        turns = iter(range(100))

        def meanwhile(*request: Any) -> Any:
            if next(turns) == 1:
                put(bucket, "changing", b"2" * 200_000)
            return once(*request)

        ours.client._once = meanwhile  # type: ignore[method-assign, assignment]
        proxy.cut_after(100_000)
        answer = ours.read("changing", limit=1 << 20)
        assert answer.status == 412
    assert read_all(source, tmp_path)[0]["changing"] == b"2" * 200_000


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with Proxy(0) as gone:
        port = gone.port
    source = source_of("any", endpoint=f"http://127.0.0.1:{port}", attempts=2)
    with pytest.raises(ServerUnreachable, match="refused"):
        source.facts()
    probe = source.probe()
    assert not probe.reachable
    assert "refused" in probe.problems[0]


def test_a_silent_server_is_not_waited_for_long(bucket: str, proxy: Proxy) -> None:
    source = through(proxy, bucket, timeout=0.2, attempts=2)
    proxy.delay(30, times=2)
    begun = time.monotonic()
    with pytest.raises(ConnectionLost, match=r"has not answered for 0\.2 s"):
        source.facts()
    assert time.monotonic() - begun < 5


def test_a_server_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    with s3_server() as server:
        api = client(server.endpoint)
        api.create_bucket(Bucket="doomed")
        for number in range(20):
            api.put_object(Bucket="doomed", Key=f"{number}", Body=os.urandom(3 * PIECE))
        source = source_of("doomed", endpoint=server.endpoint, attempts=2, concurrency=1)
        with source.freeze(tmp_path) as frozen:
            (tree,) = frozen.artifacts
            assert isinstance(tree, Tree)
            with tree.open() as items:
                next(items)
                next(items)
                server.kill()
                with pytest.raises((ConnectionLost, ServerUnreachable)):
                    read_rest(items)


def read_rest(items: Any) -> None:
    for _entry, chunks in items:
        for _chunk in chunks:
            pass


# --- answers ---


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(
    bucket: str, tmp_path: Path, proxy: Proxy, status: int
) -> None:
    source = through(proxy, bucket, attempts=6, concurrency=1)
    proxy.fail(status, "slow down", times=4)
    assert read_all(source, tmp_path) == (bodies(bucket), True)


def test_a_server_that_stays_busy_is_given_up(bucket: str, proxy: Proxy) -> None:
    source = through(proxy, bucket, attempts=3)
    said = "<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>"
    proxy.fail(503, said, times=100)
    with pytest.raises(ServerFailed, match="SlowDown reduce your request rate"):
        source.facts()
    assert proxy.accepted == 3


@pytest.mark.parametrize("steps", ["fill", "activate", "revert"])
def test_a_busy_server_does_not_disturb_a_restore(
    bucket: str, tmp_path: Path, proxy: Proxy, steps: str
) -> None:
    source = through(proxy, bucket, attempts=8, concurrency=2)
    vault = MemoryVault()
    manifest = back_up([source], vault, tmp_path / "backing-up")
    artifacts = stored_artifacts(vault, manifest, source.name)
    before = bodies(bucket)
    put(bucket, "small/1.bin", b"changed")
    put(bucket, "z-large.bin", b"changed")
    changed = bodies(bucket)
    staged = source.staging("tag1", tmp_path / "staging")

    def trouble(step: str) -> None:
        if step == steps:
            proxy.cut_now()
            proxy.fail(503, times=2)
            proxy.cut_after(30, times=2)

    trouble("fill")
    staged.fill(artifacts)
    trouble("activate")
    staged.activate()
    assert bodies(bucket) == before
    trouble("revert")
    staged.revert()
    assert bodies(bucket) == changed
    assert not [name for name in names(bucket) if name.startswith(".holdfast/")]


def test_a_wrong_key_is_refused_and_never_shown(bucket: str, tmp_path: Path) -> None:
    for changes in ({"secret_key": "WRONGSECRET"}, {"access_key": "NOBODYKNOWS"}):
        source = source_of(bucket, **changes)
        with pytest.raises(AccessRefused) as caught:
            source.facts()
        shown = f"{caught.value} {caught.value.hint} {source.probe()} {source.options!r}"
        shown += f"{source.where} {source.staging('tag', tmp_path).token}"
        assert all(secret not in shown for secret in changes.values())


def test_who_may_only_read_can_back_up_but_has_no_twin(bucket: str, tmp_path: Path) -> None:
    source = source_of(bucket, access_key=READER_KEY, secret_key=READER_SECRET)
    assert read_all(source, tmp_path)[0] == bodies(bucket)
    with pytest.raises(NoScratch, match="AccessDenied"), source.scratch(tmp_path):
        pytest.fail("a twin was made without the right to write")
    vault = MemoryVault()
    manifest = back_up([source], vault, tmp_path / "backing-up")
    put(bucket, "small/1.bin", b"changed")
    staged = source.staging("tag1", tmp_path / "staging")
    with pytest.raises(AccessRefused):
        staged.fill(stored_artifacts(vault, manifest, source.name))


def test_a_bucket_that_vanishes_in_the_middle_is_an_error(bucket: str, tmp_path: Path) -> None:
    source = source_of(bucket, concurrency=1)
    with source.freeze(tmp_path) as frozen:
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        with tree.open() as items:
            next(items)
            client().delete_bucket(Bucket=bucket)  # this server removes full ones too
            with pytest.raises(SourceMissing):
                read_rest(items)


def test_an_object_that_vanishes_is_noted(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bodies(bucket)
    source = source_of(bucket)
    listed = _objects_read.Reader.listed

    def then_deleted(self: _objects_read.Reader) -> Iterator[Any]:
        found = list(listed(self))
        for key in ("small/3.bin", "z-large.bin"):
            client().delete_object(Bucket=bucket, Key=key)
        yield from found

    monkeypatch.setattr(_objects_read.Reader, "listed", then_deleted)
    with source.freeze(tmp_path) as frozen:
        read_artifact(frozen.artifacts[0])
        facts = frozen.facts()
        assert not frozen.exact
    assert facts.counts["objects"] == len(before) - 2
    assert len([note for note in facts.notes if "vanished" in note]) == 2


def test_bytes_that_are_not_as_their_checksum_says_are_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = s3_http._Body.take

    def rotten(self: s3_http._Body, *rest: Any) -> None:
        take(self, *rest)
        if len(self.data) == 20_000:
            self.data[777] ^= 1

    monkeypatch.setattr(s3_http._Body, "take", rotten)
    with pytest.raises(ServerFailed, match="checksum"):
        read_all(source_of(bucket), tmp_path)
    assert len(read_all(source_of(bucket, checksums=False), tmp_path)[0]) == 11


def test_a_rotten_piece_of_a_large_object_is_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = s3_http._Body.take

    def rotten(self: s3_http._Body, *rest: Any) -> None:
        take(self, *rest)
        if len(self.data) == 17:
            self.data[3] ^= 1

    monkeypatch.setattr(s3_http._Body, "take", rotten)
    with pytest.raises(ServerFailed, match=r"z-large\.bin: .* checksum"):
        read_all(source_of(bucket), tmp_path)


def test_a_dump_that_dies_on_its_last_byte_stages_nothing_that_stays(
    bucket: str, tmp_path: Path
) -> None:
    source = source_of(bucket)
    vault = MemoryVault()
    manifest = back_up([source], vault, tmp_path / "backing-up")
    artifacts = stored_artifacts(vault, manifest, source.name)
    put(bucket, "small/1.bin", b"changed")
    before, everything = bodies(bucket), names(bucket)
    staged = source.staging("tag1", tmp_path / "staging")
    problem = ConnectionLost(component="c", where="w", reason="r")
    with pytest.raises(ConnectionLost):
        staged.fill(failing(artifacts, problem, at_the_end=True))
    staged.revert()
    assert (bodies(bucket), names(bucket)) == (before, everything)


# --- other servers ---


class Strange(http.server.BaseHTTPRequestHandler):
    """Answers as its server is told."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, headers, body = self.server.says(self)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def strange_server(
    says: Callable[[Any], Any], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    server.says = says  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_bucket_in_another_region_is_asked_there() -> None:
    asked = []

    def says(request: Any) -> Any:
        region = request.headers["Authorization"].split("/")[2]
        asked.append(region)
        if region != "ap-northeast-2":
            error = b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"
            return 400, {"x-amz-bucket-region": "ap-northeast-2"}, error
        return 200, {}, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

    with strange_server(says) as port:
        source = source_of("seoul", endpoint=f"http://127.0.0.1:{port}")
        assert source._bucket is not None
        assert source._bucket.exists()
    assert asked == ["us-east-1", "ap-northeast-2"]


@pytest.mark.parametrize(
    "body",
    [
        b"no XML at all",
        TRUNCATED % b"",
        TRUNCATED % b"<NextContinuationToken>same</NextContinuationToken>",
    ],
    ids=["noise", "nowhere", "for-ever"],
)
def test_a_list_that_makes_no_sense_is_refused(body: bytes) -> None:
    with strange_server(lambda _request: (200, {}, body)) as port:
        source = source_of("strange", endpoint=f"http://127.0.0.1:{port}")
        with pytest.raises(ServerFailed, match=r"its list of objects|its Status cannot be read"):
            source.facts()


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    empty = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with strange_server(lambda _request: (200, {}, empty), context) as port:
        endpoint = f"https://127.0.0.1:{port}"
        with pytest.raises(ServerUnreachable, match=r"self.signed certificate"):
            source_of("any", endpoint=endpoint, attempts=100).facts()
        trusting = source_of("any", endpoint=endpoint, ca=certificate)
        assert trusting.facts().counts == {"objects": 0, "bytes": 0}


def test_a_server_without_tls_is_refused_where_tls_is_wanted(bucket: str) -> None:
    endpoint = shared_server().endpoint.replace("http:", "https:")
    with pytest.raises(ServerUnreachable):
        source_of(bucket, endpoint=endpoint, attempts=2).facts()


# --- a folder that stands in ---


def test_a_folder_stands_in_for_a_server_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    (folder / "one.txt").write_bytes(b"one")
    with Proxy(0) as gone:
        port = gone.port
    source = source_of("any", endpoint=f"http://127.0.0.1:{port}", folder=folder)
    facts = source.facts()
    assert facts.counts == {"objects": 1, "bytes": 3}
    assert facts.details["label"] == "disk"
    with source.freeze(tmp_path) as frozen:
        assert frozen.artifacts[0].labels["label"] == "disk"
    assert "stands in" in source.probe().problems[0]


def test_a_bucket_that_can_be_reached_is_preferred_and_labelled(
    bucket: str, tmp_path: Path
) -> None:
    source = source_of(bucket, folder=tmp_path)
    assert source.facts().details["label"] == "minio"
    with source.freeze(tmp_path) as frozen:
        assert frozen.artifacts[0].labels["label"] == "minio"


def test_a_missing_bucket_is_not_replaced_by_the_folder(tmp_path: Path) -> None:
    source = source_of("there-is-no-such-bucket", folder=tmp_path)
    with pytest.raises(SourceMissing), source.freeze(tmp_path):
        pytest.fail("the folder was taken for the bucket")


def test_what_was_a_folder_is_restored_into_a_bucket(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "one.txt").write_bytes(b"one")
    (folder / "a" / "%odd%-").write_bytes(b"odd")
    with (folder / "sparse").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    source = ObjectsSource("attachments", ObjectsOptions(folder=folder))
    vault = MemoryVault()
    manifest = back_up([source], vault, tmp_path / "backing-up")
    bucket = bucket_of(tmp_path)
    there = source_of(bucket)
    staged = there.staging("tag1", tmp_path / "staging")
    staged.fill(stored_artifacts(vault, manifest, source.name))
    staged.activate()
    staged.settle(None)
    assert bodies(bucket) == {
        "a/one.txt": b"one",
        "a/%odd%-": b"odd",
        "sparse": bytes(3_000_000) + b"end",
    }


def test_no_failure_escapes_that_is_not_foreseen(bucket: str, proxy: Proxy) -> None:
    for said in ("", "<Error>", "<Error><Code>Odd</Code></Error>", "\x00" * 100):
        proxy.fail(418, said)
        with pytest.raises(HoldfastError):
            through(proxy, bucket).facts()
