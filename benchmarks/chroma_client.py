"""What one would write with Chroma's own client: `python -m benchmarks.chroma_client VERB …`.

Its libraries are imported on use, because whoever measures shares names with it and stays small.
``fill PORT RECORDS`` makes data; ``export PORT FILE`` reads it by ids, as Holdfast does, into JSON
lines with base64 vectors; ``import PORT FILE`` writes such a file into a new collection and counts.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

COLLECTION, COPY = "memories", "copied"
DIMENSIONS = 384
DOCUMENT = "about a hundred words " * 15
PAGE, BATCH = 1000, 500


def fill(client: Any, records: int) -> None:
    """Make vectors with a text and some metadata each."""
    import numpy as np

    seeded = np.random.default_rng(20_260_204)
    collection = client.create_collection(COLLECTION, embedding_function=None)
    for start in range(0, records, BATCH):
        numbers = range(start, min(start + BATCH, records))
        collection.add(
            ids=[f"record-{number}" for number in numbers],
            embeddings=seeded.standard_normal((len(numbers), DIMENSIONS), np.float32),
            documents=[f"{number} {DOCUMENT}" for number in numbers],
            metadatas=[{"number": number, "kind": "made up"} for number in numbers],
        )


def export(client: Any, out: Path) -> None:
    """Read everything."""
    import numpy as np

    collection = client.get_collection(COLLECTION, embedding_function=None)
    ids = collection.get(include=[])["ids"]
    with out.open("wb") as file:
        for start in range(0, len(ids), PAGE):
            page = collection.get(
                ids=ids[start : start + PAGE], include=["embeddings", "documents", "metadatas"]
            )
            columns = (page[name] for name in ("ids", "embeddings", "documents", "metadatas"))
            rows = zip(*columns, strict=True)
            for name, vector, document, metadata in rows:
                text = base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
                file.write(json.dumps([name, text, document, metadata]).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def take_in(client: Any, source: Path) -> None:
    """Write everything into a new collection."""
    import numpy as np

    if COPY in {each.name for each in client.list_collections()}:
        client.delete_collection(COPY)
    collection = client.create_collection(COPY, embedding_function=None)
    count = 0
    with source.open("rb") as file:
        while rows := [json.loads(line) for line in islice(file, BATCH)]:
            ids, texts, documents, metadatas = map(list, zip(*rows, strict=True))
            vectors = [np.frombuffer(base64.b64decode(text), "<f4") for text in texts]
            collection.add(ids=ids, embeddings=vectors, documents=documents, metadatas=metadatas)
            count += len(rows)
    if collection.count() != count:
        raise SystemExit("the copy has another number of records")


def main() -> None:
    """Read the command line and do it."""
    import chromadb
    from chromadb.config import Settings

    verb, port, what = sys.argv[1:]
    settings = Settings(anonymized_telemetry=False)
    client = chromadb.HttpClient(host="127.0.0.1", port=int(port), settings=settings)
    if verb == "fill":
        fill(client, int(what))
    else:
        {"export": export, "import": take_in}[verb](client, Path(what))


if __name__ == "__main__":
    main()
