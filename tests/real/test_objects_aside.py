"""Restores that stage and keep in another bucket: the live one never shows anything of theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import NoScratch, SourceMissing, TargetUnfit
from holdfast.model.artifact import EntryKind, Tree
from holdfast.model.facts import differences
from holdfast.s3.http import Answer, Client
from holdfast.sources import _objects_bucket
from holdfast.sources.objects import ObjectsSource
from holdfast.testing._trips import back_up
from holdfast.testing.memory_vault import MemoryVault
from servers.s3 import KEY, SECRET
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

OWN = "own.txt"  # of others, in the bucket aside


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    bucket = bucket_of(tmp_path)
    make_described(bucket)
    return bucket


@pytest.fixture
def spare(tmp_path: Path) -> str:
    spare = bucket_of(tmp_path / "spare")
    make_bucket(spare)
    put(spare, OWN, b"of others")
    return spare


def after_each_request(monkeypatch: pytest.MonkeyPatch, look: Callable[[str, int], None]) -> None:
    """Call ``look`` with the method and the size of the body of each request that was answered."""
    once = Client._once

    def watched(self: Client, method: str, *rest: Any) -> Answer:
        answer = once(self, method, *rest)
        look(method, len(rest[3]))
        return answer

    monkeypatch.setattr(Client, "_once", watched)


def contents(bucket: str) -> set[tuple[str, str]]:
    """Return key and entity tag of all there is, as any program sees it that lists the bucket."""
    found = client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {(one["Key"], one["ETag"]) for one in found}


# --- what others see ---


def test_who_lists_the_live_bucket_sees_old_and_new_objects_and_nothing_else(
    bucket: str, spare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(bucket, aside=f"s3://{spare}")
    new = contents(bucket)
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    old = contents(bucket)
    looks = 0

    def look(_method: str, _size: int) -> None:
        nonlocal looks
        looks += 1
        assert contents(bucket) <= old | new

    after_each_request(monkeypatch, look)
    for end in ("revert", "settle", "keep"):
        staged = staging_of(source, tmp_path, end)
        staged.fill(artifacts)
        assert contents(bucket) == old
        staged.activate()
        assert contents(bucket) == new
        if end == "revert":
            staged.revert()
            assert contents(bucket) == old
            continue
        staged.settle(tmp_path / "attic" if end == "keep" else None)
        change(bucket)
    with source.scratch(tmp_path / "scratch") as twin:
        assert twin.where.startswith(f"s3://{spare}/.holdfast/{bucket}/scratch-")
        staged = staging_of(twin, tmp_path, "twin")
        staged.fill(artifacts)
        staged.activate()
        assert twin.facts().counts["objects"] == len(new)
        staged.settle(None)
    assert looks > 60, "nobody looked"


def test_staging_beside_the_live_objects_is_seen(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above looks for is what it would find."""
    source = source_of(bucket)
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    seen = set()
    after_each_request(monkeypatch, lambda _method, _size: seen.update(contents(bucket)))
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.revert()
    assert any(HIDDEN in key for key, _etag in seen)


