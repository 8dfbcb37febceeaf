"""An open repository, as a vault holds it: read there, or through copies on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.model.marks import Marks
from holdfast.ports import Store

from .backups import Backups, Sealed
from .cache import NOTHING, cache_of
from .marks import Marked
from .opening import open_repository
from .options import RepositoryOptions
from .repository import Repository


@dataclass(frozen=True, slots=True)
class Opened:
    """The repository, and the same ``near``: for lists and comparisons, with copies."""

    repository: Repository
    near: Repository
    backups: Backups
    marks: Marked

    def load_index(self) -> None:
        """Load the index that content is read by: the one for lists, unless copies went into it."""
        if not self.near.copies.keeps:
            self.backups.give_index(self.repository)
        self.repository.load_index()

    def marks_of(self, backup_ids: Sequence[str]) -> dict[str, Marks]:
        """Return the marks of several backups; none of those that are not there."""
        every = (one for one in self.backups.everything() if isinstance(one, Sealed))
        return self.marks.several(backup_ids, {one.id: one.snapshot.name for one in every})


def open_with_copies(store: Store, where: str, options: RepositoryOptions) -> Opened:
    """Open the repository of a vault; ``where`` names it. Raises what `open_repository` does."""
    repository = open_repository(store, where, options.password)
    copies = cache_of(repository.config.id, store) if options.cache else NOTHING
    near = repository.near(copies)
    marks = Marked(repository, copies, str(options.url))
    return Opened(repository, near, Backups(repository, near), marks)
