"""Snapshots on their way to a vault, and what was counted in them meanwhile."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from holdfast.model.artifact import Chunk, Chunks

from ._ahead import ahead
from ._qdrant_count import Contents, SnapshotReader

Open = Callable[[], AbstractContextManager[Chunks]]
PATIENCE = 10.0  # seconds to wait for a reading to begin, before we read for ourselves
RETRY = 1.0  # the same, where a reading was broken off


class Tally:
    """Counts one snapshot while its chunks go by. ``contents`` is there when all have gone by."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self.contents: Contents | None = None

    def over(self, chunks: Iterable[Chunk]) -> Generator[Chunk, None, None]:
        """Give the chunks as they are."""
        self._workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=self._workspace) as folder:
            reader = SnapshotReader(Path(folder))
            for chunk in chunks:
                reader.push(chunk)
                yield chunk
            self.contents = reader.contents()


def counted(open_: Open, workspace: Path) -> Contents:
    """Read a snapshot to its end, only to count it."""
    tally = Tally(workspace)
    with open_() as chunks, closing(tally.over(chunks)) as over:
        for _chunk in over:
            pass
    assert tally.contents is not None  # noqa: S101 - all chunks have gone by
    return tally.contents


class Readings:
    """The snapshots of one freeze. Each may be read several times; any complete reading counts.

    Should one not be read at all, `contents` reads it by itself rather than wait for ever.
    """

    def __init__(self, opens: Sequence[Open], workspace: Path) -> None:
        self._opens = opens
        self._workspace = workspace
        self._owner = threading.get_ident()
        self._news = threading.Condition()
        self._under_way = 0
        self._done: dict[int, Contents] = {}
        self._patience = PATIENCE

    @contextmanager
    def opened(self, number: int) -> Iterator[Chunks]:
        """Read a snapshot from its start.

        One thread receives and checks it, one counts what it holds, and whoever takes the chunks
        goes on meanwhile.
        """
        with self._news:
            self._under_way += 1
        tally = Tally(self._workspace)
        try:
            with (
                self._opens[number]() as chunks,
                ahead(chunks) as received,
                closing(self._told(number, tally, received)) as told,
                ahead(told) as counted_,
            ):
                yield counted_
        finally:
            with self._news:
                self._under_way -= 1
                self._patience = RETRY
                self._news.notify_all()

    def _told(self, number: int, tally: Tally, chunks: Chunks) -> Generator[Chunk, None, None]:
        with closing(tally.over(chunks)) as over:
            yield from over
        if tally.contents is not None:
            with self._news:
                self._done[number] = tally.contents
                self._news.notify_all()

    def contents(self) -> list[Contents]:
        """Return what each holds; waits while they are read."""
        for number, open_ in enumerate(self._opens):
            if not self._awaited(number):
                self._done[number] = counted(open_, self._workspace)
        return [self._done[number] for number in range(len(self._opens))]

    def _awaited(self, number: int) -> bool:
        """Wait for a reading to be complete; False if nobody seems to read it."""
        with self._news:
            while number not in self._done:
                if self._under_way:
                    self._news.wait()
                elif threading.get_ident() == self._owner:
                    return False  # nobody else will read it while we wait
                elif not self._news.wait(self._patience) and not self._under_way:
                    return False
        return True
