"""One reading of a tree, and whoever waits to hear what it counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from holdfast.model.artifact import Known, TreeItems
from holdfast.model.facts import Facts

from ._survey import Survey

PATIENCE = 10.0  # seconds to wait for a reading to begin, before the live tree is counted instead
RETRY = 1.0  # the same, where a reading was broken off
Notes = TypeVar("Notes", bound=Survey)


class Reading(Generic[Notes]):
    """The latest complete reading of a tree that may be opened several times.

    Counting happens while the tree is read, so that the counts are those of the copy. Should it not
    be read at all, `facts` counts by itself rather than wait for ever.
    """

    def __init__(
        self,
        items: Callable[[Notes, Known | None], TreeItems],
        count: Callable[[], Facts],
        survey: Callable[[], Notes],
    ) -> None:
        """Read the tree by ``items``, which spares files that are known; count it by ``count``.

        ``survey`` makes its notes.
        """
        self._items = items
        self._survey = survey
        self._count = count
        self._owner = threading.get_ident()
        self._news = threading.Condition()
        self._under_way = 0
        self._done: Notes | None = None
        self._over = False
        self._patience = PATIENCE

    @property
    def changed(self) -> bool:
        """Whether anything changed during the latest complete reading."""
        return self._done is not None and self._done.changed

    @contextmanager
    def opened(self, known: Known | None = None) -> Iterator[TreeItems]:
        """Read the tree once, from the start; see `Tree.sparing` for ``known``."""
        survey = self._survey()
        with self._news:
            self._under_way += 1
        try:
            yield self._watched(survey, known)
        finally:
            with self._news:
                self._under_way -= 1
                self._patience = RETRY
                self._news.notify_all()

    def _watched(self, survey: Notes, known: Known | None) -> TreeItems:
        yield from self._items(survey, known)
        with self._news:
            self._done = survey
            self._news.notify_all()

    def facts(self) -> Facts:
        """Return what was counted while the tree was read; waits for that to end."""
        with self._news:
            while self._done is None:
                if self._under_way:
                    self._news.wait()
                elif self._over or threading.get_ident() == self._owner:
                    break  # nobody else will read it while we wait
                elif not self._news.wait(self._patience) and not self._under_way:
                    break
            done = self._done
        return self._count() if done is None else done.facts()

    def close(self) -> None:
        """Say that it will not be read again."""
        with self._news:
            self._over = True
            self._news.notify_all()
