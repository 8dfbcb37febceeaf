"""Qdrant: a collection of 200,000 vectors of 768 dimensions, beside its own snapshot and curl."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from servers.qdrant import KEY, Client, QdrantServer, qdrant_server

from ..measure import Command, alternate, shell
from ..stack import Options, Stack, holdfast, remove
from ..table import Section, seconds_row

NAME = "documents"
POINTS, DIMENSIONS = 200_000, 768
BATCH = 500
HALVES = 1000  # halves of vectors: any two make one
RATIO = 1.2
CURL = f"curl -fsS -H 'api-key: {KEY}'"  # a key of this machine's own, for a few minutes


def measure(work: Path, options: Options) -> Section:
    """Measure a backup beside snapshot and download, and a restore beside the upload, in turn."""
    work.mkdir()
    with qdrant_server({}, disk=Path(tempfile.gettempdir())) as server:
        points = POINTS // 50 if options.small else POINTS
        argv = [sys.executable, "-m", "benchmarks.cases.qdrant", str(server.port), str(points)]
        subprocess.run(argv, check=True)
        component = {"source": "qdrant", "url": server.url, "api_key": KEY}
        stack = Stack(work / "stack", {"vectors": component})
        stack.write()
        download, target = work / "by curl.snapshot", "by_curl"
        taking = Command(
            "curl: make a snapshot, download it",
            shell(_taking(server, download)),
            before=partial(_clear, server, download),
            output=download,
        )
        backup = stack.backup("Holdfast backup")
        backups = alternate([taking, backup], options.runs)
        _backed_up(server, download)
        uploading = Command(
            "curl: upload the snapshot",
            shell(
                f"{CURL} -F 'snapshot=@{download};filename=up.snapshot' "
                f"'{server.url}/collections/{target}/snapshots/upload?priority=snapshot'"
            ),
            before=partial(_drop, server, target),
            after=partial(_drop, server, target),
        )
        argv = holdfast("restore", "latest", stack.config, "--yes")
        restoring = Command("Holdfast restore over the live one", argv)
        restores = alternate([uploading, restoring], options.fewer(3))
    return Section(
        f"Qdrant, {points:,} vectors of {DIMENSIONS} dimensions",
        "The peer makes a snapshot on the server and downloads it, unchecked; Holdfast does the "
        "same, checks it, counts what it holds and compresses it. Its restore uploads the snapshot "
        "twice, beside the live collection to look at it and then over it, and fetches a snapshot "
        "of the live one in between as the way back; curl uploads it once.",
        (
            seconds_row(backups[0]),
            seconds_row(backups[1], peer=backups[0], most=RATIO, ours=True),
            seconds_row(restores[0]),
            seconds_row(restores[1], peer=restores[0], ours=True),
        ),
    )


def _taking(server: QdrantServer, path: Path) -> str:
    place = f"{server.url}/collections/{NAME}/snapshots"
    name = 'python3 -c \'import json, sys; print(json.load(sys.stdin)["result"]["name"])\''
    return f"name=$({CURL} -X POST {place} | {name}); {CURL} -o '{path}' {place}/$name"


def _clear(server: QdrantServer, download: Path) -> None:
    remove(download)
    for name in server.client.snapshots(NAME):
        server.client.call("DELETE", f"/collections/{NAME}/snapshots/{name}")


def _backed_up(server: QdrantServer, download: Path) -> None:
    """Leave the snapshot that is uploaded, and nothing else."""
    kept = download.with_suffix(".kept")
    download.rename(kept)
    _clear(server, download)
    kept.rename(download)


def _drop(server: QdrantServer, name: str) -> None:
    if name in server.client.names():
        for snapshot in server.client.snapshots(name):
            server.client.call("DELETE", f"/collections/{name}/snapshots/{snapshot}")
        server.client.drop(name)


def fill(port: int, points: int) -> None:
    """Make the collection. Its graph is not built: that takes longer than all the rest."""
    chosen = random.Random(20_260_204)
    client = Client(port)
    client.create(
        NAME,
        vectors={"size": DIMENSIONS, "distance": "Cosine"},
        optimizers_config={"indexing_threshold": 0},
    )
    halves = [
        ",".join(f"{chosen.gauss(0, 1):.7f}" for _ in range(DIMENSIONS // 2)) for _ in range(HALVES)
    ]
    for start in range(0, points, BATCH):
        texts = []
        for number in range(start, min(start + BATCH, points)):
            one, other = divmod(number * 7919 % HALVES**2, HALVES)
            payload = json.dumps({"document": f"doc-{number // 8}", "page": number % 8})
            vector = f"[{halves[one]},{halves[other]}]"
            texts.append(f'{{"id":{number},"vector":{vector},"payload":{payload}}}')
        body = f'{{"points":[{",".join(texts)}]}}'
        client.send("PUT", f"/collections/{NAME}/points?wait=true", body.encode())


if __name__ == "__main__":
    fill(int(sys.argv[1]), int(sys.argv[2]))
