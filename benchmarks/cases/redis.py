"""A Redis server of a million keys, against its own client and against a script."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..measure import Command, Figures, Sample, alternate
from ..stack import Options, Stack, holdfast, remove
from ..table import Section, seconds_row

KEYS = 1_000_000
DELAY = "repl-diskless-sync-delay"
READY_SECONDS = 20.0


def measure(work: Path, options: Options) -> Section:
    """Measure a backup, its verification, and a restore into the live server."""
    work.mkdir()
    rdb, saved = work / "peer.rdb", work / "saved"
    with _server(work / "server") as port:
        _run("redis_client", "fill", port, KEYS // 50 if options.small else KEYS)
        _run("redis_client", "save", port, saved)
        cache = {"source": "redis", "url": f"redis://127.0.0.1:{port}"}
        stack = Stack(work / "stack", {"cache": cache})
        stack.write()
        theirs, ours = alternate(
            [_rdb(port, rdb, "redis-cli --rdb"), stack.backup("Holdfast backup")],
            options.fewer(3),
        )
        _ask(port, "CONFIG", "SET", DELAY, "0")
        theirs_now, ours_now = alternate(
            [
                _rdb(port, rdb, "redis-cli --rdb, without the delay"),
                stack.backup("Holdfast backup, without the delay"),
            ],
            options.runs,
        )
        verified, restored, replayed = alternate(
            [
                stack.verify("Holdfast verify, native", "native"),
                Command(
                    "Holdfast restore, with all its checks and a copy of what it replaces",
                    holdfast("restore", "latest", stack.config, "--yes"),
                ),
                Command(
                    "a script that restores each key, in pipelines",
                    _argv("redis_client", "replay", port, saved),
                ),
            ],
            options.fewer(3),
        )
        _ask(port, "--rdb", rdb)
        switched = _switches(port, rdb, work / "staging", options.fewer(3))
    return Section(
        "Redis, 1,000,000 keys",
        "A live server on the same machine. It lets a new replica wait whether others come too "
        f"(`{DELAY}`, 5 s by default), us and its own client alike; without it one sees what the "
        "copy itself takes. The backup is checked, counted, compressed, hashed and synced, the "
        "client's file is not. The switch is what an application notices of a restore.",
        (
            seconds_row(theirs),
            seconds_row(ours, peer=theirs, most=1.2, ours=True),
            seconds_row(theirs_now),
            seconds_row(ours_now, peer=theirs_now, ours=True),
            seconds_row(verified, ours=True),
            seconds_row(replayed),
            seconds_row(restored, peer=replayed, ours=True),
            seconds_row(switched, peer=replayed, most=0.25, ours=True),
        ),
    )


def _rdb(port: int, out: Path, name: str) -> Command:
    empty = partial(remove, out)
    argv = ["redis-cli", "-p", str(port), "--rdb", str(out)]
    return Command(name, argv, before=empty, after=empty, output=out)


def _switches(port: int, rdb: Path, staging: Path, runs: int) -> Figures:
    """Measure only the switch, which is a part of a restore."""
    samples = []
    for _turn in range(runs + 1):
        seconds = float(_run("switch_redis", port, rdb, staging))
        samples.append(Sample(seconds, peak=0))
        remove(staging)
    return Figures("of that, the switch", tuple(samples[1:]))


def _run(*words: object) -> str:
    return subprocess.run(_argv(*words), check=True, stdout=subprocess.PIPE, text=True).stdout


def _argv(program: object, *words: object) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{program}", *map(str, words)]


def _ask(port: int, *words: object) -> None:
    argv = ["redis-cli", "-p", str(port), *map(str, words)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def _server(folder: Path) -> Iterator[int]:
    """Give the port of a server, which on Debian is the checker under another name."""
    folder.mkdir()
    program = shutil.which("redis-check-rdb") or shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("neither redis-server nor redis-check-rdb is on PATH")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen(
        [*words, "--save", ""], executable=program, stdout=subprocess.DEVNULL
    )
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(port: int) -> None:
    patience = time.monotonic() + READY_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.01)
        else:
            return
