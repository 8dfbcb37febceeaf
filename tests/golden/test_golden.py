"""Vaults of every format there ever was: listed, verified, inspected and restored as on day one.

Nothing here may ever be changed to make a test pass: the people who made such backups cannot change
them either.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.model.facts import differences
from holdfast.model.marks import Level
from holdfast.stores.local import LocalStore
from holdfast.testing._entries import in_chunks
from holdfast.testing._trips import silent, stored_artifacts
from holdfast.testing.export_contract import exported
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.plain import PlainOptions, PlainVault
from tests.golden.make import sources_in
from tests.nowhere import NOWHERE

HERE = Path(__file__).parent
VAULTS = sorted(path for path in HERE.glob("format-*/*") if path.is_dir())


def test_there_is_a_golden_vault_of_each_layout() -> None:
    assert [str(path.relative_to(HERE)) for path in VAULTS] == ["format-1/boxed", "format-1/flat"]


@pytest.fixture(params=VAULTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def folder(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


@pytest.fixture
def vault(folder: Path) -> PlainVault:
    """Today's default layout, whatever the vault was made with."""
    return PlainVault("golden", LocalStore(folder), PlainOptions(url=folder))


@pytest.fixture
def expected(folder: Path) -> Any:
    return json.loads((folder.parent / "expected.json").read_text())[folder.name]


def test_it_is_listed_and_whole(vault: PlainVault, expected: Any) -> None:
    (manifest,) = vault.manifests()
    assert vault.manifest(expected["id"]) == manifest
    assert vault.verify(manifest, silent) == []
    assert {s.path: s.sha256 for s in manifest.artifacts} == expected["sha256"]
    assert {c.name: dict(c.facts.counts) for c in manifest.components} == expected["facts"]
    assert manifest.good


def test_its_marks_are_understood(vault: PlainVault, expected: Any) -> None:
    marks = vault.marks(expected["id"])
    assert marks.pinned == "golden"
    assert marks.verified is Level.NATIVE


def test_its_sums_are_the_programs_own(vault: PlainVault, folder: Path, expected: Any) -> None:
    home = next(path.parent for path in folder.rglob("metadata.json"))
    assert home.name == expected["id"]
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=home, check=True)


def test_it_is_restored(vault: PlainVault, expected: Any, tmp_path: Path) -> None:
    manifest = vault.manifest(expected["id"])
    for source in sources_in(tmp_path):
        artifacts = stored_artifacts(vault, manifest, source.name)
        record = manifest.component(source.name)
        assert record is not None
        workspace = tmp_path / f"workspace-{source.name}"
        workspace.mkdir()
        inspection = source.inspect(artifacts, workspace)
        assert list(inspection.problems) == []
        assert differences(record.facts, inspection.facts) == []
        staged = source.staging("golden", NOWHERE)
        staged.fill(artifacts)
        staged.activate()
        staged.settle(None)
    look(tmp_path / "projects.db", tmp_path / "uploads")


def test_it_is_taken_into_a_vault_of_today(vault: PlainVault, expected: Any) -> None:
    manifest = vault.manifest(expected["id"])
    today = PlainVault("today", MemoryStore(), PlainOptions(url=Path("unused")))
    today.take(in_chunks(exported(vault, manifest)))
    assert today.verify(manifest, silent) == []


def test_its_guide_restores_it_without_holdfast(folder: Path, tmp_path: Path) -> None:
    (guide,) = folder.rglob("RESTORE.md")
    blocks = re.findall(r"^```sh\n(.*?)^```$", guide.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    environment = os.environ | {"TARGET_ROOT": str(tmp_path)}
    script = "\n".join(["set -eu", *blocks])
    subprocess.run(["sh", "-c", script], cwd=guide.parent, env=environment, check=True)
    look(tmp_path / "projects" / "projects.db", tmp_path / "uploads")


def look(database: Path, uploads: Path) -> None:
    """See that everything is there as it was made."""
    with closing(sqlite3.connect(database)) as connection:
        assert list(connection.execute("SELECT * FROM projects")) == [
            (1, "first", b"\x00\xff"),
            (2, "zweites ü", None),
            (3, "셋째", b""),
        ]
    assert (uploads / "2026" / "empty folder").is_dir()
    assert (uploads / "2026" / "run.sh").stat().st_mode & 0o777 == 0o750
    assert (uploads / "ü\nnewline").read_bytes() == bytes(range(256))
    assert os.readlink(uploads / "link") == "2026/note.md"  # noqa: PTH115 - the text itself
    assert (uploads / "same note.md").samefile(uploads / "2026" / "note.md")
    assert (uploads / "sparse").read_bytes() == bytes(1 << 20) + b"end"
    assert (uploads / "2026" / "note.md").stat().st_mtime_ns == 1_770_206_400_123_456_789
