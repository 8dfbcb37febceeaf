"""An OpenSSH server for SFTP on a free port of this machine alone, with keys of its own.

It runs as whoever starts it, and lets only that user in, by the one key it made. Nothing outside
its temporary folder is read or written, but what clients ask for.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from . import ServerAbsentError

START_SECONDS = 20.0
STARTS = 5  # another program may take a port that was free a moment before
SEPARATION = Path("/run/sshd")  # where a server that root starts locks itself up


@dataclass(slots=True)
class SshServer:
    """A running server. ``folder`` is for what clients store."""

    port: int
    user: str
    key: Path  # the private key that is let in
    known_hosts: Path
    folder: Path
    home: Path  # of the server's own files
    process: subprocess.Popen[bytes]

    def know(self, port: int) -> None:
        """Let clients know its host key at another port too: a proxy's."""
        host_key = (self.home / "host.pub").read_text().split()[:2]
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {' '.join(host_key)}\n")

    def kill(self) -> None:
        """End it and every connection, as a power cut would."""
        _kill_family(self.process.pid)
        self.process.wait()


@contextmanager
def ssh_server(*, folder: Path | None = None, password: str = "") -> Iterator[SshServer]:
    """Start a server, wait until it answers, and end it and its connections.

    ``password`` closes the key that is let in.
    """
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise ServerAbsentError("OpenSSH")
    home = Path(tempfile.mkdtemp(prefix="ssh-"))
    try:
        make_key(home / "host")
        make_key(home / "user", password=password)
        server = _started(program, home, folder or home / "vaults")
        try:
            yield server
        finally:
            server.kill()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def make_key(path: Path, kind: str = "ed25519", *, password: str = "") -> None:
    """Make a key; its public half lies beside it."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", password, "-C", "test", "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )


def _started(program: str, home: Path, folder: Path) -> SshServer:
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
    for _start in range(STARTS):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        config = home / "config"
        config.write_text(_config(home, port))
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        user = pwd.getpwuid(os.geteuid()).pw_name
        known = home / "known_hosts"
        known.write_text("")
        server = SshServer(port, user, home / "user", known, folder, home, process)
        server.know(port)
        if _answers(server):
            return server
        process.kill()
        process.wait()
    raise RuntimeError(f"{program} did not start: {(home / 'log').read_text()}")


def _config(home: Path, port: int) -> str:
    return f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host
PidFile none
AuthorizedKeysFile {home}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
MaxStartups 100
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


def _answers(server: SshServer) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", server.port), 1) as probe:
                return probe.recv(4) == b"SSH-"
        except OSError:
            time.sleep(0.02)
    return False


def _kill_family(process: int) -> None:
    """Kill a process and those that it started, as they are now."""
    children = _children(process)
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    for child in children:
        _kill_family(child)


def _children(process: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parent = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[1]
            if int(parent) == process:
                found.append(int(stat.parent.name))
    return found
