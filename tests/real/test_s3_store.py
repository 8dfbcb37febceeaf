"""The store in buckets, on a real server and on bad days."""

from __future__ import annotations

import random
import ssl
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    AccessRefused,
    BackupExists,
    ConnectionLost,
    HoldfastError,
    RetentionHolds,
    ServerFailed,
    ServerUnreachable,
    UnsafeName,
    VaultUnavailable,
)
from holdfast.s3 import http as s3_http
from holdfast.s3.http import Patience
from holdfast.stores import _s3_read, s3
from holdfast.stores._s3_retention import Retention
from holdfast.stores.s3 import S3Store
from holdfast.testing._trips import drain
from servers.proxy import Proxy, Trouble
from servers.s3 import READER_KEY, READER_SECRET, SECRET, s3_server, shared_server
from tests import objects_world
from tests.fake_s3 import fake_s3
from tests.stores_world import new_bucket, s3_client, s3_store, shared_bucket

SMALLEST_PART = 5 << 20  # that S3 takes
MIB = 1 << 20


class BrokenError(Exception):
    """What a source raises that breaks off."""


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_http, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(_s3_read, "FIRST_PAUSE", 0.01)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(shared_server().port) as proxy:
        yield proxy


def through(proxy: Proxy, **described: Any) -> S3Store:
    return s3_store(endpoint=f"http://127.0.0.1:{proxy.port}", **described)


def value(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + MIB] for start in range(0, len(data), MIB))


def uploads(bucket: str = "") -> list[str]:
    found = objects_world.client().list_multipart_uploads(Bucket=bucket or shared_bucket())
    return [one["Key"] for one in found.get("Uploads", [])]


def content(store: S3Store, name: str) -> bytes:
    with store.get(name) as chunks:
        return drain(chunks)


# --- large values ---


def test_a_large_value_goes_up_in_parts_and_comes_back() -> None:
    store, data = s3_store(part=SMALLEST_PART), value(1, 13 * MIB + 17)
    assert store.put("dumps/large", in_pieces(data)) == len(data)
    assert content(store, "dumps/large") == data
    assert store.part("dumps/large", 9 * MIB, 3 * MIB) == data[9 * MIB : 12 * MIB]
    assert dict(store.sizes()) == {"dumps/large": len(data)}
    assert uploads() == []


@pytest.mark.parametrize("size", [SMALLEST_PART - 1, SMALLEST_PART, SMALLEST_PART + 1])
def test_values_about_as_long_as_a_part(size: int) -> None:
    store, data = s3_store(part=SMALLEST_PART), value(size, size)
    assert store.put("value", in_pieces(data)) == size
    assert store.read("value") == data


def test_memory_is_bounded() -> None:
    store = s3_store(part=SMALLEST_PART)
    tracemalloc.start()
    try:
        store.put("large", (bytes(MIB) for _piece in range(48)))
        assert tracemalloc.get_traced_memory()[1] < 4 * SMALLEST_PART
    finally:
        tracemalloc.stop()


def test_a_source_that_breaks_off_leaves_no_parts_behind() -> None:
    store = s3_store(part=SMALLEST_PART)

    def breaking() -> Iterator[bytes]:
        yield from (bytes(MIB) for _piece in range(12))
        assert len(uploads()) == 1, "it is going up in parts"
        raise BrokenError

    with pytest.raises(BrokenError):
        store.put("large", breaking())
    assert uploads() == []
    assert list(store.names()) == []


def test_a_large_value_overwrites_nothing_that_came_meanwhile() -> None:
    store = s3_store(part=SMALLEST_PART)

    def overtaken() -> Iterator[bytes]:
        yield from (bytes(MIB) for _piece in range(6))
        store.put("large", iter((b"first",)))

    with pytest.raises(BackupExists):
        store.put("large", overtaken())
    assert store.read("large") == b"first"
    assert uploads() == []
    with pytest.raises(BackupExists):
        store.put("large", iter(lambda: bytes(MIB), None))  # would never end


