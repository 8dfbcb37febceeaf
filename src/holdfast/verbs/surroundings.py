"""What a verb is given beside its subject: the time, a listener, room for scratch copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..model.artifact import Artifact, Chunks, Divided, Stream, Stretch, Tree, TreeItems
from ..model.events import Progress, StepEnded, StepStarted, Warned
from ..model.progress import Telling
from ..ports import Clock, Observer


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The time, a listener, and a folder with room for the largest component."""

    clock: Clock
    observe: Observer
    scratch: Path

    @contextmanager
    def step(self, step: str, subject: str = "", total: int = 0) -> Iterator[None]:
        """Tell of a step's beginning and of its end, however it ends. ``total`` is in bytes."""
        self.observe(StepStarted(step, subject, total))
        before = self.clock.monotonic()
        try:
            yield
        except BaseException as error:
            failure = str(error) or type(error).__name__
            self.observe(StepEnded(step, subject, self.clock.monotonic() - before, error=failure))
            raise
        self.observe(StepEnded(step, subject, self.clock.monotonic() - before))

    def warn(self, text: str, subject: str = "") -> None:
        """Tell of something a person should know that does not stop the run."""
        self.observe(Warned(text, subject))

    def progress(self, step: str, subject: str) -> Callable[[int], None]:
        """Return what tells of bytes dealt with in a step."""
        return partial(self._tell, step, subject)

    def _tell(self, step: str, subject: str, done: int) -> None:
        self.observe(Progress(step, subject, done))


def counted(artifact: Artifact, progress: Callable[[int], None]) -> Artifact:
    """Return the artifact with every chunk that is read told to ``progress``."""
    if isinstance(artifact, Stream):
        return replace(artifact, open=partial(_counted_stream, artifact, progress))
    return replace(artifact, open=partial(_counted_tree, artifact, progress))


@contextmanager
def _counted_stream(stream: Stream, progress: Callable[[int], None]) -> Iterator[Chunks]:
    with stream.open() as chunks:
        yield _count(chunks, progress)


@contextmanager
def _counted_tree(tree: Tree, progress: Callable[[int], None]) -> Iterator[TreeItems]:
    with tree.open() as items:
        yield _count_items(items, progress)


def _count_items(items: TreeItems, progress: Callable[[int], None]) -> TreeItems:
    telling = Telling(progress)
    for entry, chunks in items:
        if isinstance(chunks, Divided):  # taken by other threads
            in_order = partial(_count, progress=progress)
            yield entry, chunks.through(in_order, partial(_count_stretch, progress))
        else:
            yield entry, telling.chunks(chunks)
    telling.tell()


def _count(chunks: Chunks, progress: Callable[[int], None]) -> Chunks:
    for chunk in chunks:
        progress(len(chunk))
        yield chunk


def _count_stretch(progress: Callable[[int], None], stretch: Stretch) -> Stretch:
    def fill(room: memoryview) -> None:
        stretch.fill(room)
        progress(stretch.size)

    return replace(stretch, fill=fill)
