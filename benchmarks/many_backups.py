"""Many real backups of one small stack: `python -m benchmarks.many_backups CONFIG COUNT`.

Each is copied, sealed and synced by the same code as any other; only the clock is set forward an
hour between two of them, as if a schedule had made them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.model.events import Event
from holdfast.runtime.backups import BackupOrder, backup_request
from holdfast.runtime.session import open_session
from holdfast.verbs.backup import back_up
from holdfast.verbs.surroundings import Surroundings


class HourlyClock:
    """A clock whose hours are set by hand."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def advance(self) -> None:
        """Let an hour pass."""
        self._now += timedelta(hours=1)

    def now(self) -> datetime:
        """Return the time that was set."""
        return self._now

    def monotonic(self) -> float:
        """Return the machine's own seconds: they measure, and name nothing."""
        return time.monotonic()


def main() -> None:
    """Make the backups."""
    session = open_session(Path(sys.argv[1]))
    count = int(sys.argv[2])
    clock = HourlyClock(datetime.now(UTC) - timedelta(hours=count))
    request = backup_request(session, BackupOrder())
    with tempfile.TemporaryDirectory() as scratch:
        surroundings = Surroundings(clock, _silent, Path(scratch))
        for _number in range(count):
            back_up(request, surroundings)
            clock.advance()


def _silent(_event: Event) -> None:
    """Hear nothing."""


if __name__ == "__main__":
    main()
