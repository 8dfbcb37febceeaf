"""The process that holds one database, and answers what is asked about it.

It stands alone so that neither the asking process nor anything in it can lose SQLite's locks:
POSIX drops all locks of a process on a file when it closes any descriptor of that file. It imports
little, to start within milliseconds, and ends when the asking process does.

Each request comes over a socket as a length, a JSON document, and one or two descriptors: the first
takes the reply, a JSON document; the second takes bytes. Requests are served side by side.
"""

from __future__ import annotations

import json
import marshal
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

from ._sqlite_count import is_damage, survey
from ._sqlite_find import find
from ._sqlite_format import HEADER_SIZE, JOURNAL, WAL, parse_header
from ._sqlite_hold import Database, Held
from ._sqlite_open import Refused, copy_file, open_regular, open_still, recover
from ._sqlite_wal import Damaged, send, write_all

LENGTH = 4  # bytes of a request's length, and of that of a batch of rows
BATCH_ROWS = 500
BATCH_BYTES = 1 << 20
# A connection for reading refuses every change of the database itself; these are the statements
# that would reach beyond it. More cannot be denied: virtual tables prepare writing statements of
# their own when they are first read.
_DENIED = {
    sqlite3.SQLITE_ATTACH,
    sqlite3.SQLITE_DETACH,
    sqlite3.SQLITE_PRAGMA,
    sqlite3.SQLITE_TRANSACTION,
    sqlite3.SQLITE_SAVEPOINT,
    sqlite3.SQLITE_CREATE_TEMP_INDEX,
    sqlite3.SQLITE_CREATE_TEMP_TABLE,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
    sqlite3.SQLITE_CREATE_TEMP_VIEW,
}
# What SQLite answers to a statement that is wrong, or not allowed.
_FAULTS = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_SCHEMA,  # while it prepares what was denied
}

Reply = dict[str, Any]


def _heard(control: socket.socket) -> tuple[Reply, list[int]] | None:
    """Wait for a request; None when whoever asks is gone, perhaps before its last was whole."""
    try:
        head, descriptors, _flags, _address = socket.recv_fds(control, LENGTH, 2)
        length = int.from_bytes(head, "big")
        data = control.recv(length, socket.MSG_WAITALL) if len(head) == LENGTH else b""
    except ConnectionResetError:
        return None
    return (json.loads(data), descriptors) if data and len(data) == length else None


