"""A Qdrant server of our own for a while: on this machine alone, with a key nobody else has."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import NoScratch

PROGRAM = "qdrant"
START_SECONDS = 60.0
STARTS = 3  # another program may take a port that was free a moment before
LOOPBACK = "127.0.0.1"
# The server ends when this process does, however that ends: then the shell's input ends.
GUARD = (
    'exec 3<&0; "$0" "$@" 3<&- & child=$!; '
    '(cat <&3 >/dev/null; kill -9 "$child" 2>/dev/null) & wait "$child"'
)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    url: str
    key: str


def found(program: Path | None) -> Path | None:
    """Return where the program is: where it is said to be, or on the path."""
    if program is not None:
        return program if os.access(program, os.X_OK) else None
    place = shutil.which(PROGRAM)
    return Path(place) if place else None


def version_of(program: Path) -> str:
    """Return what version the program says it is; empty where it does not say."""
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().rpartition(" ")[2]


@contextmanager
def running(program: Path, folder: Path, component: str) -> Iterator[Running]:
    """Start a server on an empty folder, and end it.

    Raises:
        NoScratch: it does not start.

    """
    for _start in range(STARTS):
        port, grpc = _free_ports()
        key = secrets.token_urlsafe(24)
        place = folder / f"server-{port}"
        place.mkdir(parents=True, mode=0o700)
        process = _started(program, place, port, grpc, key)
        try:
            if _answers(process, port):
                yield Running(f"http://{LOOPBACK}:{port}", key)
                return
        finally:
            _end(process)
    said = (place / "log").read_text("utf-8", "replace").strip().splitlines()[-1:]
    reason = f"{program} did not start: {' '.join(said) or 'it said nothing'}"
    raise NoScratch(component=component, reason=reason)


def _started(program: Path, place: Path, port: int, grpc: int, key: str) -> subprocess.Popen[bytes]:
    settings = {
        "QDRANT__SERVICE__HOST": LOOPBACK,
        "QDRANT__SERVICE__HTTP_PORT": str(port),
        "QDRANT__SERVICE__GRPC_PORT": str(grpc),
        "QDRANT__SERVICE__API_KEY": key,
        "QDRANT__STORAGE__STORAGE_PATH": str(place / "storage"),
        "QDRANT__STORAGE__SNAPSHOTS_PATH": str(place / "snapshots"),
        "QDRANT__LOG_LEVEL": "WARN",
    }
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    with (place / "log").open("wb") as log:
        return subprocess.Popen(
            ["sh", "-c", GUARD, str(program), "--disable-telemetry"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=place,
            env={**kept, **settings},
            start_new_session=True,
        )


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            with socket.create_connection((LOOPBACK, port), 1) as connection:
                connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
                if b" 200 " in connection.recv(64):
                    return process.poll() is None
        except OSError:
            pass
        time.sleep(0.02)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server whose data is of no use any more."""
    assert process.stdin is not None  # noqa: S101 - it was made with one
    process.stdin.close()
    process.wait()


def _free_ports() -> tuple[int, int]:
    with socket.create_server((LOOPBACK, 0)) as one, socket.create_server((LOOPBACK, 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
