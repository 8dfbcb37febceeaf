"""Buckets of the test server, looked at and changed by Amazon's own library, never by ours."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from holdfast.model.artifact import Artifact
from holdfast.ports import Staged
from holdfast.sources.objects import ObjectsOptions, ObjectsSource
from holdfast.testing._trips import back_up, stored_artifacts
from holdfast.testing.memory_vault import MemoryVault
from servers.s3 import KEY, REGION, SECRET, shared_server

HIDDEN = ".holdfast/"
KEPT = ("ContentType", "CacheControl", "ContentEncoding", "ContentDisposition", "ContentLanguage")


@functools.cache
def client(endpoint: str = "", key: str = KEY, secret: str = SECRET) -> Any:
    """Return Amazon's client for the shared server, or for another one."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint or shared_server().endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )


def bucket_of(folder: Path) -> str:
    """Return the name of the bucket that stands for a folder of a test."""
    return "place-" + hashlib.sha256(str(folder).encode()).hexdigest()[:20]


def options_of(url: str, **changes: Any) -> ObjectsOptions:
    """Return the options for a bucket of the shared server."""
    given = {
        "url": url,
        "endpoint": shared_server().endpoint,
        "access_key": KEY,
        "secret_key": SECRET,
        "attempts": 3,
        "timeout": 20.0,
        **changes,
    }
    return ObjectsOptions(**given)


def source_of(bucket: str, **changes: Any) -> ObjectsSource:
    """Return the source of a bucket of the shared server."""
    return ObjectsSource("attachments", options_of(f"s3://{bucket}", **changes))


def make_bucket(bucket: str) -> None:
    """Make an empty bucket, if it is not there."""
    with suppress(client().exceptions.BucketAlreadyOwnedByYou):
        client().create_bucket(Bucket=bucket)


def put(bucket: str, key: str, body: bytes = b"", **described: Any) -> None:
    """Write an object; ``described`` as Amazon's library says it."""
    client().put_object(Bucket=bucket, Key=key, Body=body, **described)


def make_described(bucket: str) -> None:
    """Make a bucket with a few objects that are described in several ways."""
    make_bucket(bucket)
    put(bucket, "same.txt", b"same", Metadata={"who": "me"}, Tagging="a=1")
    put(bucket, "other.txt", b"other", ContentType="text/x-other")
    put(bucket, "tagged.txt", b"tagged", Tagging="colour=red")
    put(bucket, "gone.txt", b"gone", CacheControl="no-store")


def change(bucket: str) -> None:
    """Change the objects of `make_described` as an application does; one stays."""
    put(bucket, "other.txt", b"something else", Metadata={"by": "app"})
    put(bucket, "tagged.txt", b"tagged", Tagging="colour=blue")
    put(bucket, "new.txt", b"new", Tagging="new=yes")
    client().delete_object(Bucket=bucket, Key="gone.txt")


def backed_up(source: ObjectsSource, folder: Path) -> list[Artifact]:
    """Back a source up, and return what is stored of it."""
    vault = MemoryVault()
    return stored_artifacts(vault, back_up([source], vault, folder / "backing-up"), source.name)


def staging_of(source: ObjectsSource, folder: Path, tag: str = "tag1") -> Staged:
    """Return a staging with a workspace of its own."""
    return source.staging(tag, folder / "stagings" / tag)


def names(bucket: str) -> list[str]:
    """Return all keys, hidden ones too; none where there is no bucket."""
    api = client()
    pages = api.get_paginator("list_objects_v2")
    try:
        return [
            one["Key"] for page in pages.paginate(Bucket=bucket) for one in page.get("Contents", [])
        ]
    except api.exceptions.NoSuchBucket:
        return []


def picture(bucket: str, prefix: str = "") -> dict[str, tuple[bytes, Mapping[str, Any]]]:
    """Return every object with all that describes it, without the hidden ones."""
    return {
        key.removeprefix(prefix): portrait(bucket, key)
        for key in names(bucket)
        if key.startswith(prefix) and HIDDEN not in key
    }


def portrait(bucket: str, key: str, **which: Any) -> tuple[bytes, Mapping[str, Any]]:
    """Return the content of an object and what describes it."""
    api = client()
    got = api.get_object(Bucket=bucket, Key=key, **which)
    tags = api.get_object_tagging(Bucket=bucket, Key=key, **which)["TagSet"]
    described = {name: got.get(name) for name in KEPT}
    described["metadata"] = got["Metadata"]
    described["tags"] = {tag["Key"]: tag["Value"] for tag in tags}
    return got["Body"].read(), described
