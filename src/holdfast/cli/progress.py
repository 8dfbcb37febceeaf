"""How the events of a run are shown while it is under way: always on stderr, never in results."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

import typer

from ..i18n import N_, _
from ..model.events import Event, Progress, StepEnded, StepStarted, Warned

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

REFRESH_SECONDS = 0.1

STEPS = {
    "freeze": N_("freezing"),
    "copy": N_("copying"),
    "seal": N_("sealing"),
    "read": N_("reading"),
    "inspect": N_("inspecting"),
    "stage": N_("staging"),
    "compare": N_("comparing"),
    "check": N_("checking"),
    "switch": N_("switching"),
    "settle": N_("settling"),
    "revert": N_("putting back"),
    "delete": N_("deleting"),
}


class Silent:
    """Shows nothing: the result has it all."""

    def __call__(self, event: Event) -> None:
        """Pass over an event."""


class Warnings:
    """Shows warnings only."""

    def __call__(self, event: Event) -> None:
        """Show a warning."""
        if isinstance(event, Warned):
            typer.echo(warning(event), err=True)


class Lines:
    """A line for each step that ended: for logs and pipes."""

    def __init__(self, *, verbose: bool) -> None:
        """Short steps are shown to the curious only."""
        self._verbose = verbose

    def __call__(self, event: Event) -> None:
        """Show a step that ended, or a warning."""
        if isinstance(event, Warned):
            typer.echo(warning(event), err=True)
        elif isinstance(event, StepEnded) and self._verbose:
            typer.echo(ended(event), err=True)


class JsonLines:
    """A JSON line for each event, on the stream that the result will end."""

    def __init__(self, stream: TextIO) -> None:
        """Write to ``stream``."""
        self._stream = stream
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, event: Event) -> None:
        """Write an event; progress at most ten times a second for each subject."""
        with self._lock:
            if isinstance(event, Progress):
                summed = self._sum(event)
                if summed is None:
                    return
                event = summed
            line = {"event": type(event).__name__, **asdict(event)}
            typer.echo(json.dumps(line, ensure_ascii=False), file=self._stream)

    def _sum(self, event: Progress) -> Progress | None:
        key = (event.step, event.subject)
        last, waiting = self._told.get(key, (0.0, 0))
        now = time.monotonic()
        if now - last < REFRESH_SECONDS:
            self._told[key] = (last, waiting + event.done)
            return None
        self._told[key] = (now, 0)
        return Progress(event.step, event.subject, waiting + event.done)


class Terminal:
    """Bars for the steps that have bytes to count."""

    def __init__(self, bars: Bars, *, verbose: bool) -> None:
        """Draw on ``bars``, which are started by the first event and end with the program."""
        self._bars = bars
        self._verbose = verbose
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Draw an event."""
        with self._lock:
            if isinstance(event, StepStarted):
                self._begin(event)
            elif isinstance(event, Progress):
                self._advance(event)
            elif isinstance(event, StepEnded):
                self._end(event)
            else:
                self._bars.console.print(warning(event), markup=False, highlight=False)

    def _begin(self, event: StepStarted) -> None:
        if not self._bars.live.is_started:
            self._bars.start()
        label = f"{_(STEPS.get(event.step, event.step))} {event.subject}"
        task = self._bars.add_task(label, total=event.total or None)
        self._tasks[event.step, event.subject] = task

    def _advance(self, event: Progress) -> None:
        task = self._tasks.get((event.step, event.subject))
        if task is not None:
            self._bars.advance(task, event.done)

    def _end(self, event: StepEnded) -> None:
        task = self._tasks.pop((event.step, event.subject), None)
        if task is not None:
            self._bars.remove_task(task)
        if event.error or self._verbose:
            self._bars.console.print(ended(event), markup=False, highlight=False)
        if not self._tasks:
            self._bars.stop()


def for_terminal(*, verbose: bool) -> Lines | Terminal:
    """Return bars on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        return Lines(verbose=verbose)
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    bars = Bars(*columns, console=Console(stderr=True), transient=True)
    return Terminal(bars, verbose=verbose)


def warning(event: Warned) -> str:
    """Return a warning as one line."""
    subject = f"{event.subject}: " if event.subject else ""
    return _("warning: {subject}{text}").format(subject=subject, text=event.text)


def ended(event: StepEnded) -> str:
    """Return a step that ended as one line."""
    what = " ".join(filter(None, [_(STEPS.get(event.step, event.step)), event.subject]))
    outcome = event.error or event.detail or _("done")
    return f"{what}: {outcome} ({event.seconds:.2f} s)"
