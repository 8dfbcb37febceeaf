"""How far a restore had come, judged by the records of its journal. Pure; no file is touched.

A restore goes `prepare`, `filled`, `activate`, `activated` for each component, then once `settle`
for all of them, then `settled` for each. Before `settle` it is recovered backward: whatever was
prepared is reverted, in reverse order. After it, forward: whatever is not settled is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from .facts import Json

Record = Mapping[str, Json]  # one line of a journal; "kind" says which

COMPLETED = "completed"
ROLLED_BACK = "rolled_back"


class OutOfOrder(ValueError):
    """A record that cannot follow the ones before it: a bug, or a damaged journal."""


class Stage(IntEnum):
    """How far one component is."""

    PREPARED = 1  # something may have been staged
    FILLED = 2  # all of it is staged
    ACTIVATING = 3  # it may have been switched
    ACTIVATED = 4  # it was switched
    SETTLED = 5  # done: the old content is gone or in the attic
    REVERTED = 6  # undone: everything is as it was before


@dataclass(frozen=True, slots=True)
class Involved:
    """A component that a restore touched, or was about to touch."""

    name: str
    kind: str  # of source
    token: Mapping[str, Json]  # for `Source.reopen`
    stage: Stage = Stage.PREPARED


@dataclass(frozen=True, slots=True)
class RestoreState:
    """How far a restore is. ``components`` are those it prepared, in that order."""

    run: str
    stack: str
    backup: str
    vault: str
    targets: Mapping[str, str]  # component → where `--target` led; empty: over the live stores
    planned: tuple[str, ...]  # the components it was to restore
    components: Mapping[str, Involved] = field(default_factory=dict)
    stopped: bool = False  # the services may have been stopped: start them
    decided: bool = False  # `settle` was recorded: it must be finished, never undone
    outcome: str = ""  # empty: not ended

    @property
    def to_settle(self) -> list[Involved]:
        """What is left to do going forward, in order; empty unless it was decided."""
        if not self.decided:
            return []
        return [c for c in self.components.values() if c.stage is not Stage.SETTLED]

    @property
    def to_revert(self) -> list[Involved]:
        """What is left to undo going backward, last one first; empty if it was decided."""
        if self.decided:
            return []
        backward = reversed(list(self.components.values()))
        return [c for c in backward if c.stage is not Stage.REVERTED]


def after(state: RestoreState | None, record: Record) -> RestoreState:
    """Return the state after one more record; ``state`` is None before the first.

    Raises:
        OutOfOrder: it cannot come here, or is not a record this version knows.

    """
    kind = record.get("kind")
    try:
        if state is None:
            return _begun(record)
        if state.outcome:
            raise OutOfOrder("the restore had ended")
        if kind in _STEPS:
            return _stepped(state, record)
        if kind in _DECISIONS:
            return _DECISIONS[str(kind)](state, record)
    except (KeyError, TypeError) as error:
        raise OutOfOrder(f"{kind}: incomplete: {error}") from error
    raise OutOfOrder(f"unknown record {kind!r}: a later version may have written it")


def _begun(record: Record) -> RestoreState:
    if record["kind"] != "begin":
        raise OutOfOrder("the first record is not `begin`")
    planned = record["components"]
    if not isinstance(planned, list) or not all(isinstance(name, str) for name in planned):
        raise OutOfOrder("begin: components are not names")
    return RestoreState(
        run=_text(record, "run"),
        stack=_text(record, "stack"),
        backup=_text(record, "backup"),
        vault=_text(record, "vault"),
        targets=_texts(record, "targets"),
        planned=tuple(str(name) for name in planned),
    )


def _prepare(state: RestoreState, record: Record) -> RestoreState:
    name, token = _text(record, "component"), record["token"]
    if state.decided or name in state.components or name not in state.planned:
        raise OutOfOrder(f"prepare {name}: not planned, or done before")
    if not isinstance(token, dict):
        raise OutOfOrder(f"prepare {name}: its token is not a map")
    involved = Involved(name, _text(record, "source"), token)
    return replace(state, components={**state.components, name: involved})


def _stopping(state: RestoreState, _record: Record) -> RestoreState:
    return replace(state, stopped=True)


def _settle(state: RestoreState, _record: Record) -> RestoreState:
    switched = [c.name for c in state.components.values() if c.stage is Stage.ACTIVATED]
    if set(switched) != set(state.planned):
        missing = ", ".join(sorted(set(state.planned) - set(switched)))
        raise OutOfOrder(f"settle: not all components are switched: {missing}")
    return replace(state, decided=True)


def _end(state: RestoreState, record: Record) -> RestoreState:
    outcome = _text(record, "outcome")
    if outcome not in {COMPLETED, ROLLED_BACK} or state.decided != (outcome == COMPLETED):
        raise OutOfOrder(f"end: it cannot have {outcome}")
    if left := [*state.to_settle, *state.to_revert]:
        raise OutOfOrder(f"end: not done yet: {', '.join(c.name for c in left)}")
    return replace(state, outcome=outcome)


_DECISIONS: Mapping[str, Callable[[RestoreState, Record], RestoreState]] = {
    "prepare": _prepare,
    "stopping": _stopping,
    "settle": _settle,
    "end": _end,
}

# kind → the stages it may come from, the stage it leads to, and whether it needs the decision.
# What recovery does may be said twice: a crash may come between the act and the word.
_STEPS: Mapping[str, tuple[frozenset[Stage], Stage, bool]] = {
    "filled": (frozenset({Stage.PREPARED}), Stage.FILLED, False),
    "activate": (frozenset({Stage.FILLED}), Stage.ACTIVATING, False),
    "activated": (frozenset({Stage.ACTIVATING}), Stage.ACTIVATED, False),
    "settled": (frozenset({Stage.ACTIVATED, Stage.SETTLED}), Stage.SETTLED, True),
    "reverted": (frozenset(Stage) - {Stage.SETTLED}, Stage.REVERTED, False),
}


def _stepped(state: RestoreState, record: Record) -> RestoreState:
    kind, name = _text(record, "kind"), _text(record, "component")
    sources, stage, needs_decision = _STEPS[kind]
    involved = state.components.get(name)
    if involved is None or involved.stage not in sources or state.decided != needs_decision:
        raise OutOfOrder(f"{kind} {name}: it was not its turn")
    return replace(state, components={**state.components, name: replace(involved, stage=stage)})


def _texts(record: Record, name: str) -> dict[str, str]:
    value: Any = record[name]
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise TypeError(f"{name} is not a map of texts")
    return value


def _text(record: Record, name: str) -> str:
    value: Any = record[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value
