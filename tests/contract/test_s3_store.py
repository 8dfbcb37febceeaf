"""The store in buckets of a real server earns the contract of every store."""

from __future__ import annotations

from pathlib import Path

from holdfast.ports import Store
from holdfast.testing.store_contract import StoreContract
from tests.stores_world import s3_store


class TestS3Store(StoreContract):
    def make_store(self, folder: Path) -> Store:
        return s3_store(part=5 << 20)
