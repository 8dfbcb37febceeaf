"""The store in buckets of a real server earns the contract of every store."""

from __future__ import annotations

from pathlib import Path

from holdfast.ports import Store
from holdfast.testing.store_contract import StoreContract
from servers.s3 import shared_server
from tests.stores_world import new_bucket, s3_store


class TestS3Store(StoreContract):
    def make_store(self, folder: Path) -> Store:
        return s3_store(new_bucket(), shared_server())


class TestS3StoreBelowAPrefix(StoreContract):
    def make_store(self, folder: Path) -> Store:
        return s3_store(new_bucket(), shared_server(), "some/where/", part=5 << 20)
