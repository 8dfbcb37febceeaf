"""Three ways to lose data, each of which has happened to somebody."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing

from .app import Places


def delete_rows(places: Places) -> int:
    """Run a clean-up whose condition is wrong; returns how many documents it took."""
    with closing(sqlite3.connect(places.rows)) as rows, rows:
        rows.execute("DELETE FROM chunks WHERE document_id % 3 = 0")
        return rows.execute("DELETE FROM documents WHERE id % 3 = 0").rowcount


def remove_vectors(places: Places) -> None:
    """Remove Chroma's folder, as one does with what looks like a cache."""
    shutil.rmtree(places.vectors)


def overwrite_files(places: Places) -> int:
    """Overwrite every upload and setting with noise of the same length; returns how many."""
    noise = random.Random(1)
    files = [*places.uploads.iterdir(), *places.settings.iterdir()]
    for file in files:
        file.write_bytes(noise.randbytes(file.stat().st_size))
    return len(files)


def sabotage(places: Places, store: str) -> None:
    """Spoil one thing after a restore: the demonstration must then fail, and say where."""
    if store == "rows":
        with closing(sqlite3.connect(places.rows)) as rows, rows:
            rows.execute("UPDATE chunks SET text = text || '.' WHERE document_id = 1")
    elif store == "vectors":
        remove_vectors(places)
    else:
        file = min(getattr(places, store).iterdir())
        file.write_bytes(file.read_bytes()[:-1] + b"?")
