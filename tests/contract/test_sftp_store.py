"""The store on a real SFTP server earns the contract of every store."""

from __future__ import annotations

from pathlib import Path

from holdfast.ports import Store
from holdfast.testing.store_contract import StoreContract
from tests.stores_world import sftp_store


class TestSftpStore(StoreContract):
    def make_store(self, folder: Path) -> Store:
        return sftp_store()
