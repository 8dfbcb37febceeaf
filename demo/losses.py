"""Three ways to lose data, each of which has happened to somebody."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

from .app import Places
from .cache import RedisCache
from .rows import open_rows
from .uploads import open_uploads
from .vectors import lose_vectors


def delete_rows(places: Places) -> int:
    """Run a clean-up whose condition is wrong; returns how many documents it took."""
    with closing(open_rows(places.rows)) as rows:
        return rows.lose_every_third()


def remove_vectors(places: Places) -> None:
    """Remove the vectors, and empty the cache: one can surely make them again."""
    lose_vectors(places.vectors)
    if places.cache:
        RedisCache(places.cache).lose()


def overwrite_files(places: Places) -> int:
    """Overwrite every upload and setting with noise of the same length; returns how many."""
    noise = random.Random(1)
    uploads = open_uploads(places.uploads)
    contents = uploads.all()
    for name, content in contents.items():
        uploads.write(name, noise.randbytes(len(content)))
    settings = list(Path(places.settings).iterdir())
    for file in settings:
        file.write_bytes(noise.randbytes(file.stat().st_size))
    return len(contents) + len(settings)


def sabotage(places: Places, store: str) -> None:
    """Spoil one thing after a restore: the demonstration must then fail, and say where."""
    if store == "rows":
        with closing(open_rows(places.rows)) as rows:
            rows.spoil()
    elif store == "vectors":
        lose_vectors(places.vectors)
    elif store == "uploads":
        uploads = open_uploads(places.uploads)
        name, content = min(uploads.all().items())
        uploads.write(name, content[:-1] + b"?")
    else:
        file = min(Path(places.settings).iterdir())
        file.write_bytes(file.read_bytes()[:-1] + b"?")
