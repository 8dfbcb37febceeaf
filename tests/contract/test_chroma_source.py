"""Chroma folders earn the contract, with stores that Chroma itself made."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from holdfast.ports import Source
from holdfast.sources._chroma_folder import ChromaFolder
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.testing.source_contract import SourceContract
from tests.chroma_world import make_store, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "chroma", seed=11, operations=30)


class TestChromaSource(SourceContract):
    @pytest.fixture(autouse=True)
    def _store(self, made: Path) -> None:
        self._made = made

    def make_source(self, name: str, folder: Path) -> ChromaFolder:
        return ChromaFolder(name, ChromaOptions(path=folder / "the memory's"))

    def create(self, source: Source) -> None:
        assert isinstance(source, ChromaFolder)
        shutil.copytree(self._made, source.path)

    def change(self, source: Source) -> None:
        assert isinstance(source, ChromaFolder)
        run("write", path=source.path, seed=12, operations=6)

    def content(self, source: Source) -> object:
        assert isinstance(source, ChromaFolder)
        # Byte by byte, which says more than any count; that Chroma opens it is tested elsewhere.
        files = sorted(path for path in source.path.rglob("*") if path.is_file())
        return {
            str(path.relative_to(source.path)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        }
