"""The application: a library one can ask, kept in places that belong together.

- rows: documents, their passages and the questions asked, in SQLite or PostgreSQL;
- vectors: one for each passage, in Chroma or Qdrant;
- uploads: the documents as they came, as files or as objects in a bucket;
- cache: what was counted and answered lately, in Redis, if it has one;
- settings: the two files under ``infra/`` that an operator edits.

It knows nothing of backups. All it does for them is good manners: what is referred to is written
before whoever refers to it, so that at no instant a row names a vector or a file that is not there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from .cache import open_cache
from .corpus import Text, passages
from .embedding import embed
from .rows import Document, Passage, open_rows
from .uploads import open_uploads
from .vectors import open_vectors


@dataclass(frozen=True, slots=True)
class Places:
    """Where the stores lie: paths, or URLs of servers. Without a cache its place is empty."""

    rows: str
    vectors: str
    uploads: str
    settings: str
    cache: str = ""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return the places of the application that is nothing but files, in its own folder."""
        names = ("library.db", "chroma", "uploads", "infra")
        return cls(*(str(folder / name) for name in names))

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what `written` wrote."""
        return cls(**json.loads(text))

    @property
    def written(self) -> str:
        """The places in one word of a command line."""
        return json.dumps(asdict(self))


class Library:
    """The open application. One process at a time; use it as a context."""

    def __init__(self, places: Places) -> None:
        """Open the stores, and make those that are missing: come what may, it starts."""
        self.places = places
        self.uploads = open_uploads(places.uploads)
        self.rows = open_rows(places.rows)
        self.vectors = open_vectors(places.vectors)
        self.cache = open_cache(places.cache)

    def __enter__(self) -> Self:
        """Return the open library."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close what can be closed."""
        self.vectors.close()
        self.rows.close()

    def add(self, number: int, text: Text) -> int:
        """Add a document under a new number; returns how many passages it has."""
        upload = f"{number:06}.txt"
        content = text.content.encode()
        texts = passages(text.content)
        ids = [f"{number}/{position}" for position in range(len(texts))]

        self.uploads.write(upload, content)
        self.vectors.add(ids, [embed(passage) for passage in texts])
        digest = hashlib.sha256(content).hexdigest()
        document = Document(number, text.title, upload, digest)
        self.rows.add(document, list(zip(ids, texts, strict=True)))
        self.cache.count(number)
        return len(texts)

    def search(self, question: str, most: int = 3) -> list[Passage]:
        """Return the passages nearest to a question, the nearest first."""
        found = self.vectors.nearest(embed(question), most)
        return [passage for one in found for passage in self.rows.passages(one)]

    def ask(self, question: str) -> Passage | None:
        """Answer a question, and remember that it was asked."""
        best = next(iter(self.search(question)), None)
        answer = best.title if best else ""
        self.rows.remember(question, answer)
        self.cache.remember(question, answer)
        return best


def write_settings(folder: Path) -> None:
    """Write the two files an operator would have."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "env").write_text("LIBRARY_PORT=8000\nLIBRARY_SECRET=not-a-real-one\n", "utf-8")
    (folder / "docker-compose.yml").write_text(
        "services:\n  library:\n    build: ..\n    env_file: env\n    ports: ['8000:8000']\n",
        "utf-8",
    )
