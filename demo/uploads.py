"""The documents as they came: files in a folder, or objects in a bucket."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

KIND = "text/plain; charset=utf-8"


class Uploads(Protocol):
    """Contents by their names."""

    def write(self, name: str, content: bytes) -> None:
        """Keep a content under a name."""

    def all(self) -> dict[str, bytes]:
        """Return every content by its name."""


class FolderUploads:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Write a file."""
        (self._folder / name).write_bytes(content)

    def all(self) -> dict[str, bytes]:
        """Read every file."""
        files = [path for path in self._folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self._folder)): path.read_bytes() for path in files}


class BucketUploads:
    """Objects in a bucket, each with its type and the name of whoever sent it.

    What a restore keeps of the objects it replaced lies under ``.holdfast/`` and is none of them.
    """

    def __init__(self, endpoint: str, bucket: str) -> None:
        """Connect, and make the bucket where it is missing."""
        import boto3
        from botocore.config import Config

        self._bucket = bucket
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=os.environ["S3_KEY"],
            aws_secret_access_key=os.environ["S3_SECRET"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        if bucket not in [one["Name"] for one in self._s3.list_buckets()["Buckets"]]:
            self._s3.create_bucket(Bucket=bucket)

    def write(self, name: str, content: bytes) -> None:
        """Put an object."""
        self._s3.put_object(
            Bucket=self._bucket,
            Key=name,
            Body=content,
            ContentType=KIND,
            Metadata={"sent-by": "writer"},
        )

    def all(self) -> dict[str, bytes]:
        """Get every object; one that lost its type or its metadata is not the same."""
        found = {}
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for one in page.get("Contents", []):
                if one["Key"].startswith(".holdfast/"):
                    continue
                got = self._s3.get_object(Bucket=self._bucket, Key=one["Key"])
                kept = got["ContentType"] == KIND and got["Metadata"] == {"sent-by": "writer"}
                found[one["Key"]] = got["Body"].read() if kept else b""
        return found


def open_uploads(where: str) -> Uploads:
    """Open the uploads in a folder, or in the bucket that is the path of a URL."""
    if not where.startswith("http"):
        return FolderUploads(Path(where))
    parts = urlsplit(where)
    return BucketUploads(f"{parts.scheme}://{parts.netloc}", parts.path.strip("/"))
