"""Data to measure with: `python -m benchmarks.data KIND FOLDER MEGABYTES`.

Always made in a process of its own, so that what it needs of memory is not counted for the commands
measured afterwards. Seeded: two runs measure the same bytes (but for SQLite's own random rows).
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from .measure import size_of

MIB = 1 << 20
ROW_BYTES = 900
SMALL_FILES = 10_000  # of a tree of 1,500 MB; fewer in a smaller one
DIMENSIONS = 1536
DOCUMENT_BYTES = 2000
COLLECTION = "memories"


def make(kind: str, folder: Path, megabytes: int) -> None:
    """Make data in another process."""
    argv = [sys.executable, "-m", "benchmarks.data", kind, str(folder), str(megabytes)]
    subprocess.run(argv, check=True)


def sqlite_file(path: Path, megabytes: int) -> None:
    """Make a database in WAL mode: one table of blobs with an index, and one that is small."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, at INTEGER, body BLOB);"
            "CREATE TABLE transfers (id INTEGER PRIMARY KEY, amount INTEGER);"
            "CREATE INDEX messages_at ON messages (at);"
        )
        left = megabytes * 1_000_000 // (ROW_BYTES + 130)  # with what pages and the index need
        while left > 0:
            batch = min(left, 100_000)
            database.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                f"INSERT INTO messages (at, body) SELECT i, randomblob({ROW_BYTES}) FROM n",
                (batch,),
            )
            left -= batch
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def tree(folder: Path, megabytes: int) -> None:
    """Make a tree: 40 % text like a dump, 20 % vectors, 27 % noise, the rest small files."""
    import numpy as np

    seeded = np.random.default_rng(20_260_204)
    folder.mkdir(parents=True)
    with (folder / "dump.sql").open("wb") as file:
        _fill(file, _statements(seeded), megabytes * 4 // 10 * 1_000_000)
    with (folder / "vectors.f32").open("wb") as file:
        normal = (seeded.standard_normal(MIB // 4, np.float32).tobytes() for _ in iter(int, 1))
        _fill(file, normal, megabytes // 5 * 1_000_000)
    with (folder / "images.bin").open("wb") as file:
        _fill(file, (seeded.bytes(MIB) for _ in iter(int, 1)), megabytes * 4 // 15 * 1_000_000)
    _small_files(folder / "notes", _statements(seeded), megabytes)


def _small_files(folder: Path, statements: Iterator[bytes], megabytes: int) -> None:
    count = max(10, SMALL_FILES * megabytes // 1500)
    size = megabytes * 1_000_000 * 2 // 15 // count
    text = b""
    for number in range(count):
        while len(text) < size:
            text += next(statements)
        parent = folder / f"{number // 100:03}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{number:05}.txt").write_bytes(text[:size])
        text = text[size:]


def _statements(seeded: object) -> Iterator[bytes]:
    """Give INSERT statements of made-up words for ever, about a megabyte at once."""
    import numpy as np

    assert isinstance(seeded, np.random.Generator)  # noqa: S101 - numpy is imported on use only
    lengths = seeded.integers(3, 11, 20_000)
    words = [bytes(seeded.integers(97, 123, length, np.uint8)) for length in lengths]
    table = np.array(words, dtype=object)
    number = 0
    while True:
        # Squared: few words are frequent and many are rare, as in a language.
        chosen = (seeded.random(150_000) ** 2 * len(words)).astype(np.int64)
        text = b" ".join(table[chosen].tolist())
        lines = [text[at : at + 300] for at in range(0, len(text), 300)]
        rows = [
            b"INSERT INTO messages VALUES (%d, '%s');\n" % (number + index, line)
            for index, line in enumerate(lines)
        ]
        number += len(rows)
        yield b"".join(rows)


def _fill(file: BinaryIO, chunks: Iterator[bytes], size: int) -> None:
    while size > 0:
        chunk = next(chunks)[:size]
        file.write(chunk)
        size -= len(chunk)


def chroma(folder: Path, megabytes: int) -> None:
    """Make a Chroma store: vectors of 1,536 dimensions, each with 2,000 characters of text."""
    import chromadb
    import numpy as np
    from chromadb.config import Settings

    seeded = np.random.default_rng(20_260_204)
    client = chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))
    # The graph's quality is not what is measured: a coarse one is built faster.
    collection = client.create_collection(
        COLLECTION,
        embedding_function=None,
        configuration={"hnsw": {"ef_construction": 16, "max_neighbors": 8}},
    )
    statements, text, number, batch = _statements(seeded), b"", 0, 250
    while size_of(folder) < megabytes * 1_000_000:
        while len(text) < batch * DOCUMENT_BYTES:
            text += next(statements)
        documents = [
            text[at : at + DOCUMENT_BYTES].decode()
            for at in range(0, batch * DOCUMENT_BYTES, DOCUMENT_BYTES)
        ]
        text = text[batch * DOCUMENT_BYTES :]
        collection.add(
            ids=[f"{number + index}" for index in range(batch)],
            embeddings=seeded.standard_normal((batch, DIMENSIONS), np.float32),
            documents=documents,
        )
        number += batch


def main() -> None:
    """Read the command line and make the data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data")
    parser.add_argument("kind", choices=("sqlite", "tree", "chroma"))
    parser.add_argument("path", type=Path)
    parser.add_argument("megabytes", type=int)
    options = parser.parse_args()
    makers = {"sqlite": sqlite_file, "tree": tree, "chroma": chroma}
    makers[options.kind](options.path, options.megabytes)


if __name__ == "__main__":
    main()
