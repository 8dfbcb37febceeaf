"""Recover: finish or undo a restore whose process died, from its journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import HoldfastError, RollbackIncomplete
from ..model.events import Warned
from ..ports import Clock, Journal, Observer, ServiceControl, Source, Token
from ._signals import uninterrupted
from .observe import observed


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a journal says of a restore that did not end."""

    run: str
    forward: bool  # the decision to settle was taken: finish it; otherwise put everything back
    stopped: bool  # services may stand still
    open: Sequence[tuple[str, Token]]  # components in the order they were staged, not yet closed


def recover(
    unfinished: Unfinished,
    source_of: Callable[[str], Source],
    attic: Path | None,
    journal: Journal,
    services: ServiceControl,
    clock: Clock,
    observe: Observer,
) -> str:
    """Put right what a crash left; returns ``completed`` or ``rolled_back``. May itself be repeated.

    Raises:
        RollbackIncomplete: a component could not be put right; the journal stays open.

    """
    with uninterrupted():
        _stop(unfinished, services, observe)
        for component, token in _in_order(unfinished):
            step = "settle" if unfinished.forward else "revert"
            try:
                with observed(observe, clock, step, component):
                    _put_right(unfinished, source_of(component), token, attic)
            except HoldfastError as error:
                raise RollbackIncomplete(component=component, reason=str(error)) from error
            (journal.settled if unfinished.forward else journal.reverted)(component)
        if unfinished.stopped:
            services.start()
        outcome = "completed" if unfinished.forward else "rolled_back"
        journal.end(outcome)
        return outcome


def _stop(unfinished: Unfinished, services: ServiceControl, observe: Observer) -> None:
    """Before putting back: services may have been started on the new content already."""
    if not unfinished.stopped or unfinished.forward:
        return
    try:
        services.stop()
    except HoldfastError as error:
        observe(Warned(str(error)))


def _in_order(unfinished: Unfinished) -> list[tuple[str, Token]]:
    return list(unfinished.open) if unfinished.forward else list(reversed(unfinished.open))


def _put_right(unfinished: Unfinished, source: Source, token: Token, attic: Path | None) -> None:
    staged = source.reopen(token)
    if unfinished.forward:
        staged.settle(attic and attic / source.name)
    else:
        staged.revert()
