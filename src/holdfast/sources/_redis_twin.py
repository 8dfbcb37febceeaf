"""An empty server of our own for a rehearsal, which ends with it, and if we die."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast.errors import NoScratch, ServerUnreachable

from ._redis_place import Place
from ._redis_wire import Access

# On Debian the checker is the server under another name, and does as its name says.
PROGRAMS = ("redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb")
_SERVER_NAMES = {"redis-check-rdb": "redis-server", "valkey-check-rdb": "valkey-server"}
_PATIENCE = 20.0  # seconds until it answers
_ENDING = 5.0  # seconds until it is killed
# The shell ends the server as soon as its own standard input ends, which it does if we die.
_GUARD = '"$@" & server=$!; cat >/dev/null; kill -KILL "$server"; wait "$server"'
_CONFIGURATION = """\
port 0
unixsocket {socket}
unixsocketperm 700
dir {folder}
save ""
appendonly no
databases 1024
repl-diskless-sync-delay 0
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server program on this machine, and the name by which it is one."""

    program: Path
    called: str
    valkey: bool
    version: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """What to compare by: Valkey 8 reads what Redis 7.2 writes, and not what 7.4 does."""
        return (7, 3, *self.version) if self.valkey and self.version < (9,) else self.version


def servers() -> list[Server]:
    """Return the server programs on this machine, the one that reads the newest files first."""
    found = []
    for name in PROGRAMS:
        if path := shutil.which(name):
            called = _SERVER_NAMES.get(name, name)
            if match := re.search(r"(\w+) server v=(\S+)", _said(Path(path), called)):
                version = tuple(int(part) for part in re.findall(r"\d+", match[2])[:3])
                found.append(Server(Path(path), called, match[1] == "Valkey", version))
    return sorted(found, reverse=True, key=lambda one: one.reach)


def _said(program: Path, called: str) -> str:
    try:
        done = subprocess.run(
            [called, "--version"],
            executable=program,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


@contextmanager
def twin(access: Access, workspace: Path, socket_name: str = "redis.sock") -> Iterator[Path]:
    """Give the path of the socket of an empty server whose files lie in ``workspace``.

    Raises:
        NoScratch: there is no server program here, or it does not start.

    """
    server = next(iter(servers()), None)
    if server is None:
        reason = f"none of {', '.join(PROGRAMS)} is on PATH"
        raise NoScratch(component=access.component, reason=reason)
    # The path of a socket may have no more than 107 bytes: the workspace may be too deep for it.
    with tempfile.TemporaryDirectory(prefix="holdfast-") as short:
        socket = Path(short) / socket_name
        named = Path(short) / server.called
        named.symlink_to(server.program)
        lines = _CONFIGURATION.format(socket=socket, folder=workspace)
        if server.version >= (7,):
            lines += "enable-debug-command local\n"
        configuration = workspace / "redis.conf"
        configuration.write_text(lines, "utf-8")
        with _running([str(named), str(configuration)], workspace) as process:
            _wait(access, socket, process)
            yield socket
        configuration.unlink()


@contextmanager
def _running(words: Sequence[str], workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = os.open(workspace / "redis.log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            ["sh", "-c", _GUARD, "sh", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us: we end it in order
        )
    finally:
        os.close(log)
    assert process.stdin is not None  # noqa: S101 - it was asked for
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(access: Access, socket: Path, process: subprocess.Popen[bytes]) -> None:
    here = replace(access, place=Place(path=str(socket)), password="")
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            with here.connect() as wire:
                # What has expired since it was backed up belongs to the backup all the same.
                wire.call("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        except ServerUnreachable as error:
            if process.poll() is not None or time.monotonic() > patience:
                reason = f"the server that was started does not answer: {error}"
                raise NoScratch(component=access.component, reason=reason) from error
            time.sleep(0.01)
        else:
            return
