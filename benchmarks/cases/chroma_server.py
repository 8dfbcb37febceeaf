"""A Chroma server with 20,000 vectors: read and written over HTTP, beside Chroma's own client."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from servers.chroma import ChromaServer, chroma_server

from ..chroma_client import COLLECTION, COPY, DIMENSIONS
from ..measure import Command, alternate
from ..stack import Options, Stack, holdfast, remove
from ..table import Row, Section, seconds_row

RECORDS, FEW = 20_000, 1000
"""How many vectors, and how many only to see that it runs."""
MOST_MEMORY = 250_000_000  # bytes


def measure(work: Path, options: Options) -> Section:
    """Measure reading and writing, each by the client and by Holdfast."""
    work.mkdir()
    with chroma_server() as server:
        return _measure(server, work, options)


def _measure(server: ChromaServer, work: Path, options: Options) -> Section:
    records = FEW if options.small else RECORDS
    subprocess.run(_client(server, "fill", str(records)), check=True)
    component = {"source": "chroma", "url": server.url, "collections": [COLLECTION]}
    stack = Stack(work / "stack", {"memory": component})
    stack.write()
    out = work / "export.jsonl"
    empty = partial(remove, out)
    reader = Command(
        "Chroma's client: all records to JSON lines",
        _client(server, "export", str(out)),
        before=empty,
        output=out,
    )
    theirs, ours = alternate([reader, stack.backup("Holdfast backup")], options.runs)
    place = server.database("default_database")

    def clear() -> None:
        if COPY in place.collections():
            place.delete(COPY)

    writer = Command(
        "Chroma's client: the same back into a collection",
        _client(server, "import", str(out)),
        before=clear,
        after=clear,
    )
    restore = holdfast("restore", "latest", stack.config, "--yes", "--discard")
    back = Command("Holdfast restore: fill, count, compare, switch", restore)
    their_writing, our_writing = alternate([writer, back], options.fewer(3))
    peak = max(ours.peak, our_writing.peak)
    return Section(
        "Chroma server, 20,000 vectors",
        f"{records:,} vectors of {DIMENSIONS} dimensions with 330 characters each, from `chroma "
        "run` on this machine. The client reads by ids, a thousand at a time, as Holdfast does, "
        "without listing them again; nothing is promised of the times, which are the server's.",
        (
            seconds_row(theirs),
            seconds_row(ours, peer=theirs, ours=True),
            seconds_row(their_writing),
            seconds_row(our_writing, peer=their_writing, ours=True),
            Row(
                "Holdfast, largest process",
                f"{peak / 1e6:.0f} MB",
                bar=f"≤ {MOST_MEMORY / 1e6:.0f} MB",
                met=peak <= MOST_MEMORY,
            ),
        ),
    )


def _client(server: ChromaServer, *words: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "benchmarks.chroma_client",
        words[0],
        str(server.port),
        *words[1:],
    ]
