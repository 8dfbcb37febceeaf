"""What vaults promise whose backups can be exported, as tests. Inherit `ExportContract`."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import ClassVar

import pytest

from ..errors import BackupDamaged, BackupExists, UnsafeName
from ..model.manifest import Manifest
from ..ports import Exporting
from ._entries import in_chunks
from ._trips import drain, read_artifact, silent
from .vault_contract import VaultContract, keep, samples


class ExportContract(VaultContract):
    """The promises of a vault that is `Exporting`, besides those of every vault."""

    swears_to_the_guide: ClassVar[bool] = True  # whether a changed ``RESTORE.md`` is found out

    def make_vault(self, folder: Path) -> Exporting:
        """Return an empty vault; ``folder`` does not exist yet and may be used for it."""
        raise NotImplementedError

    @pytest.fixture
    def vault(self, tmp_path: Path) -> Exporting:
        return self.make_vault(tmp_path / "vault")

    def test_an_export_is_taken_in_whole(self, vault: Exporting, tmp_path: Path) -> None:
        manifest = keep(vault)
        other = self.make_vault(tmp_path / "other")
        with vault.export(manifest) as chunks:
            assert other.take(chunks) == manifest
        assert other.verify(manifest, silent) == []
        assert list(other.manifests()) == [manifest]
        assert [read_artifact(other.artifact(manifest, s)) for s in manifest.artifacts] == [
            read_artifact(artifact) for artifact in samples()
        ]
        assert exported(other, manifest) == exported(vault, manifest)

    def test_an_export_begins_with_the_manifest(self, vault: Exporting) -> None:
        with tarfile.open(fileobj=io.BytesIO(exported(vault, keep(vault)))) as tar:
            names = tar.getnames()
        assert names[0].endswith("metadata.json")
        assert len(names) == len(set(names))

    def test_an_id_that_exists_is_not_taken_in(self, vault: Exporting) -> None:
        manifest = keep(vault)
        data = exported(vault, manifest)
        with pytest.raises(BackupExists):
            vault.take(in_chunks(data))
        assert vault.verify(manifest, silent) == []

    @pytest.mark.parametrize("how", ["cut", "half", "empty", "text", "header"])
    def test_broken_exports_are_refused(self, vault: Exporting, tmp_path: Path, how: str) -> None:
        data = exported(vault, keep(vault))
        broken = {
            "cut": data.rstrip(b"\0"),
            "half": data[: len(data) // 2],
            "empty": b"",
            "text": b"this is not a tar" * 100,
            "header": b"\xff" + data[1:],
        }[how]
        self.refuses(broken, tmp_path)

    def test_exports_with_other_bytes_are_refused(self, vault: Exporting, tmp_path: Path) -> None:
        manifest = keep(vault)
        members = unpacked(exported(vault, manifest))
        for number, (name, data) in enumerate(members):
            changed = [*members]
            changed[number] = (name, bytes([data[0] ^ 1]) + data[1:])
            if not name.endswith("RESTORE.md") or self.swears_to_the_guide:
                self.refuses(repacked(changed), tmp_path / str(number))

    @pytest.mark.parametrize("name", ["extra", "../escaped", "/escaped", ".holdfast/x"])
    def test_exports_with_other_files_are_refused(
        self, vault: Exporting, tmp_path: Path, name: str
    ) -> None:
        members = unpacked(exported(vault, keep(vault)))
        self.refuses(repacked([*members, (name, b"x")]), tmp_path)
        self.refuses(repacked([members[0], (name, b"x"), *members[1:]]), tmp_path)

    def test_exports_with_a_file_missing_are_refused(
        self, vault: Exporting, tmp_path: Path
    ) -> None:
        members = unpacked(exported(vault, keep(vault)))
        artifacts = {stored.path for stored in vault.manifest(next_id(vault)).artifacts}
        for missing in artifacts:
            rest = [member for member in members if member[0] != missing]
            self.refuses(repacked(rest), tmp_path)

    def refuses(self, data: bytes, folder: Path) -> None:
        """See that an export is refused, and that nothing of it stays."""
        vault = self.make_vault(folder / "refusing")
        before = self.leftovers(vault)
        with pytest.raises((BackupDamaged, UnsafeName)):
            vault.take(in_chunks(data))
        assert list(vault.manifests()) == []
        assert self.leftovers(vault) == before
        assert vault.sweep() == []


def next_id(vault: Exporting) -> str:
    """Return the id of the first backup."""
    return next(found.id for found in vault.manifests())


def exported(vault: Exporting, manifest: Manifest) -> bytes:
    """Return an export whole."""
    with vault.export(manifest) as chunks:
        return drain(chunks)


def unpacked(data: bytes) -> list[tuple[str, bytes]]:
    """Return the files of a tar in their order."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = [(member.name, tar.extractfile(member)) for member in tar]
        return [(name, file.read()) for name, file in files if file]


def repacked(members: list[tuple[str, bytes]]) -> bytes:
    """Return a tar of files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()
