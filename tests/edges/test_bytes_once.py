"""Verifying reads each byte once, and restoring writes each byte once: the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.edges.command_line import Brain

SIZE = 8 << 20  # bytes of each of the two components
SLACK = 2 << 20  # bytes for modules, journals, manifests and what else a command reads and writes


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the bytes that system calls of this process and its children read and write."""
    counts: dict[str, int] = {}
    before = read_counters()
    yield counts
    counts.update({name: value - before[name] for name, value in read_counters().items()})


def read_counters() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


@pytest.fixture
def backed_up(brain: Brain) -> Brain:
    brain.sql(f"CREATE TABLE blobs AS SELECT randomblob({SIZE}) AS content")
    brain.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    (brain.uploads / "random").write_bytes(os.urandom(SIZE))
    brain.ok("backup")
    brain.ok("verify")  # modules are loaded now, and will not be counted
    brain.ok("restore", "--target", str(brain.folder / "warm"))
    return brain


def test_verifying_checksums_reads_each_byte_once(backed_up: Brain) -> None:
    with counted() as counts:
        backed_up.ok("verify", "latest", "--level", "checksums")
    assert 2 * SIZE <= counts["rchar"] <= 2 * SIZE + SLACK


def test_restoring_writes_each_byte_once(backed_up: Brain) -> None:
    with counted() as counts:
        backed_up.ok("restore", "latest", "--target", str(backed_up.folder / "side"))
    assert 2 * SIZE <= counts["wchar"] <= 2 * SIZE + SLACK


def test_restoring_over_live_stores_writes_each_byte_once_too(backed_up: Brain) -> None:
    with counted() as counts:
        backed_up.ok("restore", "latest", "--yes")
    assert 2 * SIZE <= counts["wchar"] <= 2 * SIZE + SLACK


def test_restoring_reads_the_backup_once(backed_up: Brain) -> None:
    """Once from the vault; what is counted in the staged copy is read by SQLite on top of that."""
    with counted() as counts:
        backed_up.ok("restore", "--component", "uploads", "--yes")
    assert SIZE <= counts["rchar"] <= SIZE + SLACK
