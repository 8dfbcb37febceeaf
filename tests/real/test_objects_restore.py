"""Restoring over a live bucket: what is sent, what is kept, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TargetInUse
from holdfast.ports import Staged
from holdfast.s3.http import Answer, Client
from holdfast.sources import _objects_bucket, _objects_fill, _objects_read
from holdfast.sources.objects import ObjectsSource
from tests.objects_world import (
    HIDDEN,
    backed_up,
    bucket_of,
    change,
    client,
    make_bucket,
    make_described,
    names,
    picture,
    portrait,
    put,
    source_of,
    staging_of,
)

SENDING = {"PUT", "POST", "DELETE"}


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    bucket = bucket_of(tmp_path)
    make_described(bucket)
    return bucket


def spare_of(bucket: str) -> str:
    return f"{bucket}-spare"


@pytest.fixture(params=["beside", "aside"])
def staged_in(request: pytest.FixtureRequest, bucket: str) -> dict[str, str]:
    """The option that says where restores stage: in the bucket, or in another one."""
    if request.param == "beside":
        return {}
    make_bucket(spare_of(bucket))
    put(spare_of(bucket), "own.txt", b"of others")
    return {"aside": f"s3://{spare_of(bucket)}/shelf"}


def all_names(bucket: str) -> list[str]:
    return [*names(bucket), *names(spare_of(bucket))]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The method and the size of the body of each request."""
    requests: list[tuple[str, int]] = []
    once = Client._once

    def noted(self: Client, method: str, *rest: Any) -> Answer:
        requests.append((method, len(rest[3])))
        return once(self, method, *rest)

    monkeypatch.setattr(Client, "_once", noted)
    return requests


# --- what is sent ---


def test_an_unchanged_bucket_is_restored_without_sending_a_body(
    bucket: str, tmp_path: Path, sent: list[tuple[str, int]]
) -> None:
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    before = picture(bucket)
    sent.clear()
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)
    assert [request for request in sent if request[0] in SENDING] == []
    assert picture(bucket) == before


def test_only_what_differs_is_uploaded(
    bucket: str, tmp_path: Path, sent: list[tuple[str, int]]
) -> None:
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    before = picture(bucket)
    change(bucket)
    sent.clear()
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    bodies = [size for method, size in sent if method == "PUT" and size]
    assert sorted(bodies) == [len(b"gone"), len(b"other")]
    sent.clear()
    staged.activate()
    assert [size for method, size in sent if method == "PUT" and size] == []
    staged.settle(None)
    assert picture(bucket) == before


def test_an_object_uploaded_in_parts_is_recognised_and_restored_as_such(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(_objects_fill, "PART", 5 << 20)
    monkeypatch.setattr(_objects_read, "PIECE", 2 << 20)
    upload_in_parts(bucket, "big.bin", [os.urandom(6 << 20), os.urandom(6 << 20), b"end"])
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    before, tag = picture(bucket), etag(bucket, "big.bin")
    assert tag.endswith('-3"')
    put(bucket, "big.bin", b"small now")
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)
    assert picture(bucket) == before
    assert etag(bucket, "big.bin") == tag, "the parts were of other sizes"
    sent.clear()
    staged = staging_of(source, tmp_path, "tag2")
    staged.fill(artifacts)
    assert [size for method, size in sent if method in SENDING and size] == []
    staged.revert()


