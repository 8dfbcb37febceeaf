"""Objects earn the contract: a bucket, a part of one, and a folder that stands in for it.

Restores of the whole bucket stage in it, those of the part in another one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.ports import Source
from holdfast.sources import _objects_read
from holdfast.sources._objects_keys import key_of
from holdfast.sources.objects import ObjectsOptions, ObjectsSource
from holdfast.testing.source_contract import SourceContract
from tests.objects_world import (
    HIDDEN,
    bucket_of,
    client,
    make_bucket,
    names,
    options_of,
    picture,
    put,
)

OTHERS = "team/other.txt"  # beside the prefix
SPARE = "spare"  # the bucket where restores of a part stage
LARGE = os.urandom(300_000)  # more than one request reads, here
PIECE = 1 << 17


class TestBucket(SourceContract):
    discoverable: ClassVar[bool] = False
    prefix: ClassVar[str] = ""
    aside: ClassVar[str | None] = None

    @pytest.fixture(autouse=True)
    def _small_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_objects_read, "PIECE", PIECE)

    def make_source(self, name: str, folder: Path) -> ObjectsSource:
        url = f"s3://{bucket_of(folder)}/{self.prefix}"
        return ObjectsSource(name, options_of(url, exclude=("*.tmp",), aside=self.aside))

    def other_place(self, source: Source, folder: Path) -> Source:
        return source.elsewhere(f"s3://{bucket_of(folder)}/{self.prefix}")

    def create(self, source: Source) -> None:
        bucket = bucket_in(source)
        make_bucket(bucket)
        self.write(source, "notes/one.txt", b"one", ContentType="text/x-note", Tagging="a=1&b=2")
        self.write(source, "notes/two words, ü & 이야기.txt", b"two", Metadata={"who": "me"})
        self.write(source, "notes/empty", b"", CacheControl="no-store", ContentLanguage="ko")
        self.write(source, "large.bin", LARGE, ContentDisposition="attachment")
        self.write(source, f"{'long' * 100}/{'x' * 250}", b"long", ContentEncoding="identity")

    def write(self, source: Source, key: str, body: bytes, **described: object) -> None:
        put(bucket_in(source), self.prefix + key, body, **described)

    def change(self, source: Source) -> None:
        self.write(source, "notes/one.txt", b"another one", ContentType="text/plain")
        self.write(source, "notes/two words, ü & 이야기.txt", b"two", Metadata={"who": "you"})
        self.write(source, "added/later.txt", b"later")
        client().delete_object(Bucket=bucket_in(source), Key=f"{self.prefix}notes/empty")

    def content(self, source: Source) -> object:
        return picture(bucket_in(source), self.prefix)

    def litter(self, folder: Path) -> set[str]:
        return set(names(bucket_of(folder)))

    def guided_content(self, source: Source, target: Path) -> object:
        """Read the files; what describes objects is not in them, but in their attributes."""
        described = picture(bucket_in(source), self.prefix)
        files = [path for path in target.rglob("*") if path.is_file()]
        bodies = {key_of(str(path.relative_to(target))): path.read_bytes() for path in files}
        return {key: (body, described[key][1]) for key, body in bodies.items()}


class TestPrefix(TestBucket):
    always_there: ClassVar[bool] = True  # an empty part of a bucket is a part of it
    prefix: ClassVar[str] = "team/app/"
    aside: ClassVar[str | None] = f"s3://{SPARE}/shelf"

    def make_source(self, name: str, folder: Path) -> ObjectsSource:
        make_bucket(SPARE)
        make_bucket(bucket_of(folder))
        put(bucket_of(folder), OTHERS, b"not ours")
        return super().make_source(name, folder)

    def litter(self, folder: Path) -> set[str]:
        found = super().litter(folder)
        assert OTHERS in found, "what lies beside the prefix is gone"
        assert not any(HIDDEN in key for key in found), "it was staged in the live bucket"
        aside = {key for key in names(SPARE) if f"/{bucket_of(folder)}/" in key}
        return (found - {OTHERS}) | aside


class TestFolder(SourceContract):
    discoverable: ClassVar[bool] = False

    def make_source(self, name: str, folder: Path) -> ObjectsSource:
        return ObjectsSource(name, ObjectsOptions(folder=folder / "objects"))

    def create(self, source: Source) -> None:
        root = Path(source.where)
        (root / "notes").mkdir(parents=True)
        (root / "notes" / "one.txt").write_bytes(b"one")
        (root / "notes" / "이야기.txt").write_bytes(b"two")
        (root / "large.bin").write_bytes(LARGE)
        os.link(root / "notes" / "one.txt", root / "notes" / "same.txt")

    def change(self, source: Source) -> None:
        (Path(source.where) / "notes" / "one.txt").write_bytes(b"another")

    def content(self, source: Source) -> object:
        root = Path(source.where)
        files = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in files}


def bucket_in(source: Source) -> str:
    assert isinstance(source, ObjectsSource)
    assert source.options.url is not None
    return source.options.url.partition("://")[2].partition("/")[0]
