"""The program that opens a copy of a Chroma folder with Chroma's own code, and asks it things.

It runs as a process of its own, started by path: opening changes the copy, loads whole indexes, and
may crash on a damaged one. It is given a line of JSON as its argument and writes JSON into a file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def open_copy(path: str, collections: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return for each collection what Chroma has to say against it."""
    import chromadb
    from chromadb.config import Settings

    problems: dict[str, list[str]] = {}
    clients: dict[tuple[str, str], Any] = {}
    for wanted in collections:
        place = wanted["tenant"], wanted["database"]
        if place not in clients:
            settings = Settings(anonymized_telemetry=False, allow_reset=False)
            tenant, database = place
            clients[place] = chromadb.PersistentClient(
                path=path, settings=settings, tenant=tenant, database=database
            )
        problems[wanted["title"]] = _asked(clients[place], wanted)
    return problems


def _asked(client: Any, wanted: dict[str, Any]) -> list[str]:
    try:
        collection = client.get_collection(wanted["name"], embedding_function=None)
        return list(_answers(collection, wanted["count"]))
    except Exception as error:  # noqa: BLE001 - whatever Chroma raises is the finding
        return [f"Chroma says: {type(error).__name__}: {error}"]


def _answers(collection: Any, expected: int) -> Any:
    count = collection.count()
    if count != expected:
        yield f"Chroma counts {count} vectors; {expected} were expected"
    if not count:
        return
    for offset in sorted({0, count - 1}):
        sample = collection.get(
            limit=1, offset=offset, include=["embeddings", "documents", "metadatas"]
        )
        if len(sample["ids"]) != 1 or len(sample["embeddings"]) != 1:
            yield f"Chroma does not give back record {offset}"
            continue
        near = collection.query(
            query_embeddings=[sample["embeddings"][0]], n_results=1, include=["distances"]
        )
        if not near["ids"] or not near["ids"][0]:
            yield f"a query with the vector of {sample['ids'][0]!r} has no answer"


def main() -> None:
    """Open what the argument says, and write down what was found."""
    job = json.loads(sys.argv[1])
    found = open_copy(job["path"], job["collections"])
    Path(job["answer"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
