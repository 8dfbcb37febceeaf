"""Servers, and names on a server, that are ours for a while: to restore into, and to count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from holdfast.errors import HoldfastError, NoScratch

from ._qdrant_api import Qdrant
from ._qdrant_facts import STAGED, Names
from ._qdrant_reading import Open
from ._qdrant_taking import identity, is_running

SCRATCH = "scratch-"  # begins the tag of a twin on the same server
COUNTED = f"counted{STAGED}{SCRATCH}"  # begins the name of what is recovered to be counted

Connect = Callable[[], AbstractContextManager[Qdrant]]


@contextmanager
def names_beside(component: str, names: Names, connect: Connect) -> Iterator[Names]:
    """Give names beside the live ones, and remove what has them in the end.

    Raises:
        NoScratch: the server cannot be used.

    """
    beside = names.beside(f"{SCRATCH}{identity()}")
    try:
        with connect() as qdrant:
            manages = qdrant.may_manage()
            if manages:
                remove_dead_twins(qdrant)
    except HoldfastError as error:
        reason = f"the program qdrant was not found, and {error}"
        raise NoScratch(component=component, reason=reason) from error
    if not manages:
        reason = "the program qdrant was not found, and the key may only read"
        raise NoScratch(component=component, reason=reason)
    try:
        yield beside
    finally:
        with connect() as qdrant:
            _remove(qdrant, beside.suffix)


def recovered_count(qdrant: Qdrant, open_: Open, sha256: str) -> int:
    """Have a server recover a snapshot under a name of ours, and count its points."""
    remove_dead_twins(qdrant)
    there = f"{COUNTED}{identity()}"
    file = f"{there}.snapshot"
    try:
        with open_() as chunks:
            qdrant.upload(there, chunks, file=file, sha256=sha256)
        return qdrant.count(there)
    finally:
        qdrant.purge(there, file)


def remove_dead_twins(qdrant: Qdrant) -> None:
    """Remove what twins of processes that died left on a server."""
    mark = f"{STAGED}{SCRATCH}"
    for there in qdrant.names():
        owner = there.partition(mark)[2].partition(STAGED)[0]
        if owner and not is_running(owner):
            _remove(qdrant, f"{mark}{owner}")


def _remove(qdrant: Qdrant, suffix: str) -> None:
    for there in qdrant.names():
        if suffix in there:
            for snapshot in qdrant.snapshots(there):
                qdrant.delete_snapshot(there, snapshot.name)
            qdrant.delete(there)
