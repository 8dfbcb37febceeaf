"""Records the steps of a run as they are told: an `Observer` that writes into the catalog."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from ..errors import HoldfastError
from ..model.events import Event, Progress, StepEnded, StepStarted, Warned
from ..model.runs import RunState, Step
from ..ports import Clock
from .catalog import Runs

PAUSE = 0.5  # seconds between two writes: others see a run's steps this late at most


class Recorder:
    """Hears the events of one run. Steps are gathered, and written a few times a second at most.

    An observer must not raise: a catalog that fails is remembered as ``problem``, and nothing more
    is written. Use it as a context; leaving it writes the rest.
    """

    def __init__(self, runs: Runs, run: str, clock: Clock) -> None:
        self.problem: HoldfastError | None = None
        self._runs = runs
        self._run = run
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._open: dict[tuple[str, str], list[Step]] = {}
        self._unwritten: dict[int, Step] = {}
        self._written_at = clock.monotonic()

    def __enter__(self) -> Callable[[Event], None]:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._write()

    def __call__(self, event: Event) -> None:
        """Hear one event; progress within a step is not recorded."""
        if isinstance(event, Progress):
            return
        with self._lock:
            if isinstance(event, StepStarted):
                step = self._begin(event.step, event.subject)
                self._open.setdefault((event.step, event.subject), []).append(step)
            elif isinstance(event, StepEnded):
                self._end(event)
            else:
                self._warn(event)
            if self._clock.monotonic() - self._written_at >= PAUSE:
                self._write()

    def _begin(self, name: str, subject: str) -> Step:
        self._count += 1
        step = Step(self._count, name, subject, started_at=self._clock.now())
        self._unwritten[step.number] = step
        return step

    def _end(self, event: StepEnded) -> None:
        opened = self._open.get((event.step, event.subject))
        step = opened.pop() if opened else self._begin(event.step, event.subject)
        self._unwritten[step.number] = replace(
            step,
            state=RunState.FAILED if event.error else RunState.COMPLETED,
            ended_at=self._clock.now(),
            seconds=event.seconds,
            detail=event.error or event.detail,
        )

    def _warn(self, event: Warned) -> None:
        step = self._begin("warning", event.subject)
        self._unwritten[step.number] = replace(
            step, state=RunState.COMPLETED, ended_at=step.started_at, detail=event.text
        )

    def _write(self) -> None:
        self._written_at = self._clock.monotonic()
        if self.problem is not None or not self._unwritten:
            return
        try:
            self._runs.put_steps(self._run, list(self._unwritten.values()))
        except HoldfastError as error:
            self.problem = error
        self._unwritten.clear()