def test_the_server_copies_between_the_buckets_with_all_that_describes_objects(
    bucket: str, spare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_objects_bucket.Bucket, "largest_copy", 1 << 20)
    monkeypatch.setattr(_objects_bucket.Bucket, "copy_part", 5 << 20)
    body = os.urandom(6 << 20)
    put(bucket, "big.bin", body, ContentType="x/y", Metadata={"a": "b"}, Tagging="t=1")
    put(bucket, "dressed.bin", body, ContentType="x/y")
    source = source_of(bucket, aside=f"s3://{spare}/deep/er")
    artifacts = backed_up(source, tmp_path)
    before = picture(bucket)
    change(bucket)
    put(bucket, "big.bin", body[1:], ContentType="x/z", Tagging="t=2")
    put(bucket, "dressed.bin", body, ContentType="x/z")
    changed = picture(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    sent: list[int] = []
    after_each_request(monkeypatch, lambda method, size: sent.append(size * (method == "PUT")))
    staged.activate()
    assert picture(bucket) == before
    staged.revert()
    assert picture(bucket) == changed
    assert not any(sent), "a content was sent again"
    assert names(spare) == [OWN]


def test_old_versions_come_back_from_another_bucket(spare: str, tmp_path: Path) -> None:
    live = bucket_of(tmp_path / "versioned")
    make_bucket(live)
    client().put_bucket_versioning(Bucket=live, VersioningConfiguration={"Status": "Enabled"})
    put(live, "doc.txt", b"one", Metadata={"n": "1"})
    put(live, "doc.txt", b"two")
    source = source_of(live, aside=f"s3://{spare}", versions=True)
    artifacts = backed_up(source, tmp_path)
    before = source.facts()
    with pytest.raises(NoScratch, match="does not keep versions"), source.scratch(tmp_path):
        pytest.fail("a twin was made that cannot hold what is backed up")
    copy = source.elsewhere(f"s3://{bucket_of(tmp_path / 'copy')}")
    staged = staging_of(copy, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)
    assert differences(before, copy.facts()) == []
    assert names(spare) == [OWN]


# --- what is kept ---


@pytest.mark.parametrize("below", ["", "app/"], ids=["whole", "prefix"])
def test_what_was_replaced_is_kept_aside_until_the_next_restore(
    bucket: str, spare: str, tmp_path: Path, below: str
) -> None:
    put(bucket, f"{below}mine.txt", b"mine")
    source = source_of(f"{bucket}/{below}", aside=f"s3://{spare}/shelf")
    artifacts = backed_up(source, tmp_path)
    for tag in ("first", "second"):
        put(bucket, f"{below}mine.txt", b"replaced")
        staged = staging_of(source, tmp_path, tag)
        staged.fill(artifacts)
        staged.activate()
        kept = staged.settle(tmp_path / "attic")
        assert kept == f"s3://{spare}/shelf/.holdfast/{bucket}/{below}{tag}/replaced/"
        assert portrait(spare, f"{kept.partition(f'{spare}/')[2]}mine.txt")[0] == b"replaced"
        mark = f"shelf/.holdfast/{bucket}/{below}{tag}/"
        assert names(spare) == [OWN, f"{mark}kept", f"{mark}replaced/mine.txt"]


def test_what_was_kept_in_the_live_bucket_goes_when_another_one_is_configured(
    bucket: str, spare: str, tmp_path: Path
) -> None:
    artifacts = backed_up(source_of(bucket), tmp_path)
    for number, options in enumerate(({}, {"aside": f"s3://{spare}"})):
        change(bucket)
        staged = staging_of(source_of(bucket, **options), tmp_path, f"tag{number}")
        staged.fill(artifacts)
        staged.activate()
        staged.settle(tmp_path / "attic")
        assert any(HIDDEN in name for name in names(bucket)) == (not options)


def test_components_that_share_a_bucket_aside_leave_each_other_alone(
    bucket: str, spare: str, tmp_path: Path
) -> None:
    other = bucket_of(tmp_path / "other")
    make_described(other)
    sources = [source_of(one, aside=f"s3://{spare}") for one in (bucket, other, f"{bucket}/part")]
    put(bucket, "part/mine.txt", b"mine")
    stored = [backed_up(source, tmp_path / str(n)) for n, source in enumerate(sources)]
    original = picture(other)
    change(bucket)
    change(other)
    put(bucket, "part/mine.txt", b"changed")
    before = [picture(bucket), picture(other)]
    every = [staging_of(source, tmp_path / str(n)) for n, source in enumerate(sources)]
    for staged, artifacts in zip(every, stored, strict=True):
        staged.fill(artifacts)
    every[1].activate()
    every[2].activate()
    every[0].revert()
    kept = every[1].settle(tmp_path / "attic")
    every[2].revert()
    assert [picture(bucket), picture(other)] == [before[0], original]
    assert kept == f"s3://{spare}/.holdfast/{other}/tag1/replaced/"
    assert portrait(spare, f".holdfast/{other}/tag1/replaced/new.txt") == before[1]["new.txt"]


def test_a_twin_that_a_crash_left_aside_is_removed_by_a_later_one(
    bucket: str, spare: str, tmp_path: Path
) -> None:
    put(spare, f".holdfast/{bucket}/scratch-1000000000-abcd/left", b"left")
    put(spare, ".holdfast/of-others/scratch-1000000000-abcd/left", b"left")
    with source_of(bucket, aside=f"s3://{spare}").scratch(tmp_path):
        pass
    assert names(spare) == [".holdfast/of-others/scratch-1000000000-abcd/left", OWN]


# --- places that are not as they should be ---


def test_a_missing_bucket_aside_is_refused_before_anything_is_touched(
    bucket: str, tmp_path: Path
) -> None:
    missing = bucket_of(tmp_path / "missing")
    source = source_of(bucket, aside=f"s3://{missing}/shelf")
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    before, everything = picture(bucket), names(bucket)
    (problem,) = source.probe().problems
    assert f"s3://{missing}/shelf" in problem
    with pytest.raises(NoScratch, match=missing), source.scratch(tmp_path):
        pytest.fail("a twin was made where nothing is")
    copy = source.elsewhere(f"s3://{bucket_of(tmp_path / 'copy')}")
    for target in (source, copy):
        staged = staging_of(target, tmp_path)
        with pytest.raises(TargetUnfit, match=f"there is no bucket {missing}"):
            staged.fill(artifacts)
        staged.revert()
    assert (picture(bucket), names(bucket)) == (before, everything)
    existing = {one["Name"] for one in client().list_buckets()["Buckets"]}
    assert not existing & {missing, bucket_of(tmp_path / "copy")}


def test_without_what_was_kept_nothing_is_put_back_and_nothing_removed(
    bucket: str, spare: str, tmp_path: Path
) -> None:
    source = source_of(bucket, aside=f"s3://{spare}")
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    changed = picture(bucket)
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    restored = picture(bucket)
    kept = picture_of_all(spare)
    client().delete_bucket(Bucket=spare)  # this server removes full ones too
    with pytest.raises(SourceMissing, match=spare):
        staged.revert()
    assert picture(bucket) == restored
    make_bucket(spare)
    for key, (body, described) in kept.items():
        tags = "&".join(f"{name}={value}" for name, value in described["tags"].items())
        about = {n: v for n, v in described.items() if v and n not in {"tags", "metadata"}}
        put(spare, key, body, Metadata=described["metadata"], Tagging=tags, **about)
    staged.revert()
    assert picture(bucket) == changed


def picture_of_all(bucket: str) -> dict[str, tuple[bytes, Any]]:
    return {key: portrait(bucket, key) for key in names(bucket)}


@pytest.mark.parametrize("aside", ["", "/spare", "/team/app"])
def test_a_place_within_the_live_objects_is_no_part_of_them(
    bucket: str, tmp_path: Path, aside: str
) -> None:
    for key in ("team/app/one.txt", "team/app/two.txt", "tmp/three.txt"):
        put(bucket, key, key.encode())
    source = source_of(f"{bucket}/team/app", aside=f"s3://{bucket}{aside}")
    whole = source_of(bucket)
    artifacts, of_whole = backed_up(source, tmp_path), backed_up(whole, tmp_path / "whole")
    put(bucket, "team/app/one.txt", b"changed")
    staged = staging_of(source, tmp_path)
    staged.fill(artifacts)
    staged.activate()
    kept = str(staged.settle(tmp_path / "attic")).partition(f"{bucket}/")[2]
    assert portrait(bucket, f"{kept}one.txt")[0] == b"changed"
    hidden = [name for name in names(bucket) if HIDDEN in name]
    assert all(name.startswith(f"{aside}/".lstrip("/")) for name in hidden)
    for subject, count in ((source, 2), (whole, 7)):
        assert subject.facts().counts["objects"] == count
        assert not [path for path in paths(backed_up(subject, tmp_path)) if HIDDEN in path]
    staged = staging_of(whole, tmp_path, "tag2")
    staged.fill(of_whole)
    staged.activate()
    staged.settle(None)
    assert [name for name in names(bucket) if HIDDEN in name] == hidden, "it was taken for extra"


def paths(artifacts: list[Any]) -> list[str]:
    (tree,) = artifacts
    assert isinstance(tree, Tree)
    with tree.open() as items:
        return [entry.path for entry, _chunks in items if entry.kind is EntryKind.FILE]


# --- after a crash ---


@pytest.mark.parametrize("then", ["beside", "aside"])
def test_a_restore_is_put_right_however_it_is_configured_by_then(
    bucket: str, spare: str, tmp_path: Path, then: str
) -> None:
    other = bucket_of(tmp_path / "other")
    make_described(other)
    put(bucket, "cache.tmp", b"excluded")
    aside = {"aside": f"s3://{spare}/shelf"}
    source = source_of(bucket, exclude=("*.tmp",), **(aside if then == "aside" else {}))
    artifacts = backed_up(source, tmp_path)
    change(bucket)
    before, untouched, everything = picture(bucket), picture(other), names(bucket)
    staged = staging_of(source, tmp_path)
    written = json.dumps(staged.token)
    assert KEY not in written
    assert SECRET not in written
    for now in (
        source_of(bucket, **({} if then == "aside" else aside)),
        source_of(other, aside=f"s3://{other}/elsewhere", remove_extra=False, exclude=("*.txt",)),
        source_of(bucket, exclude=("new.txt", "gone.txt"), remove_extra=False),
    ):
        staged.fill(artifacts)
        staged.activate()
        assert picture(bucket) != before
        now.reopen(json.loads(written)).revert()
        assert (picture(bucket), names(bucket)) == (before, everything)
        assert (picture(other), names(spare)) == (untouched, [OWN])


def test_a_backup_needs_nothing_aside(bucket: str, tmp_path: Path) -> None:
    source = ObjectsSource("c", source_of(bucket, aside="s3://not-there").options)
    manifest = back_up([source], MemoryVault(), tmp_path / "backing-up")
    assert manifest.component("c") is not None