class Server:
    """Holds at most one database in its life."""

    def __init__(self) -> None:
        self._database: Database | None = None
        self._held: Held | None = None
        self._connected = threading.Lock()  # the connection serves one request at a time

    def serve(self, control: socket.socket) -> None:
        """Answer requests until the asking process closes its end, or dies in mid-sentence."""
        while (asked := _heard(control)) is not None:
            threading.Thread(target=self._answer, args=asked, daemon=True).start()
        # Not an orderly exit, which would wait for what other threads are busy with.
        os._exit(0)

    def _answer(self, request: Reply, descriptors: list[int]) -> None:
        method: Callable[..., Reply] = getattr(self, "do_" + request.pop("do"))
        if len(descriptors) > 1:
            request["out"] = descriptors[1]
        try:
            reply = method(**request)
        except Exception as error:  # noqa: BLE001 - told to the asking process, which raises it
            reply = _refusal(error)
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        with suppress(BrokenPipeError):
            write_all(descriptors[0], json.dumps(reply).encode())
        os.close(descriptors[0])

    # --- holding ---

    def do_hold(self, path: str, workspace: str, timeout: float, copying: bool) -> Reply:  # noqa: FBT001 - by keyword
        """Hold a live database still."""
        self._database = Database(path, workspace, timeout)
        self._held = held = self._database.hold(copying=copying)
        size = held.snapshot.size if held.snapshot else 0
        return {"instant": held.instant, "copy": held.copy, "size": size}

    def do_still(self, path: str, recovering: bool) -> Reply:  # noqa: FBT001 - by keyword
        """Open a file that nobody changes."""
        if recovering:
            recover(path)
        descriptor = open_regular(path)
        header = parse_header(os.pread(descriptor, HEADER_SIZE, 0))
        connection = open_still(path)
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        uses_wal = header is not None and header.uses_wal
        self._held = Held(connection, uses_wal=uses_wal, instant=0, copy=path)
        return {}

    def do_release(self) -> Reply:
        """Let go, and tell whether what was read can be trusted."""
        trusted = self._database is None or self._database.unchanged(self._still_held())
        with self._connected:
            self._still_held().connection.close()
        return {"trusted": trusted}

    def _still_held(self) -> Held:
        if self._held is None:
            raise Refused("unstable", "it is not held")
        return self._held

    # --- reading ---

    def do_survey(self, check: str, foreign_keys: bool) -> Reply:  # noqa: FBT001 - by keyword
        """Check and count."""
        held = self._still_held()
        with self._connected:
            return survey(
                held.connection, check, uses_wal=held.uses_wal, foreign_keys=foreign_keys
            ).document()

    def do_stream(self, out: int) -> Reply:
        """Give the bytes of the snapshot."""
        snapshot = self._still_held().snapshot
        if snapshot is None:
            raise Refused("unstable", "it is not held for streaming")
        with suppress(BrokenPipeError):  # whoever reads has had enough
            send(snapshot, out)
        return {}

    def do_query(self, sql: str, out: int) -> Reply:
        """Give the rows of a reading statement, in batches."""
        connection = self._still_held().connection
        with self._connected:
            connection.set_authorizer(_allow_reading)
            try:
                with suppress(BrokenPipeError), closing(connection.cursor()) as cursor:
                    cursor.execute(sql)
                    if cursor.description is None:
                        raise Refused("usage", "this is no statement that reads")
                    for batch in _batches(cursor):
                        data = marshal.dumps(batch)
                        write_all(out, len(data).to_bytes(LENGTH, "big") + data)
            except (sqlite3.ProgrammingError, sqlite3.Warning) as error:
                raise Refused("usage", str(error)) from error
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF in _FAULTS:
                    raise Refused("usage", str(error)) from error
                raise
            finally:
                connection.set_authorizer(None)
        return {}

    # --- without holding ---

    def do_copy_raw(self, path: str, workspace: str) -> Reply:
        """Copy a database, its log and its journal as they are, damaged or not."""
        copied = []
        # The file before the log: frames that a checkpoint moves in between are then in both.
        for suffix in ("", WAL, JOURNAL):
            if suffix and not os.path.exists(path + suffix):  # noqa: PTH110 - a plain string
                continue
            copy_file(open_regular(path + suffix), os.path.join(workspace, "raw" + suffix))  # noqa: PTH118
            copied.append(suffix)
        return {"suffixes": copied}

    def do_look(self, path: str) -> Reply:
        """Tell whether a file is a database."""
        Database(path, "", 0).header()
        return {}

    def do_lockers(self, path: str) -> Reply:
        """Tell which processes hold locks on a database."""
        return {"processes": Database(path, "", 0).lockers()}

    def do_find(self, folder: str) -> Reply:
        """Find databases below a folder."""
        return {"paths": find(folder)}


def _batches(cursor: sqlite3.Cursor) -> Iterator[list[tuple[object, ...]]]:
    batch: list[tuple[object, ...]] = []
    size = 0
    for row in cursor:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _allow_reading(action: int, first: str | None, *_rest: str | None) -> int:
    if action in _DENIED and first != "data_version":  # full-text tables ask for that themselves
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _refusal(error: Exception) -> Reply:
    """Say why not, by a kind of the error table; what nobody foresaw comes with its traceback."""
    match error:
        case Refused():
            return {"refused": error.kind, "reason": error.reason, "path": error.path}
        case Damaged():
            return {"refused": "corrupt", "reason": str(error), "path": ""}
        case sqlite3.Error() if kind := _kind(error):
            return {"refused": kind, "reason": str(error), "path": ""}
        case OSError():
            return {"refused": "unreadable", "reason": error.strerror or str(error), "path": ""}
    import traceback  # not at the start, which would take a quarter longer with it

    return {"refused": "bug", "reason": "".join(traceback.format_exception(error)), "path": ""}


def _kind(error: sqlite3.Error) -> str:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary == sqlite3.SQLITE_NOTADB:
        return "unfit"
    if is_damage(error):
        return "corrupt"
    return {
        sqlite3.SQLITE_BUSY: "locked",
        sqlite3.SQLITE_LOCKED: "locked",
        sqlite3.SQLITE_FULL: "full",
        sqlite3.SQLITE_IOERR: "unreadable",
        sqlite3.SQLITE_CANTOPEN: "unreadable",
        sqlite3.SQLITE_PERM: "unreadable",
        sqlite3.SQLITE_READONLY: "unreadable",
        sqlite3.SQLITE_PROTOCOL: "locked",
        sqlite3.SQLITE_ERROR: "unfit",  # a file format of the future
        sqlite3.SQLITE_SCHEMA: "unstable",
    }.get(primary, "")


def main() -> None:
    """Serve the socket whose descriptor is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the asking process decides what Ctrl-C means
    with socket.socket(fileno=int(sys.argv[1])) as control:
        Server().serve(control)
