"""A PostgreSQL database of 1.5 GB, against the server's own programs as they are mostly used."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import quote

from servers.postgres import PASSWORD, PostgresServer, running

from ..measure import Command, Figures, Sample, alternate, shell
from ..peers import quoted
from ..stack import Options, Stack, holdfast, remove
from ..table import Section, seconds_row

MEGABYTES = 1500
NAME, OTHER = "knowledge", "restored"
# As a careful administrator has it; what speeds only tests up is off.
SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
}


def measure(work: Path, options: Options) -> Section:
    """Measure backups, restores beside and over the live database, and what clients notice."""
    work.mkdir()
    dump = work / "peer.dump"
    with running("17", SETTINGS) as server:
        server.run(f"CREATE DATABASE {NAME}")
        secret = quote(PASSWORD, safe="")
        url = f"postgresql://postgres:{secret}@127.0.0.1:{server.port}/{NAME}"
        _client("fill", url, options.megabytes(MEGABYTES))
        component = {
            "source": "postgres",
            "url": server.url(NAME),
            "password": PASSWORD,
            "tools": str(server.tools),
        }
        stack = Stack(work / "stack", {NAME: component})
        stack.write()
        theirs, faster, ours = alternate(
            [
                _dump(server, dump, "pg_dump -Fc", "-Fc"),
                _dump(server, work / "zstd.dump", "pg_dump -Fc -Z zstd:1", "-Fc -Z zstd:1"),
                stack.backup("Holdfast backup: dump, count, hash, compress, sync"),
            ],
            options.fewer(3),
        )
        _run(_dump(server, dump, "", "-Fc"))
        verified, restored, beside = alternate(
            [
                stack.verify("Holdfast verify, native", "native"),
                _restore(server, dump),
                _beside(server, stack),
            ],
            options.fewer(3),
        )
        over = holdfast("restore", "latest", stack.config, "--yes", "--discard")
        switched = _switches(url, over, options.fewer(3))
    return Section(
        "PostgreSQL, 1.5 GB of mixed tables",
        "PostgreSQL 17 on the same machine. The backup counts every row of the snapshot it dumps, "
        "and is hashed and synced; the peer's file is not. The restore counts every row too, and "
        "analyzes. The switch is the longest that one of six clients, which connect again as soon "
        "as they can, had to wait during a restore over the live database.",
        (
            seconds_row(theirs),
            seconds_row(faster, peer=theirs),
            seconds_row(ours, peer=theirs, most=0.2, ours=True),
            seconds_row(verified, ours=True),
            seconds_row(restored),
            seconds_row(beside, peer=restored, most=1 / 1.4, ours=True),
            seconds_row(switched, most=0.5, ours=True),
        ),
    )


def _dump(server: PostgresServer, out: Path, name: str, how: str) -> Command:
    script = f"{server.tools}/pg_dump {how} -f {quoted(out)} {NAME}"
    empty = partial(remove, out)
    return Command(
        name, shell(script), before=empty, after=empty, output=out, environment=server.environment
    )


def _restore(server: PostgresServer, dump: Path) -> Command:
    script = (
        f"{server.tools}/createdb -T template0 {OTHER} && "
        f"{server.tools}/pg_restore -d {OTHER} {quoted(dump)}"
    )
    return Command(
        "createdb and pg_restore",
        shell(script),
        before=partial(_drop, server),
        after=partial(_drop, server),
        environment=server.environment,
    )


def _beside(server: PostgresServer, stack: Stack) -> Command:
    target = f"{NAME}={server.url(OTHER)}"
    return Command(
        "Holdfast restore into a new database",
        holdfast("restore", "latest", stack.config, "--yes", "--target", target),
        before=partial(_drop, server),
        after=partial(_drop, server),
    )


def _drop(server: PostgresServer) -> None:
    server.run(f"DROP DATABASE IF EXISTS {OTHER} WITH (FORCE)")


def _run(command: Command) -> None:
    subprocess.run(command.argv, check=True, env=dict(command.environment))


def _switches(url: str, argv: list[str], runs: int) -> Figures:
    samples = [Sample(float(_client("switch", url, *argv)), peak=0) for _run in range(runs)]
    return Figures("of a restore over the live database, the switch", tuple(samples))


def _client(*words: object) -> str:
    argv = [sys.executable, "-m", "benchmarks.postgres_client", *map(str, words)]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout
