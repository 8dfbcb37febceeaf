"""Telling the errors of whoever gives an artifact from those of whoever reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ..model.artifact import Artifact, Chunks, Known, Stream, TreeItems

Content = TypeVar("Content", Chunks, TreeItems)


def watched(artifact: Artifact, failures: list[Exception]) -> Artifact:
    """Return the artifact; what reading it raises is noted in ``failures`` on its way."""
    if isinstance(artifact, Stream):
        return replace(artifact, open=partial(_opened, artifact.open, _chunks, failures))
    opened = partial(_opened, artifact.open, _items, failures)
    if artifact.sparing is None:
        return replace(artifact, open=opened)
    return replace(
        artifact, open=opened, sparing=partial(_opened_sparing, artifact.sparing, failures)
    )


def _opened_sparing(
    sparing: Callable[[Known], AbstractContextManager[TreeItems]],
    failures: list[Exception],
    known: Known,
) -> AbstractContextManager[TreeItems]:
    return _opened(partial(sparing, known), _items, failures)


@contextmanager
def _opened(
    opening: Callable[[], AbstractContextManager[Content]],
    watch: Callable[[Content, list[Exception]], Content],
    failures: list[Exception],
) -> Iterator[Content]:
    with ExitStack() as stack:
        with _noted(failures):
            content = stack.enter_context(opening())
        yield watch(content, failures)
        with _noted(failures):
            stack.close()


@contextmanager
def _noted(failures: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        failures.append(error)
        raise


def _chunks(chunks: Chunks, failures: list[Exception]) -> Chunks:
    try:
        yield from chunks
    except Exception as error:
        failures.append(error)
        raise


def _items(items: TreeItems, failures: list[Exception]) -> TreeItems:
    try:
        for entry, chunks in items:
            yield entry, _chunks(chunks, failures)
    except Exception as error:
        failures.append(error)
        raise
