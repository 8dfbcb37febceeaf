"""What the tests of the state folder share: a clock one can set, and real second processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from holdfast.model.manifest import Manifest, Status


class SettableClock:
    """A clock that stands still until it is told; wall clock and monotonic are set apart."""

    def __init__(self) -> None:
        self.wall = datetime(2026, 11, 20, 10, 15, tzinfo=UTC)
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own, which ends with the context at the latest."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    """Return the next line that a child says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def manifest(number: int, *, stack: str = "brain", status: Status = Status.COMPLETED) -> Manifest:
    """Return a small manifest; ids sort by ``number``."""
    instant = datetime(2026, 2, 1, tzinfo=UTC) + timedelta(days=number)
    return Manifest(
        id=f"{stack}_backup_{number:04}",
        stack=stack,
        created_at=instant,
        sequence=number,
        status=status,
        components=(),
        artifacts=(),
        holdfast="0.1.0",
        plan="nightly",
        host="elsewhere",
    )
