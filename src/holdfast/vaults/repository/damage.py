"""What the format modules raise about bytes that are not what they should be.

They do not know which file the bytes come from; whoever read the file adds its name at the border
and makes it a row of the error table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from holdfast.errors import BackupDamaged, RepositoryDamaged
from holdfast.model.artifact import Chunks, Divided, Stretch, TreeItems
from holdfast.model.manifest import Manifest, Stored


class DamagedError(Exception):
    """Bytes of a repository that cannot be what was written; the text says why."""


@contextmanager
def damage_in(where: str, file: str) -> Iterator[None]:
    """Name the file that damage was found in; ``where`` is the repository, as a person knows it.

    Raises:
        RepositoryDamaged: the block raised `DamagedError`.

    """
    try:
        yield
    except DamagedError as error:
        raise RepositoryDamaged(where=where, path=file, reason=str(error)) from error


@contextmanager
def damage_of(manifest: Manifest, stored: Stored) -> Iterator[None]:
    """Say of damage in the repository which backup and artifact it is in.

    Raises:
        BackupDamaged: the block raised `RepositoryDamaged`.

    """
    try:
        yield
    except RepositoryDamaged as error:
        raise BackupDamaged(backup=manifest.id, path=stored.path, reason=str(error)) from error


def guarded(chunks: Chunks, manifest: Manifest, stored: Stored) -> Chunks:
    """Give the content of an artifact; see `damage_of`."""
    with damage_of(manifest, stored):
        yield from chunks


def guarded_items(items: TreeItems, manifest: Manifest, stored: Stored) -> TreeItems:
    """Give the entries of an artifact; see `damage_of`."""
    guard = partial(guarded, manifest=manifest, stored=stored)
    with damage_of(manifest, stored):
        for entry, chunks in items:
            if isinstance(chunks, Divided):
                yield entry, chunks.through(guard, partial(_guarded_stretch, manifest, stored))
            else:
                yield entry, guard(chunks)


def _guarded_stretch(manifest: Manifest, stored: Stored, stretch: Stretch) -> Stretch:
    def fill(room: memoryview) -> None:
        with damage_of(manifest, stored):
            stretch.fill(room)

    return replace(stretch, fill=fill)
