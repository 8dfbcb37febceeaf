"""A Chroma server of our own, on an empty folder, for as long as it is wanted."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from holdfast.errors import HoldfastError, NoScratch

from ._chroma_server_api import Api
from ._http import Patience

GUARD = Path(__file__).with_name("_command_guard.py")
QUIET = {"ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}
START_SECONDS = 60.0
STARTS = 3  # another program may take a port that was free a moment before
PAUSE = 0.05
LONGEST = 300  # characters of what the program complained of


@contextmanager
def scratch_url(component: str, program: str, workspace: Path) -> Iterator[str]:
    """Run a server in ``workspace`` and give its address; it ends with the context, or with us.

    Raises:
        NoScratch: it does not start.

    """
    reason = ""
    for start in range(STARTS):
        with _server(program, workspace, f"server{start}") as (url, process):
            if _answers(component, url, process):
                yield url
                return
            reason = _complaint(workspace / f"server{start}.log")
    raise NoScratch(component=component, reason=f"`chroma run` does not start: {reason}")


def chroma_program() -> str | None:
    """Return the program that comes with Chroma, beside this Python or on the path, if there is."""
    beside = Path(sys.executable).with_name("chroma")
    return str(beside) if beside.exists() else shutil.which("chroma")


@contextmanager
def _server(
    program: str, workspace: Path, name: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = _free_port()
    ours, theirs = os.pipe()
    where = ["--path", str(workspace / name), "--host", "127.0.0.1", "--port", str(port)]
    with (workspace / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            # The guard ends the server when we are gone, however that happens.
            [sys.executable, "-I", "-S", str(GUARD), str(ours), program, "run", *where],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **QUIET},
            cwd=workspace,
            pass_fds=(ours,),
        )
    os.close(ours)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.close(theirs)
        process.wait()


def _answers(component: str, url: str, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    with Api(component, url, {}, Patience(attempts=1)) as api:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(HoldfastError):
                api.version()
                return True
            time.sleep(PAUSE)
    return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _complaint(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:LONGEST] if lines else "it said nothing"
