"""What the application sees when it opens its stores: `python -m demo.report PLACES`.

A process of its own each time, as a restarted application is: nothing is left in memory from
before. Prints one JSON document; whatever it compares, it computes anew from the data itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .app import Library, Places
from .embedding import embed
from .questions import QUESTIONS
from .rows import TABLES


def main() -> None:
    """Read the command line, open the stores, print the report."""
    parser = argparse.ArgumentParser(prog="python -m demo.report")
    parser.add_argument("places", type=Places.read)
    with Library(parser.parse_args().places) as library:
        print(json.dumps(_report(library)))


def _report(library: Library) -> dict[str, Any]:
    rows = {table: library.rows.table(table) for table in TABLES}
    vectors = library.vectors.all()
    cache = library.cache.all()
    chunks = {vector_id: text for vector_id, _document, text in rows["chunks"]}
    uploads = {name: _digest(content) for name, content in library.uploads.all().items()}
    documents = {upload: sha256 for _id, _title, upload, sha256 in rows["documents"]}
    return {
        "counts": {
            "documents": len(documents),
            "chunks": len(chunks),
            "questions": len(rows["questions"]),
            "vectors": len(vectors),
            "uploads": len(uploads),
            **({"keys": len(cache)} if cache else {}),
        },
        "digests": {
            "rows": _digest(repr(rows).encode()),
            "vectors": _digest(*(i.encode() + v.tobytes() for i, v in sorted(vectors.items()))),
            "uploads": _digest(repr(sorted(uploads.items())).encode()),
            "settings": _digest(repr(sorted(_files(Path(library.places.settings)))).encode()),
            "cache": _digest(repr(sorted(cache.items())).encode()),
        },
        "counted": library.cache.documents(),
        "documents": [row[0] for row in rows["documents"]],
        "vectors_of": _vectors_of(vectors),
        "faults": {
            "chunks without their vector": len(chunks.keys() - vectors.keys()),
            "vectors without a chunk": len(vectors.keys() - chunks.keys()),
            "vectors that are not of their text": sum(
                not np.array_equal(vectors[one], embed(text))
                for one, text in chunks.items()
                if one in vectors
            ),
            "uploads lost or altered": sum(
                uploads.get(name) != sha256 for name, sha256 in documents.items()
            ),
        },
        "answers": [[asdict(found) for found in library.search(q)] for q in QUESTIONS],
    }


def _vectors_of(vectors: dict[str, Any]) -> dict[str, int]:
    """Count the vectors of each document, whose number comes before the slash."""
    counts: dict[str, int] = {}
    for vector_id in vectors:
        document = vector_id.split("/")[0]
        counts[document] = counts.get(document, 0) + 1
    return counts


def _files(folder: Path) -> list[tuple[str, str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [(str(path.relative_to(folder)), _digest(path.read_bytes())) for path in files]


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
