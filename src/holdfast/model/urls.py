"""URLs of places: buckets of S3, and folders of SSH servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
HOME = "/~/"  # what a path on an SSH server begins with that is below the user's home


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """Return the bucket that a URL names, and what keys begin with: nothing, or it ends in ``/``.

    Raises ``ValueError`` for another URL.
    """
    scheme, separator, rest = url.partition("://")
    bucket, _slash, prefix = rest.partition("/")
    if scheme != "s3" or not separator or not _BUCKET.fullmatch(bucket):
        raise ValueError("a bucket is named as s3://bucket or s3://bucket/prefix")
    return bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""


def check_endpoint(endpoint: str) -> None:
    """Raise ``ValueError`` unless an S3 server can have that address."""
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("`endpoint` begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("`endpoint` holds no credentials: use `access_key`")


@dataclass(frozen=True, slots=True)
class SshFolder:
    """A folder on an SSH server; empty and 0 where the URL does not say user and port."""

    host: str
    user: str
    port: int
    path: str  # without a slash in front: below the user's home


def ssh_folder(url: str) -> SshFolder:
    """Return the folder that a URL ``sftp://user@host:port/path`` names.

    Raises ``ValueError`` for another URL, and for one with a password in it.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 0
    except ValueError:
        raise ValueError("the port of `url` is no number") from None
    if parts.password is not None:
        raise ValueError("`url` holds no password: use a key, or `ssh_password`")
    path = unquote(parts.path)
    path = path.removeprefix(HOME) if path.startswith(HOME) else path
    if parts.scheme != "sftp" or not parts.hostname or not path.strip("/"):
        raise ValueError("a folder is named as sftp://user@host/path or sftp://user@host/~/path")
    if parts.query or parts.fragment:
        raise ValueError("write ? and # in the path of `url` as %3F and %23")
    return SshFolder(parts.hostname, unquote(parts.username or ""), port, path.rstrip("/"))
