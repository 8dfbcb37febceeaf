"""A database as it is seen through the process that holds it (`_sqlite_server`)."""

from __future__ import annotations

import fcntl
import json
import marshal
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdfast.errors import (
    HoldfastError,
    NoSpace,
    SourceCorrupt,
    SourceLocked,
    SourceMissing,
    SourceUnfit,
    SourceUnreadable,
    SourceUnstable,
    TargetUnfit,
    UsageInvalid,
    fields_of,
)
from holdfast.model.artifact import CHUNK, Chunks

EXPECTED = "an SQLite database"
_LENGTH = 4
_PATIENCE = 10  # seconds for the process to end once it was told to
_PACKAGES = str(Path(__file__).parent.parent.parent)
_ROWS: dict[str, type[HoldfastError]] = {
    "missing": SourceMissing,
    "unfit": SourceUnfit,
    "corrupt": SourceCorrupt,
    "locked": SourceLocked,
    "unstable": SourceUnstable,
    "unreadable": SourceUnreadable,
    "full": NoSpace,
    "unwritable": TargetUnfit,
    "usage": UsageInvalid,
}
_START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from holdfast.sources._sqlite_server import main; main()"
)


class Holder:
    """A process that holds one database. Use as a context; leaving it ends the process."""

    def __init__(self, component: str, path: Path, timeout: float) -> None:
        """Start the process. ``component``, ``path`` and ``timeout`` are named in errors."""
        self._component = component
        self._path = path
        self._timeout = timeout
        self._sending = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, _PACKAGES, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is busy with."""
        self._control.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Return the reply to one request.

        Raises:
            HoldfastError: the row of the error table that the reply names.

        """
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reply:
            self._send(what, arguments, [writing])
            return self._understood(reply.read())

    def chunks(self, size: int) -> Chunks:
        """Give the bytes of the snapshot; raises on the way unless there are exactly ``size``."""
        given = 0
        with self._bytes("stream", {}) as (out, finish):
            while chunk := os.read(out, CHUNK):
                given += len(chunk)
                if given == size:
                    finish()  # before the last bytes are given, so that nobody trusts a damaged end
                yield chunk
            if given != size:
                finish()
                raise self._lost(f"{given} of {size} bytes came")

    def rows(self, sql: str) -> Generator[tuple[object, ...], None, None]:
        """Give the rows of a reading statement."""
        with (
            self._bytes("query", {"sql": sql}) as (out, finish),
            os.fdopen(os.dup(out), "rb") as data,
        ):
            while head := data.read(_LENGTH):
                length = int.from_bytes(head, "big")
                batch = data.read(length)
                if len(batch) < length:
                    break
                yield from marshal.loads(batch)  # noqa: S302 - from our own process
            finish()

    @contextmanager
    def _bytes(self, what: str, arguments: dict[str, Any]) -> Iterator[tuple[int, Any]]:
        """Ask for bytes: give where they come, and what raises if they did not come well."""
        out, theirs = os.pipe()
        reading, writing = os.pipe()
        try:
            with os.fdopen(reading, "rb") as reply:
                with suppress(OSError):  # a larger pipe is only faster
                    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, CHUNK)
                self._send(what, arguments, [writing, theirs])
                yield out, lambda: self._understood(reply.read())
        finally:
            os.close(out)

    def _send(self, what: str, arguments: dict[str, Any], descriptors: list[int]) -> None:
        """Send a request with descriptors, which are closed here in any case."""
        data = json.dumps({"do": what, **arguments}).encode()
        try:
            with self._sending:
                head = len(data).to_bytes(_LENGTH, "big")
                socket.send_fds(self._control, [head], descriptors)
                self._control.sendall(data)
        except OSError as error:
            raise self._lost("the process that held it has ended") from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _understood(self, data: bytes) -> dict[str, Any]:
        if not data:
            raise self._lost("the process that held it has ended")
        reply: dict[str, Any] = json.loads(data)
        if "refused" in reply:
            raise self._error(reply["refused"], reply["reason"], reply["path"] or str(self._path))
        return reply

    def _lost(self, reason: str) -> HoldfastError:
        return SourceUnstable(component=self._component, path=self._path, reason=reason)

    def _error(self, kind: str, reason: str, path: str) -> Exception:
        if kind == "bug":
            return RuntimeError(reason)
        if path == os.path.realpath(self._path):
            path = str(self._path)  # as the configuration has it
        offered = {
            "component": self._component,
            "path": path,
            "reason": reason,
            "expected": EXPECTED,
            "seconds": f"{self._timeout:g}",
            "problem": f"{self._component}: {reason}",
        }
        row = _ROWS[kind]
        wanted = fields_of(row.message) | fields_of(row.hint_text)
        return row(**{field: offered[field] for field in wanted})
