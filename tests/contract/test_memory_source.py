"""The memory source earns the contract that it serves to test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.ports import Source
from holdfast.testing.memory_source import MemorySource, World
from holdfast.testing.source_contract import SourceContract


class TestMemorySource(SourceContract):
    discoverable = False

    @pytest.fixture(autouse=True)
    def world(self) -> World:
        self._world: World = {}
        return self._world

    def make_source(self, name: str, folder: Path) -> MemorySource:
        return MemorySource(name, folder / "ledger", self._world)

    def create(self, source: Source) -> None:
        assert isinstance(source, MemorySource)
        source.content = {"first": b"1" * 3_000_000, "second": b"", "third \n": bytes(range(256))}

    def change(self, source: Source) -> None:
        assert isinstance(source, MemorySource)
        assert source.content
        source.content = {**source.content, "fourth": b"4"}

    def content(self, source: Source) -> object:
        assert isinstance(source, MemorySource)
        return source.content

    def guided_content(self, source: Source, target: Path) -> object:
        index = json.loads((target / "index.json").read_text())
        return {key: (target / "values" / key).read_bytes() for key in index}
