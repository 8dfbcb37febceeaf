"""The plain vault keeps its contract in buckets and on SFTP servers."""

from __future__ import annotations

from pathlib import Path

from holdfast.ports import Store
from tests.contract.test_vaults import PlainVaultContract
from tests.stores_world import s3_store, sftp_store


class TestPlainVaultOnS3(PlainVaultContract):
    def make_store(self, folder: Path) -> Store:
        return s3_store()


class TestPlainVaultOnSftp(PlainVaultContract):
    layout = "{component}/{database}/{stem}_{timestamp}{suffix}"
    home = "manifests/"

    def make_store(self, folder: Path) -> Store:
        return sftp_store()
