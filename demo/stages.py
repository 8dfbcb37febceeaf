"""Where the story takes place: on files alone, or on servers that are started for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .app import Places

HERE = Path(__file__).parent
SIDE = "side"  # the folder, the database and the bucket for a restore beside the live data
DATABASE = BUCKET = "library"
REDIS_PASSWORD = "of-the-demonstration"  # noqa: S105 - invented, for a server that ends with us

ROWS = {name: ("rows", f"rows/{name}") for name in ("documents", "chunks", "questions")}


@dataclass(frozen=True, slots=True)
class Stage:
    """The places of one application, and how they are called when the story is told."""

    configuration: Path
    places: Places
    side: Places  # where the first backup is restored to be judged
    targets: Sequence[str]  # how a person says so
    stores: str
    vectors_gone: str
    counts: Mapping[str, tuple[str, str]]  # the application's names: component, name of its count
    asks_for_snapshots: bool = False  # of its vectors, which a server takes a moment later


@contextmanager
def small(home: Path) -> Iterator[Stage]:
    """Give the application that is nothing but files."""
    side = home / SIDE
    yield Stage(
        configuration=HERE / "holdfast.yaml",
        places=Places.of(home),
        side=Places(
            *(str(side / place) for place in ("rows/library.db", "vectors", "uploads", "settings"))
        ),
        targets=("--target", SIDE),
        stores="rows in SQLite, vectors in Chroma, files, settings",
        vectors_gone="Chroma's folder is removed; the application starts an empty one",
        counts=ROWS | {"vectors": ("vectors", "vectors/passages"), "uploads": ("uploads", "files")},
    )


@contextmanager
def full(home: Path) -> Iterator[Stage]:
    """Start the servers, and give the application that keeps everything on them."""
    from servers import postgres, qdrant, redis, s3

    with ExitStack() as running:
        rows = running.enter_context(postgres.running())
        vectors, vectors_beside = (running.enter_context(qdrant.qdrant_server()) for _ in range(2))
        cache, cache_beside = (
            running.enter_context(redis.running(redis.REDIS_7, password=REDIS_PASSWORD))
            for _ in range(2)
        )
        uploads = running.enter_context(s3.s3_server())
        rows.run(f"CREATE DATABASE {DATABASE}")
        running.enter_context(
            _environment(
                PGPASSWORD=postgres.PASSWORD,
                DATABASE_URL=rows.url(DATABASE),
                QDRANT_URL=vectors.url,
                QDRANT_API_KEY=qdrant.KEY,
                REDIS_URL=cache.url,
                REDIS_PASSWORD=REDIS_PASSWORD,
                S3_ENDPOINT=uploads.endpoint,
                S3_KEY=s3.KEY,
                S3_SECRET=s3.SECRET,
                PATH=f"{rows.tools}:{os.environ['PATH']}",
            )
        )
        settings = str(home / "infra")
        yield Stage(
            configuration=HERE / "holdfast-full.yaml",
            places=Places(
                rows.url(DATABASE),
                vectors.url,
                f"{uploads.endpoint}/{BUCKET}",
                settings,
                cache.url,
            ),
            side=Places(
                rows.url(SIDE),
                vectors_beside.url,
                f"{uploads.endpoint}/{SIDE}",
                str(home / SIDE / "settings"),
                cache_beside.url,
            ),
            targets=(
                *("--target", f"rows={rows.url(SIDE)}"),
                *("--target", f"vectors={vectors_beside.url}"),
                *("--target", f"uploads=s3://{SIDE}"),
                *("--target", f"cache={cache_beside.url}"),
                *("--target", SIDE),
            ),
            stores="rows in PostgreSQL, vectors in Qdrant, counters in Redis, objects in S3",
            vectors_gone="Qdrant's collection and the cache are dropped",
            counts=ROWS
            | {
                "vectors": ("vectors", "points/passages"),
                "uploads": ("uploads", "objects"),
                "keys": ("cache", "keys/db0"),
            },
            asks_for_snapshots=True,
        )


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set variables for the application and for Holdfast, as their units would."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def stage(name: str, home: Path) -> AbstractContextManager[Stage]:
    """Return the stage of a name: ``small`` or ``full``."""
    return full(home) if name == "full" else small(home)
