"""What tests of faults share: one server of commands to crash, and folders that take no waiting."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash_world import Commands


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server


MEMORY = Path("/dev/shm")  # noqa: S108 - tmpfs on every Linux


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is such a place.

    For what a killed process or a failing call leaves behind: files tell that the same way without
    a disk below them. What a disk keeps when the power fails is tried in `test_durability`.
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-tests-", dir=MEMORY) as folder:
        yield Path(folder)
