"""Storing blobs in new packs as they are sealed, and removing index files that were replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from holdfast.errors import BackupExists

from . import locks
from .ahead import in_order
from .blobs import Kind, Sealed
from .packs import Pack, PackWriter, finish
from .repository import INDEX, Repository

_WRITERS = 2  # packs stored at once; one more waits
REMOVERS = 8  # files deleted at once


def full_packs(blobs: Iterable[Sealed]) -> Iterator[list[Sealed]]:
    """Gather blobs into packs, each of one kind."""
    packs = {kind: PackWriter() for kind in Kind}
    for blob in blobs:
        packs[blob.kind].add(blob)
        if packs[blob.kind].full:
            yield packs[blob.kind].take()
    yield from (pack.take() for pack in packs.values() if pack.size)


def store_packs(
    repository: Repository, packs: Iterable[list[Sealed]], still_ours: Callable[[], None]
) -> Iterator[Pack]:
    """Store packs, and give each when it is stored: then it may be listed."""

    def store(blobs: list[Sealed]) -> Pack:
        still_ours()
        finished = finish(repository.key, blobs)
        with suppress(BackupExists):  # a first attempt went through whose answer was lost
            repository.store.put(finished.name, finished.chunks())
        return finished.pack

    repository.check_writable()
    return in_order(_WRITERS, store, packs)


def remove_index_files(
    repository: Repository, names: Sequence[str], still_ours: Callable[[], None]
) -> Iterator[str]:
    """Delete index files that others replace, and give each that is gone.

    A listing of a distant store may lag behind: by then it shows the others, or a reader would find
    neither, and take sound backups for damaged.
    """
    if names and repository.store.path(INDEX) is None:
        time.sleep(locks.LATE)

    def remove(name: str) -> str:
        still_ours()
        repository.store.delete(f"{INDEX}/{name}")
        return name

    return in_order(REMOVERS, remove, names)