def test_parts_that_somebody_left_are_swept_when_they_are_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = new_bucket()
    store, api = s3_store(bucket, "vault/"), objects_world.client()
    left = api.create_multipart_upload(Bucket=bucket, Key="vault/packs/left")["UploadId"]
    api.upload_part(
        Bucket=bucket, Key="vault/packs/left", UploadId=left, PartNumber=1, Body=b"part"
    )
    api.create_multipart_upload(Bucket=bucket, Key="other/left")
    assert store.sweep() == []
    monkeypatch.setattr(s3, "LEFT", timedelta(seconds=-60))
    assert store.sweep() == ["half-written file packs/left"]
    assert uploads(bucket) == ["other/left"]


# --- names ---


def test_a_bucket_shows_what_a_folder_would_show() -> None:
    bucket = new_bucket()
    store = s3_store(bucket, "brain/")
    for name in ("data/0a/0a1b", "a b/ü-+=@(1).tar.zst", "odd/100%\n\udcff"):
        store.put(name, iter((b"1",)))
    keys = objects_world.names(bucket)
    assert {"brain/data/0a/0a1b", "brain/a b/ü-+=@(1).tar.zst", "brain/odd/100%25%0A%FF"} < {*keys}
    assert sorted(store.folders()) == ["a b", "data", "odd"]
    for name in store.names():
        assert store.read(name) == store.part(name, 0, 1) == content(store, name) == b"1"
        store.delete(name)
    assert list(store.names()) == []


def test_keys_that_s3_has_no_room_for_are_refused() -> None:
    with pytest.raises(UnsafeName, match="1024"):
        s3_store().put("ü" * 600, iter((b"1",)))


def test_a_store_sees_nothing_outside_of_its_prefix() -> None:
    bucket = new_bucket()
    inner, outer = s3_store(bucket, "brain/"), s3_store(bucket, "")
    outer.put("brainstorm/x", iter((b"1",)))
    inner.put("x", iter((b"1",)))
    assert list(inner.names()) == ["x"]
    assert sorted(outer.names()) == ["brain/x", "brainstorm/x"]
    outer.delete("brain")
    assert list(outer.names()) == ["brainstorm/x"]


def test_more_names_than_one_page_lists() -> None:
    store = s3_store()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: store.replace(f"data/{n:04}", b"1"), range(1105)))
    assert sorted(store.names("data")) == [f"data/{n:04}" for n in range(1105)]
    assert list(store.folders()) == ["data"]
    store.delete("data")
    assert list(store.names()) == []


# --- bad days ---


def test_busy_servers_are_asked_again(proxy: Proxy) -> None:
    store, data = through(proxy), value(2, 300_000)
    proxy.fail(503, "SlowDown", times=2)
    store.put("value", in_pieces(data))
    reads: tuple[Callable[[], bytes], ...] = (
        lambda: store.read("value"),
        lambda: content(store, "value"),
        lambda: store.part("value", 0, len(data)),
    )
    for read in reads:
        proxy.cut_now()
        proxy.fail(503, "SlowDown", times=2)
        assert read() == data
    proxy.cut_now()
    proxy.fail(503, "SlowDown", times=2)
    assert list(store.names()) == ["value"]
    proxy.cut_now()
    proxy.fail(503, "SlowDown", times=2)
    store.delete("value")
    assert list(store.names()) == []


