from __future__ import annotations

from pathlib import Path

import pytest

from tests.edges.command_line import Brain


@pytest.fixture
def empty_brain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Brain:
    """A folder without anything in it yet."""
    return Brain(tmp_path / "brain", capsys)


@pytest.fixture
def brain(empty_brain: Brain) -> Brain:
    """A small application, never backed up."""
    empty_brain.create()
    return empty_brain
