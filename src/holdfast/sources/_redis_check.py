"""Whether an RDB is whole: by our own reader, and by the server's checker where there is one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.errors import SourceCorrupt, ToolTooOld
from holdfast.model.artifact import CHUNK, Chunk
from holdfast.model.facts import Facts, Json

from ._redis_rdb import NEWEST, Item, RdbDamaged, RdbTooNew, Summary, rdb_items, read_rdb

CHECKERS = ("redis-check-rdb", "valkey-check-rdb")
_LONGEST = 3600.0  # seconds
_TOO_NEW = "handle RDB format version"


def checked(component: str, name: str, chunks: Iterator[Chunk]) -> Summary:
    """Read an RDB to its end.

    Raises:
        SourceCorrupt: it is damaged.
        ToolTooOld: it is of a server that is not known here yet.

    """
    with _foreseen(component, name):
        return read_rdb(chunks)


def read_file(component: str, path: Path) -> Summary:
    """Read the RDB in a file to its end; raises as `checked` does."""
    with _foreseen(component, str(path)), path.open("rb", buffering=0) as file:
        return read_rdb(iter(lambda: file.read(CHUNK), b""))


def listed(component: str, path: Path) -> Iterator[Item]:
    """Give what is in the RDB in a file; raises as `checked` does."""
    with _foreseen(component, str(path)), path.open("rb", buffering=0) as file:
        yield from rdb_items(iter(lambda: file.read(CHUNK), b""))


@contextmanager
def _foreseen(component: str, name: str) -> Iterator[None]:
    try:
        yield
    except RdbDamaged as error:
        raise SourceCorrupt(component=component, path=name, reason=str(error)) from error
    except RdbTooNew as error:
        raise ToolTooOld(
            component=component,
            tool="Holdfast",
            found=f"made for RDB versions up to {NEWEST}",
            server=f"newer: {error}",
            advice="upgrade Holdfast",
        ) from error


def counted(summary: Summary, users: int | None) -> Facts:
    """Return what an RDB holds as facts, and the users beside it."""
    details: dict[str, Json] = {
        "rdb_version": summary.version,
        "server_version": _version(summary),
        "modules": [*sorted(summary.modules)],
    }
    return Facts(
        counts(
            {
                database: (keys, summary.expiring[database])
                for database, keys in summary.keys.items()
            },
            summary.functions,
            users,
        ),
        {name: value for name, value in details.items() if value},
        () if summary.checksummed else ("the server writes no checksums (rdbchecksum no)",),
    )


def counts(
    databases: dict[int, tuple[int, int]], functions: int, users: int | None
) -> dict[str, int]:
    """Return numbers by name: keys of each database, those that expire, libraries, users."""
    found = {}
    for database, (keys, expiring) in sorted(databases.items()):
        found[f"keys/db{database}"] = keys
        found[f"expiring/db{database}"] = expiring
    found["functions"] = functions
    found["users"] = users or 0
    return {name: count for name, count in found.items() if count}


def _version(summary: Summary) -> str:
    return summary.aux.get("valkey-ver") or summary.aux.get("redis-ver", "")


def checker() -> str:
    """Return the path of the server's own checker; empty if there is none."""
    return next((found for name in CHECKERS if (found := shutil.which(name))), "")


def native_problems(rdb: Path) -> list[str]:
    """Return what the server's own checker finds wrong with a file, if there is a checker.

    It builds every value and so sees what a checksum that was computed too late does not. One that
    is older than the file says nothing.
    """
    tool = checker()
    if not tool:
        return []
    try:
        done = subprocess.run(
            [tool, str(rdb)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LONGEST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{Path(tool).name} could not be run: {error}"]
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0 or _TOO_NEW in said:
        return []
    lines = said.splitlines()
    start = next((n for n, line in enumerate(lines) if "ERROR DETECTED" in line), -2)
    reason = " ".join(lines[start + 1 : start + 2]) or f"it ended with {done.returncode}"
    return [f"{Path(tool).name}: {reason}"]
