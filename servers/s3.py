"""A SeaweedFS server that speaks S3, on free ports of this machine alone."""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from . import ServerAbsentError

WEED = Path(sys.executable).with_name("weed")
KEY, SECRET = "AKIDEXAMPLE0000", "SECRETEXAMPLE0000"  # of the owner
READER_KEY, READER_SECRET = "AKIDREADER00000", "SECRETREADER00000"  # may list and read
REGION = "us-east-1"
GRPC = 10_000  # each port has a second one, higher by this
START_SECONDS = 30.0
STARTS = 5  # another program may take a port that was free a moment before


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server."""

    endpoint: str
    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(*, volume_megabytes: int = 64) -> Iterator[S3Server]:
    """Start a server on an empty folder, wait until it answers, and end it."""
    for _start in range(STARTS):
        folder = Path(tempfile.mkdtemp(prefix="s3-"))
        try:
            server = _started(folder, volume_megabytes)
            if server is not None:
                try:
                    yield server
                finally:
                    _end(server.process)
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise RuntimeError(f"{WEED} did not start in {STARTS} attempts")


@functools.cache
def shared_server() -> S3Server:
    """Return the one server that all tests of this process share; it ends with the process."""
    if not WEED.exists():
        raise ServerAbsentError("SeaweedFS")
    running = ExitStack()
    server = running.enter_context(s3_server())
    atexit.register(running.close)
    return server


def _started(folder: Path, volume_megabytes: int) -> S3Server | None:
    master, volume, filer, port = _free_ports(4)
    identities = folder / "identities.json"
    identities.write_text(json.dumps(_identities()))
    data = folder / "data"
    data.mkdir()
    log = (folder / "log").open("wb")
    process = subprocess.Popen(
        [
            str(WEED),
            "-logtostderr=true",
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            f"-master.volumeSizeLimitMB={volume_megabytes}",
            "-master.telemetry=false",
            f"-volume.port={volume}",
            "-volume.max=0",
            "-filer",
            f"-filer.port={filer}",
            "-s3",
            f"-s3.port={port}",
            f"-s3.config={identities}",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ],
        cwd=folder,
        env={
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(folder),
            "TMPDIR": str(folder),  # it leaves sockets there
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # each bucket grows one volume, not seven
        },
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    server = S3Server(f"http://127.0.0.1:{port}", port, process, folder)
    if _answers(server):
        return server
    _end(process)
    return None


def _identities() -> object:
    every = ["Admin", "Read", "Write", "List", "Tagging"]
    return {
        "identities": [
            _identity("owner", KEY, SECRET, every),
            _identity("reader", READER_KEY, READER_SECRET, ["Read", "List"]),
        ]
    }


def _identity(name: str, key: str, secret: str, actions: list[str]) -> object:
    credentials = [{"accessKey": key, "secretKey": secret}]
    return {"name": name, "credentials": credentials, "actions": actions}


def _free_ports(count: int) -> list[int]:
    """Find ports below those that systems give out by themselves, each with its second one."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().randrange(11_000, 22_000)
        if port not in chosen and _is_free(port) and _is_free(port + GRPC):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(server: S3Server) -> bool:
    """Wait until the server says that it is healthy; False if it ended or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        with (
            suppress(urllib.error.URLError, ConnectionError, TimeoutError),
            urllib.request.urlopen(f"{server.endpoint}/healthz", timeout=1),  # noqa: S310 - ours
        ):
            return True
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
