"""Where the story takes place: on files alone, or on servers that are started for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .app import Places

HERE = Path(__file__).parent
SIDE = "side"  # the folder for a restore beside the live data


@dataclass(frozen=True, slots=True)
class Stage:
    """The places of one application, and how they are called when the story is told."""

    configuration: Path
    places: Places
    side: Places  # where the first backup is restored to be judged
    targets: Sequence[str]  # how a person says so
    stores: str
    vectors_gone: str
    environment: Mapping[str, str] = field(default_factory=dict)


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
    )


def stage(name: str, home: Path) -> AbstractContextManager[Stage]:
    """Return the stage of a name: ``small`` or ``full``."""
    return small(home)
