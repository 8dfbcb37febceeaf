"""A Qdrant server on free ports of this machine alone, and a client of the tests' own."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import ServerAbsentError

PROGRAM = Path(sys.prefix) / "servers" / "qdrant"
KEY = "test-key-of-qdrant"
READ_KEY = "test-key-that-only-reads"
NOBODY = 65534
MEMORY = Path("/dev/shm")  # noqa: S108 - a server waits for the disk at every step, for nothing here
TLS = "QDRANT__SERVICE__ENABLE_TLS"
START_SECONDS = 60.0
STARTS = 3  # another program may take a port that was free a moment before


@dataclass(slots=True)
class QdrantServer:
    """A server that can be stopped and started again on the same folder and port."""

    folder: Path
    port: int
    grpc: int
    program: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if TLS in self.settings else 'http'}://127.0.0.1:{self.port}"

    @property
    def client(self) -> Client:
        return Client(self.port)

    def start(self) -> bool:
        """Start it and wait until it answers; False if it ended instead."""
        settings = {
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.port),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc),
            "QDRANT__SERVICE__API_KEY": KEY,
            "QDRANT__SERVICE__READ_ONLY_API_KEY": READ_KEY,
            "QDRANT__STORAGE__STORAGE_PATH": str(self.folder / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self.folder / "snapshots"),
            "QDRANT__LOG_LEVEL": "WARN",
            **self.settings,
        }
        unprivileged: dict[str, Any] = (
            {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.program), "--disable-telemetry", *self.arguments],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **unprivileged,
            )
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends and self.process.poll() is None:
            try:
                with urllib.request.urlopen(  # noqa: S310 - http, and 127.0.0.1
                    f"{self.url}/readyz",
                    timeout=5,
                    context=ssl._create_unverified_context() if TLS in self.settings else None,  # noqa: S323, SLF001
                ):
                    return self.process.poll() is None
            except OSError:
                time.sleep(0.01)
        return False

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Leave no room on its disk for a while."""
        path = self.folder / "filling"
        with path.open("wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(1 << 16))
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017
        try:
            yield
        finally:
            path.unlink()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self, *, on: bool) -> None:
        """Stop it in its tracks, or let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)


SMALL = {
    "QDRANT__STORAGE__WAL__WAL_CAPACITY_MB": "1",
    "QDRANT__STORAGE__OPTIMIZERS__DEFAULT_SEGMENT_NUMBER": "1",
    "QDRANT__STORAGE__PERFORMANCE__MAX_SEARCH_THREADS": "1",
    "QDRANT__SERVICE__MAX_WORKERS": "1",
}
"""Settings for little data: the same server, with less of everything."""


@contextmanager
def qdrant_server(
    settings: Mapping[str, str] = SMALL,
    arguments: Sequence[str] = (),
    megabytes: int = 0,
    disk: Path | None = None,
) -> Iterator[QdrantServer]:
    """Start a server on an empty folder, and end it. Its data is of no use then: it is killed.

    ``megabytes`` is the size of a disk of its own, which only root can give it; ``disk`` a folder
    to put its own in.
    """
    for _start in range(STARTS):
        parent = disk or (MEMORY if MEMORY.is_dir() else None)
        folder = Path(tempfile.mkdtemp(prefix="qdrant-", dir=parent))
        if megabytes:
            kind = ["-t", "tmpfs", "-o", f"size={megabytes}m"]
            subprocess.run(["mount", *kind, "tmpfs", str(folder)], check=True)
        folder.chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        port, grpc = free_ports(2)
        server = QdrantServer(folder, port, grpc, program(), settings, arguments)
        try:
            if server.start():
                yield server
                return
        finally:
            server.kill()
            if megabytes:
                subprocess.run(["umount", str(folder)], check=True)
            shutil.rmtree(folder, ignore_errors=True)
    raise RuntimeError(f"{PROGRAM} did not start in {STARTS} attempts")


_copies: list[tempfile.TemporaryDirectory[str]] = []


def program() -> Path:
    """Return the program where others may run it: not if it lies in root's home."""
    if not PROGRAM.exists():
        raise ServerAbsentError("Qdrant")
    if os.geteuid() != 0 or all(p.stat().st_mode & 0o001 for p in PROGRAM.resolve().parents):
        return PROGRAM
    if not _copies:
        _copies.append(tempfile.TemporaryDirectory(prefix="qdrant-program-"))
        Path(_copies[0].name).chmod(0o755)
        shutil.copy2(PROGRAM, _copies[0].name)
    return Path(_copies[0].name) / PROGRAM.name


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class RefusedError(Exception):
    """The server said no."""


