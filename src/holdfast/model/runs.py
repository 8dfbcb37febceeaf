"""A run: one execution of a verb, as the catalog remembers it, with its steps."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from .facts import Json


class RunState(StrEnum):
    """How far a run is."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"

    @property
    def open(self) -> bool:
        """Whether the run has not ended yet."""
        return self in {RunState.PENDING, RunState.IN_PROGRESS}


DIED = "died"  # the error code of a run whose process ended without saying so


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from every other one that had or will have its number.

    Numbers are only comparable within one ``boot`` of a kernel and one ``space`` of process numbers
    (a container has its own). ``started`` is the kernel's own count of ticks, not a clock's time.
    """

    host: str
    boot: str
    space: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a run. ``ended_at`` is None while it is under way, or if the run died in it."""

    number: int  # from 1, in the order of beginning
    step: str
    subject: str = ""
    state: RunState = RunState.IN_PROGRESS
    started_at: datetime | None = None
    ended_at: datetime | None = None
    seconds: float = 0.0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``figures`` are whatever the verb counted: plain JSON."""

    id: str
    verb: str
    stack: str
    state: RunState
    started_at: datetime
    process: Process
    holdfast: str  # the version that ran
    plan: str = ""
    backup: str = ""
    vault: str = ""
    partial: bool = False  # completed, but not whole
    ended_at: datetime | None = None
    error_code: str = ""
    error_text: str = ""
    figures: Mapping[str, Json] = field(default_factory=dict)


def new_run_id(now: datetime) -> str:
    """Return a new id, for example ``20261120T101500Z-4f2a9c1d``.

    Ids sort by time, may be part of a file name, and differ between processes, and when the clock
    is set back, by chance alone: one in four thousand million for two runs of the same second.
    """
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
