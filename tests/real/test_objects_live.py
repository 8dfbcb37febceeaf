"""Buckets that are written to while they are backed up, and buckets with much in them."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.model.artifact import Tree
from holdfast.model.facts import Facts, differences
from holdfast.ports import Frozen
from holdfast.s3.http import Client
from holdfast.sources import _objects_read
from holdfast.sources._objects_entry import Attributes, Described
from holdfast.sources.objects import ObjectsSource
from holdfast.testing._trips import back_up, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from tests.objects_world import bucket_of, client, make_bucket, names, portrait, put, source_of

PIECE = 128 << 10
Read = dict[str, tuple[bytes, Described]]


def read(frozen: Frozen) -> tuple[Read, Facts]:
    """Read a frozen bucket as a backup does, counting it meanwhile."""
    (tree,) = frozen.artifacts
    assert isinstance(tree, Tree)
    found = {}
    with ThreadPoolExecutor(1) as thread:
        counting = thread.submit(frozen.facts)
        with tree.open() as items:
            for entry, chunks in items:
                body = b"".join(bytes(chunk) for chunk in chunks)
                if entry.kind == "file":
                    found[entry.path] = body, Described.from_entry(entry, "test")
        return found, counting.result()


@pytest.fixture
def bucket(tmp_path: Path) -> str:
    bucket = bucket_of(tmp_path)
    make_bucket(bucket)
    return bucket


class Writer:
    """Overwrites, adds and deletes objects, and remembers every version there ever was."""

    def __init__(self, bucket: str, seed: int) -> None:
        self.bucket = bucket
        self.random = random.Random(seed)
        self.written: set[tuple[str, str]] = set()
        self.over = threading.Event()
        for number in range(40):
            self.write(f"{number:03}")

    def write(self, key: str) -> None:
        """Write one object; its tag and its metadata say which version it is."""
        large = self.random.random() < 0.05
        size = PIECE + 1000 if large else self.random.randrange(1, 3000)
        body = self.random.randbytes(size)
        digest = hashlib.sha256(body).hexdigest()
        self.written.add((key, digest))
        put(self.bucket, key, body, Metadata={"sha256": digest})

    def run(self) -> None:
        while not self.over.is_set():
            key = f"{self.random.randrange(60):03}"
            if self.random.random() < 0.2:
                client().delete_object(Bucket=self.bucket, Key=key)
            else:
                self.write(key)


@contextmanager
def writing(bucket: str) -> Iterator[Writer]:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed of the writer: {seed}")  # noqa: T201 - shown if a test fails
    writer = Writer(bucket, seed)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        yield writer
    finally:
        writer.over.set()
        thread.join()


@pytest.mark.parametrize("keeps_versions", [False, True], ids=["plain", "versioned"])
def test_each_object_in_a_backup_is_one_whole_version_that_existed(
    bucket: str, tmp_path: Path, *, keeps_versions: bool
) -> None:
    if keeps_versions:
        keep_versions(bucket)
    with writing(bucket) as writer:
        for _trial in range(5):
            with source_of(bucket).freeze(tmp_path) as frozen:
                found, facts = read(frozen)
            assert facts.counts["objects"] == len(found)
            assert facts.counts["bytes"] == sum(len(body) for body, _what in found.values())
            for key, (body, described) in found.items():
                digest = hashlib.sha256(body).hexdigest()
                assert (key, digest) in writer.written
                assert described.attributes.metadata == {"sha256": digest}
    with source_of(bucket).freeze(tmp_path) as frozen:
        read(frozen)
        assert frozen.exact, "nobody writes any more"


def test_a_large_object_that_is_replaced_before_it_is_read_is_read_as_it_is_then(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_objects_read, "PIECE", PIECE)
    put(bucket, "large", b"1" * (3 * PIECE))
    listed = _objects_read.Reader.listed

    def then_replaced(self: _objects_read.Reader) -> Iterator[object]:
        found = list(listed(self))
        put(bucket, "large", b"2" * (4 * PIECE + 5))
        yield from found

    monkeypatch.setattr(_objects_read.Reader, "listed", then_replaced)
    with source_of(bucket).freeze(tmp_path) as frozen:
        found, facts = read(frozen)
        assert not frozen.exact
    assert found["large"][0] == b"2" * (4 * PIECE + 5)
    assert facts.counts == {"objects": 1, "bytes": 4 * PIECE + 5}


def test_a_small_object_that_became_large_is_read_in_pieces(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_objects_read, "PIECE", PIECE)
    put(bucket, "grown", b"1")
    listed = _objects_read.Reader.listed

    def then_grown(self: _objects_read.Reader) -> Iterator[object]:
        found = list(listed(self))
        put(bucket, "grown", b"2" * (2 * PIECE))
        yield from found

    monkeypatch.setattr(_objects_read.Reader, "listed", then_grown)
    with source_of(bucket).freeze(tmp_path) as frozen:
        found, _facts = read(frozen)
    assert found["grown"][0] == b"2" * (2 * PIECE)


def keep_versions(bucket: str) -> None:
    client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


# --- much ---


@pytest.fixture
def crowded(bucket: str) -> str:
    """A bucket with more objects than five pages of a list, made by our own quick client."""
    store = source_of(bucket)._bucket
    assert store is not None
    with store.open() as ours, ThreadPoolExecutor(8) as threads:

        def make(n: int) -> None:
            ours.put(f"{n % 7}/{n:05}", b"%d" % n, Attributes())

        list(threads.map(make, range(5100)))
    return bucket


@pytest.mark.timeout(240)
def test_thousands_of_objects_make_several_pages(crowded: str, tmp_path: Path) -> None:
    source = source_of(crowded)
    facts = source.facts()
    assert facts.counts["objects"] == 5100
    vault = MemoryVault()
    manifest = back_up([source], vault, tmp_path / "backing-up")
    artifacts = stored_artifacts(vault, manifest, source.name)
    assert differences(facts, source.inspect(artifacts, tmp_path).facts) == []
    with source.keys({"prefix": "3/"}) as keys:
        assert len(list(keys)) == len([n for n in range(5100) if n % 7 == 3])
    client().delete_object(Bucket=crowded, Key="3/00003")
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill(artifacts)
    assert differences(facts, staged.view.facts()) == []
    with staged.view.keys({"prefix": "3/0000"}) as keys:  # type: ignore[attr-defined]
        assert list(keys) == ["3/00003"]
    staged.activate()
    staged.settle(None)
    assert differences(facts, source.facts()) == []


# --- what describes objects ---


def test_tags_are_asked_for_only_where_there_are_some(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        put(bucket, f"plain/{number}", b"plain")
    put(bucket, "tagged", b"tagged", Tagging="colour=red%20or%20blue&empty=&%C3%BC=%EC%9D%B4")
    asked = []
    call = Client.call

    def noted(
        self: Client, method: str, key: str = "", query: object = (), **rest: object
    ) -> object:
        if isinstance(query, list) and ("tagging", "") in query:
            asked.append(key)
        return call(self, method, key, query, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "call", noted)
    with source_of(bucket).freeze(tmp_path) as frozen:
        found, facts = read(frozen)
    assert asked == ["tagged"]
    expected = {"colour": "red or blue", "empty": "", "ü": "이"}
    assert found["tagged"][1].attributes.tags == expected
    assert facts.details["tagged"] == 1
    asked.clear()
    with source_of(bucket, tags="never").freeze(tmp_path) as frozen:
        assert read(frozen)[0]["tagged"][1].attributes.tags == {}
    assert asked == []
    with source_of(bucket, tags="always").freeze(tmp_path) as frozen:
        read(frozen)
    assert len(asked) == 6


def test_all_that_describes_an_object_survives(bucket: str, tmp_path: Path) -> None:
    described = {
        "ContentType": "text/x-odd; charset=utf-8",
        "CacheControl": "max-age=5, private",
        "ContentDisposition": 'attachment; filename="a b.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "ko, de",
        "Metadata": {"plain": "a,b  c", "x-y_z": "=?UTF-8?B?w6k=?="},
        "Tagging": "k=v%20w&l=%2B%26%3D",
    }
    put(bucket, "all", b"content", **described)
    put(bucket, "none", b"")
    before = {key: portrait(bucket, key) for key in names(bucket)}
    source = source_of(bucket)
    vault = MemoryVault()
    manifest = back_up([source], vault, tmp_path / "backing-up")
    copy = source.elsewhere(f"s3://{bucket_of(tmp_path / 'copy')}")
    staged = copy.staging("tag1", tmp_path / "staging")
    staged.fill(stored_artifacts(vault, manifest, source.name))
    staged.activate()
    staged.settle(None)
    other = bucket_of(tmp_path / "copy")
    assert {key: portrait(other, key) for key in names(other)} == before


def test_a_twin_that_a_crash_left_is_removed_by_a_later_one(bucket: str, tmp_path: Path) -> None:
    put(bucket, ".holdfast/scratch-1000000000-abcd/left", b"left")
    put(bucket, ".holdfast/scratch-9999999999-abcd/young", b"young")
    source = source_of(bucket)
    with source.scratch(tmp_path) as twin:
        assert isinstance(twin, ObjectsSource)
        assert ".holdfast/scratch-" in twin.where
    assert names(bucket) == [".holdfast/scratch-9999999999-abcd/young"]
