"""Applications that go on writing while they are backed up, each a process of its own.

`python -m benchmarks.writers KIND PATH LOG` writes until SIGTERM; the log has one line for each
write: when it began and when it was committed, in seconds since 1970.
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from .data import COLLECTION, DIMENSIONS

READY_SECONDS = 60.0
SQLITE_PACE = 0.005  # seconds between two commits
CHROMA_PACE = 0.05
CHROMA_BATCH = 20


@contextmanager
def writing(kind: str, path: Path, log: Path) -> Iterator[None]:
    """Have an application write while the context is open; raises if it died meanwhile."""
    argv = [sys.executable, "-m", "benchmarks.writers", kind, str(path), str(log)]
    log.unlink(missing_ok=True)
    with subprocess.Popen(argv) as process:
        try:
            _wait_for_first_write(process, log)
            yield
            if process.poll() is not None:
                raise RuntimeError(f"the writer of {kind} ended with {process.returncode}")
        finally:
            process.terminate()


def _wait_for_first_write(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not (log.exists() and log.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the writer did not begin to write")
        time.sleep(0.02)


def pauses(log: Path, begin: float, end: float) -> list[float]:
    """Return how long each write took that was under way between two instants, in seconds."""
    lines = log.read_text("ascii").splitlines()
    writes = [tuple(map(float, line.split())) for line in lines]
    return [done - begun for begun, done in writes if done >= begin and begun <= end]


def main() -> None:
    """Read the command line and write until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.writers")
    parser.add_argument("kind", choices=("sqlite", "chroma"))
    parser.add_argument("path", type=Path)
    parser.add_argument("log", type=Path)
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    {"sqlite": _write_sqlite, "chroma": _write_chroma}[options.kind](
        options.path, options.log, stop
    )


def _write_sqlite(path: Path, log: Path, stop: threading.Event) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as database:

        def transfer() -> None:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT INTO transfers (amount) VALUES (?)", [(100,), (-100,)])
            database.execute("COMMIT")

        _write(transfer, SQLITE_PACE, log, stop)


def _write_chroma(path: Path, log: Path, stop: threading.Event) -> None:
    import chromadb
    import numpy as np
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(path), settings=Settings(anonymized_telemetry=False))
    collection = client.get_collection(COLLECTION, embedding_function=None)
    seeded = np.random.default_rng(time.time_ns())  # another one each time: ids must be new
    run = time.time_ns()
    number = 0

    def add() -> None:
        nonlocal number
        ids = [f"{run}-{number + index}" for index in range(CHROMA_BATCH)]
        number += CHROMA_BATCH
        vectors = seeded.standard_normal((CHROMA_BATCH, DIMENSIONS), np.float32)
        collection.add(ids=ids, embeddings=vectors)

    _write(add, CHROMA_PACE, log, stop)


def _write(commit: Callable[[], None], pace: float, log: Path, stop: threading.Event) -> None:
    with log.open("w", encoding="ascii", buffering=1) as lines:
        while not stop.wait(pace):
            begun = time.time()
            commit()
            lines.write(f"{begun} {time.time()}\n")


if __name__ == "__main__":
    main()
