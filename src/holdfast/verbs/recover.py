"""Recover: finish or undo a restore whose process died, from its journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import HoldfastError, RollbackIncomplete, ServicesDown
from ..model.recovery import COMPLETED, ROLLED_BACK, Involved, RestoreState
from ..ports import Journal, ServiceControl, Source, Staged
from .restore import Transaction
from .signals import uninterrupted
from .surroundings import Surroundings


def recover(
    state: RestoreState,
    source_of: Callable[[str], Source],
    attic: Path | None,
    transaction: Transaction,
    around: Surroundings,
) -> str:
    """Put right what a crash left; returns ``completed`` or ``rolled_back``. May be repeated.

    Raises:
        RollbackIncomplete: a component could not be put right; the journal stays open.
        ServicesDown: everything was put right, but the services could not be started.

    """
    services = transaction.services
    with uninterrupted():
        if state.stopped and not state.decided:
            _stop(services, around)
        problems = []
        for involved in [*state.to_settle, *state.to_revert]:
            try:
                with around.step("settle" if state.decided else "revert", involved.name):
                    staged = source_of(involved.name).reopen(involved.token)
                    _put_right(state, involved, staged, attic, transaction.journal)
            except Exception as error:  # noqa: BLE001 - told below; the others are put right first
                problems.append(str(error) or type(error).__name__)
        down = _start(services) if state.stopped else ""
        if problems:
            if down:
                around.warn(down)
            raise RollbackIncomplete(problems="; ".join(problems))
        outcome = COMPLETED if state.decided else ROLLED_BACK
        transaction.journal.end(outcome)
        if down:
            raise ServicesDown(reason=down)
        return outcome


def _put_right(
    state: RestoreState, involved: Involved, staged: Staged, attic: Path | None, journal: Journal
) -> None:
    if state.decided:
        staged.settle(attic and attic / involved.name)
        journal.settled(involved.name)
    else:
        staged.revert()
        journal.reverted(involved.name)


def _stop(services: ServiceControl, around: Surroundings) -> None:
    """Before putting back: services may have been started on the new content already."""
    try:
        services.stop()
    except HoldfastError as error:
        around.warn(str(error))  # the data matters more: go on putting it back


def _start(services: ServiceControl) -> str:
    """Start the services; returns what is wrong if they cannot be, for the data comes first."""
    try:
        services.start()
    except HoldfastError as error:
        return str(error)
    return ""