class Client:
    """Qdrant as an application speaks to it: nothing of Holdfast's own."""

    def __init__(self, port: int, key: str = KEY) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.key = key

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.send(method, path, None if body is None else json.dumps(body).encode())

    def send(self, method: str, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http, and 127.0.0.1
            self.base + urllib.parse.quote(path, safe="/?=&"),
            method=method,
            data=body,
            headers={"api-key": self.key, "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
                return json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(f"{error.code}: {error.read().decode()}") from error

    def create(self, name: str, **config: Any) -> None:
        self.call("PUT", f"/collections/{name}", config or {"vectors": DOT4})

    def drop(self, name: str) -> None:
        self.call("DELETE", f"/collections/{name}")

    def upsert(self, name: str, points: Sequence[Mapping[str, Any]]) -> None:
        self.call("PUT", f"/collections/{name}/points?wait=true", {"points": list(points)})

    def delete(self, name: str, **selected: Any) -> None:
        self.call("POST", f"/collections/{name}/points/delete?wait=true", selected)

    def index(self, name: str, field_name: str, schema: Any = "keyword") -> None:
        body = {"field_name": field_name, "field_schema": schema}
        self.call("PUT", f"/collections/{name}/index?wait=true", body)

    def alias(self, alias: str, name: str) -> None:
        action = {"create_alias": {"alias_name": alias, "collection_name": name}}
        self.call("POST", "/collections/aliases", {"actions": [action]})

    def names(self) -> list[str]:
        return sorted(one["name"] for one in self.call("GET", "/collections")["collections"])

    def aliases(self) -> dict[str, str]:
        found = self.call("GET", "/aliases")["aliases"]
        return {one["alias_name"]: one["collection_name"] for one in found}

    def snapshots(self, name: str) -> list[str]:
        return sorted(one["name"] for one in self.call("GET", f"/collections/{name}/snapshots"))

    def count(self, name: str) -> int:
        return int(self.call("POST", f"/collections/{name}/points/count", {"exact": True})["count"])

    def points(self, name: str) -> dict[str, Any]:
        """Return all points with their vectors and payload."""
        found: dict[str, Any] = {}
        offset = None
        while True:
            body = {"limit": 1000, "with_payload": True, "with_vector": True, "offset": offset}
            page = self.call("POST", f"/collections/{name}/points/scroll", body)
            for point in page["points"]:
                found[str(point.pop("id"))] = point
            offset = page["next_page_offset"]
            if offset is None:
                return found

    def content(self, name: str) -> object:
        """Return all that a collection is: its points, parameters and indexes."""
        info = self.call("GET", f"/collections/{name}")
        indexes = {field: one["data_type"] for field, one in info["payload_schema"].items()}
        return self.points(name), info["config"], indexes

    def everything(self, besides: str = "\n") -> object:
        """Return the content of all collections and the aliases, but of names with ``besides``."""
        names = [name for name in self.names() if besides not in name]
        aliases = {alias: name for alias, name in self.aliases().items() if besides not in name}
        return {name: self.content(name) for name in names}, aliases


DOT4 = {"size": 4, "distance": "Dot"}


def vector(size: int, seed: int) -> list[float]:
    """Return a vector that depends on its seed alone, of numbers that JSON keeps exactly."""
    chosen = random.Random(seed)
    return [chosen.randrange(1, 4096) / 4096 for _ in range(size)]


def litter(server: QdrantServer) -> set[str]:
    """Return the names of all that lies on a server: collections, aliases, files of snapshots.

    Empty folders stay where snapshots were: the server has no way to remove them.
    """
    client = server.client
    files = {
        f"file {path.relative_to(server.folder)}"
        for path in (server.folder / "snapshots").rglob("*")
        if path.is_file()
    }
    left = {f"left {path.name}" for path in (server.folder / "storage").glob("tmp/*")}
    names = {f"collection {name}" for name in client.names()}
    return files | left | names | {f"alias {alias}" for alias in client.aliases()}
