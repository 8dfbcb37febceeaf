"""One dump of a whole server into a file: by replication, or key by key where that is forbidden."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from ._redis_pull import PullRefused, begin_pull
from ._redis_rdb import Summary
from ._redis_scan import Scan
from ._redis_spool import Spool, spooling
from ._redis_wire import Access

Way = Literal["auto", "replication", "commands"]
_ROUNDING = 2.0  # seconds: a dump says when it began in whole seconds, of another clock


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump that is being written. ``history`` and ``offset`` name its instant, if it has one."""

    spool: Spool
    asked: datetime
    exact: bool
    history: str = ""
    offset: int = -1
    server_time: float | None = None

    def instant(self, summary: Summary) -> datetime:
        """Return when the server began it.

        That may be before we asked: a server that writes its dump to a file first gives several
        replicas the same one.
        """
        begun = summary.aux.get("ctime", "")
        if not self.exact or self.server_time is None or not begun.isdigit():
            return self.asked
        age = self.server_time - int(begun)
        return self.asked - timedelta(seconds=age) if age > _ROUNDING else self.asked


@contextmanager
def dumping(access: Access, path: Path, way: Way) -> Iterator[Dump]:
    """Begin a dump; it goes on in a thread while the context lasts.

    Raises:
        ServerUnreachable, AccessRefused, ServerFailed, ConnectionLost, NoSpace: it cannot be had;
            also on leaving, if it failed meanwhile.

    """
    lost = access.failed("its dump could not be written")
    pull = None
    if way != "commands":
        try:
            pull = begin_pull(access)
        except PullRefused as refusal:
            if way == "replication":
                raise access.refused(f"PSYNC: {refusal}") from None
    if pull is not None:
        with spooling(path, pull.run, pull.stop, lost) as spool:
            yield Dump(spool, pull.instant, True, pull.history, pull.offset, pull.server_time)  # noqa: FBT003 - by its name above
        return
    scan = Scan(access, path.parent)
    with spooling(path, scan.run, scan.stop, lost) as spool:
        yield Dump(spool, datetime.now(UTC), exact=False)