def test_servers_that_stay_busy_are_given_up(proxy: Proxy) -> None:
    store = through(proxy)
    store.put("value", iter((b"1",)))
    proxy.cut_now()
    proxy.always(Trouble(answer=b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"))
    for work in (
        lambda: store.put("other", iter((b"1",))),
        lambda: store.read("value"),
        lambda: list(store.names()),
        lambda: store.delete("value"),
    ):
        with pytest.raises(ServerFailed, match="503"):
            work()
    proxy.always(None)
    assert list(store.names()) == ["value"]


def test_uploads_that_are_cut_go_up_again(proxy: Proxy) -> None:
    store, data = through(proxy, part=SMALLEST_PART), value(3, 12 * MIB)
    store.put("first", iter((b"1",)))
    proxy.cut_now()
    proxy.cut_upload_after(3 * MIB, times=2)
    store.put("large", in_pieces(data))
    assert content(store, "large") == data
    assert uploads() == []


def test_downloads_that_are_cut_are_read_on(proxy: Proxy) -> None:
    store, data = through(proxy), value(4, 11 * MIB)
    store.put("large", in_pieces(data))
    reads: tuple[Callable[[], bytes], ...] = (
        lambda: content(store, "large"),
        lambda: store.read("large"),
        lambda: store.part("large", 0, len(data)),
    )
    for read in reads:
        proxy.cut_now()
        proxy.cut_after(2 * MIB, times=2)
        assert read() == data


def test_an_upload_whose_parts_cannot_be_sent_leaves_none(proxy: Proxy) -> None:
    store = through(proxy, part=SMALLEST_PART)
    store.put("first", iter((b"1",)))

    def cut_off() -> Iterator[bytes]:
        yield from (bytes(MIB) for _piece in range(6))
        proxy.always(Trouble(up=MIB))  # parts are longer, everything else is shorter
        proxy.cut_now()
        yield from (bytes(MIB) for _piece in range(6))

    with pytest.raises(ConnectionLost):
        store.put("large", cut_off())
    assert uploads() == []
    assert list(store.names()) == ["first"]


@pytest.mark.parametrize("size", [10, 6 * MIB], ids=["whole", "parts"])
def test_a_request_whose_answer_got_lost_was_heard(
    proxy: Proxy, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses the second attempt, because the first one made the value."""
    store = through(proxy, part=SMALLEST_PART)
    store.put("first", iter((bytes(6 * MIB),)))  # by now the server has been tried
    once = store._client._once

    def losing(method: str, key: str, query: Any, *rest: Any) -> Any:
        answer = once(method, key, query, *rest)
        creates = method == "PUT" if size < MIB else method == "POST" and query[0][0] != "uploads"
        if creates and key.endswith("/value"):
            monkeypatch.undo()
            raise ConnectionResetError("the answer got lost")
        return answer

    monkeypatch.setattr(store._client, "_once", losing)
    assert store.put("value", iter((bytes(size),))) == size
    assert store.read("value") == bytes(size)


def test_a_silent_server_is_given_up(proxy: Proxy) -> None:
    patience = Patience(attempts=2, connect=1.0, answer=0.2)
    client = s3_client(shared_bucket(), f"http://127.0.0.1:{proxy.port}", patience=patience)
    store = S3Store(client, "silent/")
    assert list(store.names()) == []
    proxy.cut_now()
    proxy.always(Trouble(delay=1.5))
    for work in (lambda: store.put("x", iter((b"1",))), lambda: list(store.names())):
        with pytest.raises(ConnectionLost):
            work()


def test_a_server_that_is_gone_cannot_be_reached() -> None:
    store = S3Store(s3_client("bucket", "http://127.0.0.1:1"))
    for work in (lambda: store.put("x", iter((b"1",))), lambda: store.read("x")):
        with pytest.raises(ServerUnreachable):
            work()


def test_a_server_killed_in_the_middle_of_a_put(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server() as server:
        api = objects_world.client(server.endpoint)
        api.create_bucket(Bucket="killed")
        store = s3_store("killed", "", endpoint=server.endpoint, part=SMALLEST_PART)

        def killing() -> Iterator[bytes]:
            yield from (bytes(MIB) for _piece in range(6))
            server.kill()
            yield from (bytes(MIB) for _piece in range(6))

        with pytest.raises((ServerUnreachable, ConnectionLost)) as caught:
            store.put("large", killing())
        assert "left to be swept" in caught.value.__notes__[0]
        with pytest.raises(ServerUnreachable):
            list(store.names())


def test_a_list_that_comes_late_hides_nothing_from_who_knows_the_name(proxy: Proxy) -> None:
    store = through(proxy)
    store.put("value", iter((b"1",)))
    proxy.cut_now()
    proxy.fail(200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
    assert list(store.names()) == []
    assert store.read("value") == b"1"
    with pytest.raises(BackupExists):
        store.put("value", iter((b"2",)))


def test_who_may_not_is_told_so_without_secrets() -> None:
    bucket, endpoint = shared_bucket(), shared_server().endpoint
    wrong = S3Store(s3_client(bucket, endpoint, secret="WRONGSECRET12345"), "x/")
    reader = S3Store(s3_client(bucket, endpoint, READER_KEY, READER_SECRET), "x/")
    s3_store(bucket, "x/").replace("value", b"1")
    assert reader.read("value") == b"1"
    for work in (
        lambda: wrong.read("value"),
        lambda: list(wrong.names()),
        lambda: wrong.put("other", iter((b"1",))),
        lambda: wrong.delete("value"),
        lambda: reader.put("other", iter((b"1",))),
        lambda: reader.replace("value", b"2"),
        lambda: reader.delete("value"),
    ):
        with pytest.raises(HoldfastError) as caught:
            work()
        assert isinstance(caught.value, AccessRefused)
        said = f"{caught.value!s} {caught.value!r} {caught.value.__cause__}"
        assert all(secret not in said for secret in ("WRONGSECRET", READER_SECRET, SECRET))
    assert reader.read("value") == b"1"


def test_the_environment_of_other_programs_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = s3_store()
    with fake_s3() as elsewhere:
        strange = {
            "AWS_ACCESS_KEY_ID": "AKIDELSEWHERE",
            "AWS_SECRET_ACCESS_KEY": "elsewhere",
            "AWS_SESSION_TOKEN": "elsewhere",
            "AWS_ENDPOINT": elsewhere.endpoint,
            "AWS_ENDPOINT_URL": elsewhere.endpoint,
            "AWS_ENDPOINT_URL_S3": elsewhere.endpoint,
            "AWS_BUCKET": "elsewhere",
            "AWS_REGION": "elsewhere",
            "AWS_DEFAULT_REGION": "elsewhere",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_S3_EXPRESS": "true",
            "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
            "AWS_REQUEST_PAYER": "true",
        }
        for name, text in strange.items():
            monkeypatch.setenv(name, text)
        store.put("value", iter((b"1",)))
        assert store.read("value") == store.part("value", 0, 1) == content(store, "value") == b"1"
        assert list(store.names()) == ["value"]
        store.delete("value")
        assert list(store.names()) == []
        assert elsewhere.requests == []


def test_a_missing_bucket_is_said_to_be_missing() -> None:
    store = s3_store("no-such-bucket", "")
    for work in (
        lambda: store.put("x", iter((b"1",))),
        lambda: store.read("x"),
        lambda: list(store.names()),
        lambda: store.delete("x"),
        store.sweep,
    ):
        with pytest.raises(VaultUnavailable, match="no such bucket"):
            work()


# --- servers that know less ---


def test_a_server_that_would_overwrite_is_found_out_before_it_does() -> None:
    with fake_s3() as server:
        server.objects["value"] = b"precious", ""
        store = s3_store("bucket", "", endpoint=server.endpoint)
        with pytest.raises(ServerFailed, match="creation: look"):
            store.put("value", iter((b"2",)))
        with pytest.raises(ServerFailed, match="creation: look"):
            store.put("other", iter((b"2",)))
        assert server.objects["value"][0] == b"precious"
        assert "other" not in server.objects


def test_whoever_looks_first_overwrites_nothing_there() -> None:
    with fake_s3() as server:
        store = s3_store("bucket", "", endpoint=server.endpoint, look=True)
        store.put("value", iter((b"first",)))
        with pytest.raises(BackupExists):
            store.put("value", iter((b"second",)))
        assert store.read("value") == b"first"
        assert list(store.names()) == ["value"]


def test_what_a_server_does_not_lock_is_not_passed_off_as_locked() -> None:
    with fake_s3() as server:
        lock = Retention("compliance", 1)
        store = s3_store("bucket", "", endpoint=server.endpoint, look=True, retention=lock)
        with pytest.raises(ServerFailed, match="is not locked"):
            store.put("value", iter((b"1",)))


def test_a_server_that_wants_checksums_gets_them() -> None:
    with fake_s3(wants_md5=True) as server:
        store = s3_store("bucket", "", endpoint=server.endpoint, look=True)
        store.put("value", iter((b"1",)))
        assert store.read("value") == b"1"


def certified(folder: Path, authority: str) -> tuple[Path, ssl.SSLContext]:
    """Return a certificate for this machine that vouches for itself, and a server's use of it."""
    key, certificate = folder / f"{authority}.key", folder / f"{authority}.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    what = ["-addext", f"basicConstraints=critical,CA:{authority}"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*new, *name, *what, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def test_a_server_is_trusted_by_its_certificate(tmp_path: Path) -> None:
    certificate, context = certified(tmp_path, "FALSE")
    with fake_s3(context=context) as server:
        with pytest.raises(ServerUnreachable, match=r"self.signed certificate"):
            S3Store(s3_client("bucket", server.endpoint)).put("value", iter((b"1",)))
        store = S3Store(s3_client("bucket", server.endpoint, ca=certificate), look=True)
        store.put("value", iter((b"1",)))
        assert store.read("value") == b"1"
        assert list(store.names()) == ["value"]


def test_a_certificate_of_an_authority_is_none_of_a_server(tmp_path: Path) -> None:
    """Readers refuse what the writer's library takes, and say why."""
    certificate, context = certified(tmp_path, "TRUE")
    with fake_s3(context=context) as server:
        store = S3Store(s3_client("bucket", server.endpoint, ca=certificate), look=True)
        with pytest.raises(ServerUnreachable, match="refused: CaUsedAsEndEntity"):
            store.read("value")


# --- object lock ---


@pytest.fixture(scope="module")
def locked_bucket() -> str:
    return new_bucket(ObjectLockEnabledForBucket=True)


@pytest.mark.parametrize("mode", ["governance", "compliance"])
@pytest.mark.parametrize("size", [10, 6 * MIB], ids=["whole", "parts"])
def test_what_is_locked_cannot_be_deleted(locked_bucket: str, mode: str, size: int) -> None:
    prefix = f"{mode}-{size}/"
    lock = Retention(mode, 30)
    store = s3_store(locked_bucket, prefix, retention=lock, passing=("locks",), part=SMALLEST_PART)
    store.put("packs/one", iter((bytes(size),)))
    store.put("locks/mine", iter((b"1",)))
    for name in ("packs/one", "packs"):
        with pytest.raises(RetentionHolds, match="locked until 20"):
            store.delete(name)
    assert store.read("packs/one") == bytes(size)
    store.delete("locks/mine")
    assert list(store.names()) == ["packs/one"]
    found = objects_world.client().head_object(Bucket=locked_bucket, Key=f"{prefix}packs/one")
    assert found["ObjectLockMode"] == mode.upper()
    left = found["ObjectLockRetainUntilDate"] - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left < timedelta(days=30, hours=1)


def test_what_is_no_longer_locked_is_deleted_for_good(locked_bucket: str) -> None:
    store = s3_store(locked_bucket, "ended/", retention=Retention("governance", 1))
    store.put("one", iter((b"1",)))
    api = objects_world.client()
    soon = datetime.now(UTC) + timedelta(seconds=1)
    api.put_object_retention(
        Bucket=locked_bucket,
        Key="ended/one",
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": soon},
        BypassGovernanceRetention=True,
    )
    while datetime.now(UTC) < soon:
        with suppress(RetentionHolds):
            store.delete("one")
    store.delete("one")
    assert list(store.names()) == []
    left = api.list_object_versions(Bucket=locked_bucket, Prefix="ended/one")
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")


def test_a_legal_hold_is_respected(locked_bucket: str) -> None:
    store = s3_store(locked_bucket, "held/", retention=Retention("governance", 1), passing=("l",))
    store.put("l/one", iter((b"1",)))
    hold = objects_world.client().put_object_legal_hold
    hold(Bucket=locked_bucket, Key="held/l/one", LegalHold={"Status": "ON"})
    with pytest.raises(RetentionHolds, match="legal hold"):
        store.delete("l/one")


def test_a_bucket_without_object_lock_is_told_apart() -> None:
    store = s3_store(retention=Retention("governance", 1))
    with pytest.raises(ServerFailed, match="object lock"):
        store.put("one", iter((b"1",)))
