"""Runs: blobs that lie close together in one pack, and are read with one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from holdfast.ports import Store

from .index import Place
from .packs import PACKS
from .repository import Repository

THREADS = min(8, (os.cpu_count() or 1) + 2)  # that read: some wait for the store, or for a disk
GAP = 64 << 10  # bytes not wanted that are read rather than asking once more
LONGEST = 16 << 20  # bytes of a run
NEAR = 4 << 20  # of a folder here: another call costs little, and memory used again less


def position(place: Place) -> tuple[bytes, int]:
    """Return what places are sorted by for `runs`."""
    return place.pack, place.blob.offset


def is_near(store: Store) -> bool:
    """Tell whether a store is a folder of this machine: then reading costs no wait."""
    return store.path(PACKS) is not None


def longest_run(repository: Repository) -> int:
    """Return how many bytes are best read at once."""
    return NEAR if is_near(repository.store) else LONGEST


def runs(places: Iterable[Place], longest: int = LONGEST) -> Iterator[list[Place]]:
    """Give blobs that lie close together as one run each; they are given in order of `position`."""
    run: list[Place] = []
    start = end = 0
    for place in places:
        blob = place.blob
        far = blob.offset - end > GAP or blob.offset + blob.length - start > longest
        if run and (far or place.pack != run[0].pack):
            yield run
            run = []
        if not run:
            start = blob.offset
        run.append(place)
        end = blob.offset + blob.length
    if run:
        yield run


def read_run(repository: Repository, run: Sequence[Place]) -> Iterator[tuple[Place, memoryview]]:
    """Read a run with one call, and give its blobs sealed, as they lie there."""
    start, last = run[0].blob.offset, run[-1].blob
    read = memoryview(repository.part(run[0].pack, start, last.offset + last.length - start))
    for place in run:
        at = place.blob.offset - start
        yield place, read[at : at + place.blob.length]
