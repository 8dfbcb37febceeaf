"""Telling an observer what a verb does: steps as they begin and end, bytes as they pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..model.artifact import Artifact, Chunks, Stream, TreeItems
from ..model.events import StepEnded, StepStarted
from ..ports import Clock, Observer


@contextmanager
def observed(
    observe: Observer, clock: Clock, step: str, subject: str = "", total: int = 0
) -> Iterator[None]:
    """Tell an observer of a step's beginning and of its end, however it ends."""
    observe(StepStarted(step, subject, total))
    before = clock.monotonic()
    try:
        yield
    except BaseException as error:
        failure = str(error) or type(error).__name__
        observe(StepEnded(step, subject, clock.monotonic() - before, error=failure))
        raise
    observe(StepEnded(step, subject, clock.monotonic() - before))


def counted(artifact: Artifact, progress: Callable[[int], None]) -> Artifact:
    """Return the artifact with every chunk that is read told to ``progress``."""
    if isinstance(artifact, Stream):
        stream = artifact

        @contextmanager
        def opened() -> Iterator[Chunks]:
            with stream.open() as chunks:
                yield _count(chunks, progress)

        return replace(stream, open=opened)
    tree = artifact

    @contextmanager
    def entries() -> Iterator[TreeItems]:
        with tree.open() as items:
            yield ((entry, _count(chunks, progress)) for entry, chunks in items)

    return replace(tree, open=entries)


def _count(chunks: Chunks, progress: Callable[[int], None]) -> Chunks:
    for chunk in chunks:
        progress(len(chunk))
        yield chunk