def test_a_copy_too_large_for_one_request_is_made_in_parts(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_objects_bucket.Bucket, "largest_copy", 1 << 20)
    monkeypatch.setattr(_objects_bucket.Bucket, "copy_part", 5 << 20)
    body = os.urandom(11 << 20)
    put(bucket, "big.bin", body, ContentType="x/y", Metadata={"a": "b"}, Tagging="t=1")
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    before = picture(bucket)
    put(bucket, "big.bin", body[1:], ContentType="x/z", Tagging="t=2")
    changed = picture(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    assert picture(bucket) == before
    staged.revert()
    assert picture(bucket) == changed


def upload_in_parts(bucket: str, key: str, parts: list[bytes]) -> None:
    api = client()
    upload = api.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    which = {"Bucket": bucket, "Key": key, "UploadId": upload}
    done = [
        {"PartNumber": n, "ETag": api.upload_part(**which, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate(parts, 1)
    ]
    api.complete_multipart_upload(**which, MultipartUpload={"Parts": done})


def etag(bucket: str, key: str) -> str:
    tag: str = client().head_object(Bucket=bucket, Key=key)["ETag"]
    return tag


# --- what stays ---


def test_objects_that_are_not_in_the_backup_stay_if_that_is_wanted(
    bucket: str, tmp_path: Path
) -> None:
    source = source_of(bucket, remove_extra=False)
    artifacts = backed_up(source, tmp_path)
    before = picture(bucket)
    change(bucket)
    changed = picture(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    assert picture(bucket) == {**before, "new.txt": changed["new.txt"]}
    staged.revert()
    assert picture(bucket) == changed


def test_excluded_objects_are_neither_kept_nor_replaced(bucket: str, tmp_path: Path) -> None:
    put(bucket, "cache/a.tmp", b"first")
    source = source_of(bucket, exclude=("*.tmp",))
    artifacts = backed_up(source, tmp_path)
    put(bucket, "cache/a.tmp", b"second")
    put(bucket, "cache/b.tmp", b"second")
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)
    assert picture(bucket)["cache/a.tmp"][0] == b"second"
    assert picture(bucket)["cache/b.tmp"][0] == b"second"


def test_what_was_replaced_is_kept_until_the_next_restore(bucket: str, tmp_path: Path) -> None:
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    for tag in ("first", "second"):
        change(bucket)
        changed = picture(bucket)
        staged = staging_of(source, tmp_path, tag)
        staged.fill(artifacts)
        staged.activate()
        kept = staged.settle(tmp_path / "attic")
        assert kept == f"s3://{bucket}/.holdfast/{tag}/replaced/"
        prefix = kept.partition(f"{bucket}/")[2]
        for key in ("other.txt", "tagged.txt", "new.txt"):
            assert portrait(bucket, prefix + key) == changed[key]
        hidden = [name for name in names(bucket) if name.startswith(".holdfast/")]
        assert all(name.startswith(f".holdfast/{tag}/") for name in hidden)
    assert source.facts().counts["objects"] == 4, "what is kept is counted as an object"


def test_an_object_that_changes_between_filling_and_switching_stops_the_restore(
    bucket: str, tmp_path: Path
) -> None:
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    put(bucket, "same.txt", b"changed meanwhile")
    put(bucket, "added.txt", b"added meanwhile")
    meanwhile = picture(bucket)
    with pytest.raises(TargetInUse, match=r"same\.txt"):
        staged.activate()
    staged.revert()
    assert picture(bucket) == meanwhile
    assert not [name for name in names(bucket) if name.startswith(".holdfast/")]


def test_objects_that_were_added_meanwhile_are_removed_and_come_back(
    bucket: str, tmp_path: Path
) -> None:
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    before = picture(bucket)
    change(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    put(bucket, "added.txt", b"added meanwhile")
    put(bucket, "other.txt", b"overwritten meanwhile")
    meanwhile = picture(bucket)
    staged.activate()
    assert picture(bucket) == before
    staged.revert()
    assert picture(bucket) == meanwhile


# --- crashes ---


def killed_before(work: Callable[[], None], request: int) -> bool:
    """Run work in a child that is killed before it sends that changing request."""
    child = os.fork()
    if child == 0:
        sent = 0
        once = Client._once

        def counted(self: Client, method: str, *rest: Any) -> Answer:
            nonlocal sent
            if method in SENDING:
                if sent == request:
                    os.kill(os.getpid(), signal.SIGKILL)
                sent += 1
            return once(self, method, *rest)

        Client._once = counted  # type: ignore[method-assign, assignment]
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _pid, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL, "the work failed by itself"
    return status != 0


def every_crash(work: Callable[[], None]) -> Iterator[int]:
    """Kill the work before its first changing request, before the second, and so on."""
    request = 0
    while killed_before(work, request):
        yield request
        request += 1
    assert request > 0


def reopened(source: ObjectsSource, staged: Staged) -> Staged:
    return source.reopen(json.loads(json.dumps(staged.token)))


@pytest.mark.timeout(240)
def test_a_restore_that_was_killed_is_reverted(
    bucket: str, tmp_path: Path, staged_in: dict[str, str]
) -> None:
    source = source_of(bucket, concurrency=1, **staged_in)
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    before, everything = picture(bucket), all_names(bucket)
    staged = staging_of(source, tmp_path)

    def work() -> None:
        staged.fill(artifacts)
        staged.activate()

    for _request in every_crash(work):
        reopened(source, staged).revert()
        assert (picture(bucket), all_names(bucket)) == (before, everything)


@pytest.mark.timeout(240)
def test_a_revert_that_was_killed_is_finished_by_another(
    bucket: str, tmp_path: Path, staged_in: dict[str, str]
) -> None:
    source = source_of(bucket, concurrency=1, **staged_in)
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    before, everything = picture(bucket), all_names(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    for _request in every_crash(reopened(source, staged).revert):
        reopened(source, staged).revert()
        assert (picture(bucket), all_names(bucket)) == (before, everything)
        staged.fill(artifacts)
        staged.activate()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("attic", [False, True], ids=["dropped", "kept"])
def test_a_settling_that_was_killed_is_finished_by_another(
    bucket: str, tmp_path: Path, staged_in: dict[str, str], *, attic: bool
) -> None:
    source = source_of(bucket, concurrency=1, **staged_in)
    artifacts = backed_up(source, tmp_path)
    restored = picture(bucket)
    change(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    place = tmp_path / "attic" if attic else None

    def work() -> None:
        reopened(source, staged).settle(place)

    for _request in every_crash(work):
        assert picture(bucket) == restored
    kept = staged.settle(place)
    hidden = [name for name in all_names(bucket) if HIDDEN in name]
    assert bool(hidden) == attic == bool(kept)
    assert not [name for name in hidden if "/new/" in name]


# --- old versions ---


def test_old_versions_and_deletions_come_back_in_their_order(tmp_path: Path) -> None:
    bucket = versioned(tmp_path / "first")
    put(bucket, "a/doc.txt", b"one", Metadata={"n": "1"}, Tagging="n=1")
    put(bucket, "a/doc.txt", b"two")
    client().delete_object(Bucket=bucket, Key="a/doc.txt")
    put(bucket, "a/doc.txt", b"three")
    put(bucket, "deleted.txt", b"was here")
    client().delete_object(Bucket=bucket, Key="deleted.txt")
    put(bucket, "plain.txt", b"plain")
    source = source_of(bucket, versions=True)
    artifacts = backed_up(source, tmp_path)
    assert source.facts().counts == {"objects": 2, "bytes": 10, "versions": 5}
    assert source.inspect(artifacts, tmp_path).facts.counts == source.facts().counts

    other = bucket_of(tmp_path / "second")
    copy = source.elsewhere(f"s3://{other}")
    staged = staging_of(copy, tmp_path)
    staged.fill(artifacts)
    assert staged.view.facts().counts == source.facts().counts
    assert staged.view.facts().notes == ()
    staged.activate()
    staged.settle(None)
    assert history(other) == history(bucket)
    assert copy.facts().counts == source.facts().counts


def test_a_history_that_is_there_is_not_rewritten(tmp_path: Path) -> None:
    bucket = versioned(tmp_path / "first")
    put(bucket, "kept.txt", b"one")
    put(bucket, "kept.txt", b"two")
    source = source_of(bucket, versions=True)
    artifacts = backed_up(source, tmp_path)
    put(bucket, "kept.txt", b"three")
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    assert "1 old versions are left" in staged.view.facts().notes[0]
    staged.activate()
    staged.settle(None)
    assert [content for content, _what in history(bucket)["kept.txt"]] == [
        b"one",
        b"two",
        b"three",
        b"two",
    ]


def test_versions_that_came_back_go_again_when_the_restore_is_undone(tmp_path: Path) -> None:
    bucket = versioned(tmp_path / "first")
    put(bucket, "doc.txt", b"one")
    put(bucket, "doc.txt", b"two")
    source = source_of(bucket, versions=True)
    artifacts = backed_up(source, tmp_path)
    other = versioned(tmp_path / "second")
    put(other, "own.txt", b"own")
    before = history(other)
    copy = source.elsewhere(f"s3://{other}")
    staged = staging_of(copy, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    assert [content for content, _what in history(other)["doc.txt"]] == [b"one", b"two"]
    staged.revert()
    assert "doc.txt" not in history(other)
    assert picture(other) == {"own.txt": before["own.txt"][0]}


def versioned(folder: Path) -> str:
    bucket = bucket_of(folder)
    make_bucket(bucket)
    client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def history(bucket: str) -> dict[str, list[Any]]:
    """Return what each key was, the oldest first; a deletion has no content."""
    found = client().list_object_versions(Bucket=bucket)
    marks = [(one, True) for one in found.get("DeleteMarkers", [])]
    every = [(one, False) for one in found.get("Versions", [])] + marks
    every.sort(key=lambda pair: str(pair[0]["VersionId"]), reverse=True)  # as this server counts
    order: dict[str, list[Any]] = {}
    for one, deleted in every:
        if not one["Key"].startswith(".holdfast/"):
            order.setdefault(one["Key"], []).append((one, deleted))
    return {key: [_look(bucket, one, deleted=d) for one, d in ones] for key, ones in order.items()}


def _look(bucket: str, one: dict[str, Any], *, deleted: bool) -> Any:
    if deleted:
        return None, "deleted"
    return portrait(bucket, one["Key"], VersionId=one["VersionId"])
