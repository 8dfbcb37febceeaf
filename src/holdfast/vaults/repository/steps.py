"""Telling how far long work on a repository has come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from holdfast.model.events import Event, Progress, StepEnded, StepStarted

Item = TypeVar("Item")
Observer = Callable[[Event], None]
Tell = Callable[[int], None]


def nobody(_event: Event) -> None:
    """Hear nothing."""


def always_ours() -> None:
    """Say that no lock was lost, where none is needed."""


@contextmanager
def step(observer: Observer, name: str, where: str, total: int = 0) -> Iterator[Tell]:
    """Tell of a step; what it gives is called with how much more is done, of ``total``."""
    observer(StepStarted(name, where, total))
    try:
        yield lambda done: observer(Progress(name, where, done))
    except BaseException as error:
        observer(StepEnded(name, where, error=str(error)))
        raise
    observer(StepEnded(name, where))


def counted(items: Iterable[Item], tell: Tell) -> Iterator[Item]:
    """Tell of each item when it has been dealt with."""
    for item in items:
        yield item
        tell(1)
