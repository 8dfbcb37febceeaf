"""Dumps of a database that is held still, streamed from `pg_dump`."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

from holdfast.model.artifact import Chunks

from ._command import ProgramFailed, Running
from ._postgres_address import Address
from ._postgres_count import Selection, Table
from ._postgres_errors import Border
from ._postgres_snapshot import Snapshot
from ._postgres_tools import Tools

# Labels of the artifacts. `database` only serves layouts of vaults and is unique to each artifact.
DATABASE = "database"
HOLDS = "holds"  # the database that a dump is of
TABLE = "table"  # the only table whose rows a part holds
SERVER = "server"  # the version of the server it was dumped from
TOOL = "tool"  # and of the program that wrote it
NEEDS = "needs"  # JSON of `Needs`
LEFT_OUT = "left_out"  # JSON of `Selection`
GLOBALS = "globals"  # the part, and the name, of roles and tablespaces

_MAGIC = b"PGDMP"
_HEAD = 64  # bytes that hold the beginning of an archive with its time in any case
_TIMES = 7  # numbers: second, minute, hour, day, month, year, and whether it is summer time
_OLDEST, _NEWEST = (1, 12), (1, 16)  # versions of the format whose beginning is known


class Dump:
    """One `pg_dump`, started at once, so that it holds its own locks before anyone can wait.

    It waits with its first bytes until it is read. Reading again starts another.
    """

    def __init__(
        self,
        argv: Sequence[str],
        address: Address,
        instant: datetime,
        border: Border,
        patience: float,
    ) -> None:
        """Start it."""
        self._argv = argv
        self._address = address
        self._instant = instant
        self._border = border
        self._patience = patience
        self._waiting: Running | None = self._started()

    def close(self) -> None:
        """End it, if nobody read it."""
        if self._waiting is not None:
            self._waiting.close()
            self._waiting = None

    def await_locks(self) -> None:
        """Wait until it holds its locks: it prints its first bytes when it has them all.

        Without that, whoever wants to change a table could come before it in the queue, and it
        would wait for them while they wait for our snapshot. Reading tells whether it failed.
        """
        if self._waiting is not None:
            with self._border.translating():
                self._waiting.await_output()

    @contextmanager
    def open(self) -> Iterator[Chunks]:
        """Give the archive. Its last chunk comes only once the program has ended well.

        Raises:
            ServerFailed, ConnectionLost, AccessRefused, SourceLocked: it did not.

        """
        running, self._waiting = self._waiting, None
        with self._border.translating(), running or self._started() as program:
            yield self._chunks(program)

    def _chunks(self, program: Running) -> Chunks:
        with self._border.translating():
            chunks = program.chunks()
            head = b""
            for chunk in chunks:
                head += chunk
                if len(head) >= _HEAD:
                    break
            if not head:
                raise ProgramFailed(program.name, "gave nothing", [])
            yield dated(head, self._instant)
            yield from chunks

    def _started(self) -> Running:
        return Running(
            self._argv,
            self._address.environment(),
            patience=self._patience,
        )


def dated(head: bytes, instant: datetime) -> bytes:
    """Return the beginning of an archive with an instant in place of the time it was written at.

    Two dumps of one snapshot are then the same bytes. A format that is not known is left as it is.
    See ``pg_backup_archiver.c`` of PostgreSQL, ``WriteHead``: magic, version in three bytes, sizes
    of integers and offsets, format, compression (a byte since 1.15, before an integer), time.
    """
    if len(head) < _HEAD or not head.startswith(_MAGIC):
        return head
    version, width = (head[5], head[6]), head[8]
    if not _OLDEST <= version <= _NEWEST or width != struct.calcsize("<i"):
        return head
    at = 11 + (1 if version >= (1, 15) else 1 + width)
    then = time.localtime(instant.timestamp())
    fields = (
        then.tm_sec,
        then.tm_min,
        then.tm_hour,
        then.tm_mday,
        then.tm_mon - 1,
        then.tm_year - 1900,
        then.tm_isdst,
    )
    numbers = b"".join(struct.pack("<Bi", number < 0, abs(number)) for number in fields)
    return head[:at] + numbers + head[at + len(numbers) :]


def dump_arguments(
    tools: Tools,
    snapshot: Snapshot,
    selection: Selection,
    parts: Sequence[Table],
    lock_timeout: float,
) -> list[str]:
    """Return the command that dumps everything but what is left out, and the rows of parts."""
    tables = snapshot.tables
    emptied = [*selection.emptied(tables), *parts]
    return [
        *_common(tools, snapshot, lock_timeout),
        *(f"--exclude-table={table.quoted}" for table in selection.excluded(tables)),
        *(f"--exclude-table-data={table.quoted}" for table in emptied),
    ]


def part_arguments(
    tools: Tools, snapshot: Snapshot, table: Table, lock_timeout: float
) -> list[str]:
    """Return the command that dumps the rows of one table."""
    only = ["--data-only", f"--table={table.quoted}"]
    return [*_common(tools, snapshot, lock_timeout), *only]


def _common(tools: Tools, snapshot: Snapshot, lock_timeout: float) -> list[str]:
    return [
        tools["pg_dump"],
        "--no-password",
        "--format=custom",
        "--compress=0",
        f"--snapshot={snapshot.id}",
        f"--lock-wait-timeout={round(lock_timeout * 1000)}",
        f"--dbname={snapshot.address.argument()}",
    ]


def labels(
    database: str,
    tools: Tools,
    snapshot: Snapshot,
    selection: Selection,
    table: Table | None = None,
) -> Mapping[str, str]:
    """Return what a restore must know of a dump before it reads it."""
    own = (
        {TABLE: table.shown, DATABASE: f"{database}-{table.shown}"}
        if table
        else {
            DATABASE: database,
            NEEDS: json.dumps(asdict(snapshot.needs)),
            LEFT_OUT: json.dumps(asdict(selection)),
        }
    )
    return {HOLDS: database, SERVER: snapshot.version, TOOL: tools.shown, **own}
