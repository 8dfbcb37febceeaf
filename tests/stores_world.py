"""Buckets and folders of real servers for stores, each test with one of its own."""

from __future__ import annotations

import secrets
from typing import Any

from holdfast.s3.http import Address, Client, Patience
from holdfast.s3.sign import Credentials, Signer
from holdfast.stores.s3 import S3Store
from servers.s3 import KEY, REGION, SECRET, S3Server
from tests import objects_world

QUICK = Patience(attempts=4, connect=2.0, answer=5.0)


def new_bucket(**described: Any) -> str:
    """Make an empty bucket, and return its name."""
    bucket = f"store-{secrets.token_hex(6)}"
    objects_world.client().create_bucket(Bucket=bucket, **described)
    return bucket


def s3_client(
    bucket: str, endpoint: str, key: str = KEY, secret: str = SECRET, patience: Patience = QUICK
) -> Client:
    """Return the client of a bucket."""
    signer = Signer(lambda: Credentials(key, secret), REGION)
    return Client("vault offsite", Address(bucket, endpoint), signer, patience)


def s3_store(bucket: str, server: S3Server, prefix: str = "", **described: Any) -> S3Store:
    """Return a store in a bucket of a server."""
    return S3Store(s3_client(bucket, server.endpoint), prefix, **described)
