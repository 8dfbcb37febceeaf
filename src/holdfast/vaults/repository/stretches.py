"""Large files in stretches: what lies together in a file is read, and checked, by one thread.

No two threads wait for each other, nothing is handed from one to the next, and what is unsealed
goes straight to where whoever asked for it wants it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from holdfast.errors import RepositoryDamaged
from holdfast.model.artifact import Stretch

from .blobs import Unsealer
from .damage import DamagedError
from .index import Place, Places
from .repository import Repository
from .runs import longest_run, position, read_run, runs

STRETCH = 4 << 20  # bytes of plaintext; a blob that is larger is one by itself


def stretches(repository: Repository, content: Sequence[Places]) -> Iterator[Stretch]:
    """Give the content of a file in stretches, by the places of its blobs."""
    idle: list[Unsealer] = []  # that no thread has just now
    part: list[tuple[int, Places]] = []
    offset = size = 0
    for places in content:
        more = places[0].blob.size
        if part and size + more > STRETCH:
            yield Stretch(offset, size, partial(_fill, repository, part, idle))
            part, offset, size = [], offset + size, 0
        part.append((size, places))
        size += more
    if part:
        yield Stretch(offset, size, partial(_fill, repository, part, idle))


def _fill(
    repository: Repository,
    part: Sequence[tuple[int, Places]],
    idle: list[Unsealer],
    room: memoryview,
) -> None:
    """Put blobs where they belong in a stretch; one that comes twice is read once."""
    first: dict[bytes, tuple[int, Places]] = {}
    for at, places in part:
        first.setdefault(places[0].blob.id, (at, places))
    unsealer = idle.pop() if idle else Unsealer()
    for place, sealed in _sealed(repository, [places[0] for _at, places in first.values()]):
        blob = place.blob
        at, places = first[blob.id]
        piece = room[at : at + blob.size]
        try:
            unsealer.unseal(repository.key, blob, sealed, piece)
        except DamagedError:  # from another pack, if it is in one
            piece[:] = repository.read(places)
    idle.append(unsealer)
    for at, places in part:
        size, begin = places[0].blob.size, first[places[0].blob.id][0]
        if at != begin:
            room[at : at + size] = room[begin : begin + size]


def _sealed(repository: Repository, places: Sequence[Place]) -> Iterator[tuple[Place, memoryview]]:
    """Read blobs as they lie there, those that lie close together with one call."""
    for run in runs(sorted(places, key=position), longest_run(repository)):
        try:
            yield from read_run(repository, run)
        except RepositoryDamaged:  # the pack is missing, or too short for one of them
            yield from ((place, memoryview(b"")) for place in run)
