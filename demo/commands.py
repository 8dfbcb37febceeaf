"""Running `holdfast` and the application's own processes, as a person would: as commands.

The screen shows each command as one would type it; it is run with ``--json`` (and ``--progress``
for the bar) besides, so that the figures shown are its own and nothing is read off a table.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .app import Places
from .screen import Advance, Screen

ROOT = Path(__file__).parent.parent  # where `python -m demo…` finds this package
STARTS_SECONDS = 60.0
WITH_PROGRESS = {"backup", "verify", "restore"}

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: its status, what it printed as JSON, and what it said on stderr."""

    status: int
    seconds: float
    document: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""


class Holdfast:
    """The `holdfast` command, typed in the folder of one stack's ``holdfast.yaml``."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._screen = screen
        self._environment = {k: v for k, v in os.environ.items() if k != "HOLDFAST_CONFIG"}

    def run(self, *words: str, kill_at: Callable[[Event], bool] = lambda _event: False) -> Outcome:
        """Run a command, and show it. It is killed with SIGKILL at the first event that says so."""
        shown = f"holdfast {' '.join(words)}"
        with self._screen.waiting(f"$ {shown}") as advance:
            outcome = self._run(words, advance, kill_at)
        ending = "   killed with SIGKILL" if outcome.status == -signal.SIGKILL else ""
        self._screen.command(shown + ending, outcome.seconds)
        return outcome

    def _run(
        self, words: tuple[str, ...], advance: Advance, kill_at: Callable[[Event], bool]
    ) -> Outcome:
        options = ["--json", "--progress"] if words[0] in WITH_PROGRESS else ["--json"]
        argv = [sys.executable, "-m", "holdfast", *words, *options]
        begun = time.perf_counter()
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
            subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                cwd=self._folder,
                env=self._environment,
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - it is a pipe

            def on_event(event: Event) -> None:
                if kill_at(event):
                    process.kill()

            text = _follow(process.stdout, advance, on_event)
            status = process.wait()
            seconds = time.perf_counter() - begun
            errors.seek(0)
            said = errors.read().strip()
        documents = list(_documents(text))
        return Outcome(status, seconds, documents[0] if documents else {}, said)


def _follow(lines: IO[str], advance: Advance, on_event: Callable[[Event], object]) -> str:
    """Show the events that come before the result; returns the result's text."""
    totals: dict[str, int] = {}
    done: dict[str, int] = {}
    rest: list[str] = []
    for line in lines:
        if rest or not line.startswith('{"event"'):
            rest.append(line)
            continue
        event = json.loads(line)
        what = f"{event.get('step', '')} {event.get('subject', '')}".strip()
        if event["event"] == "StepStarted":
            totals[what], done[what] = event["total"], 0
        elif event["event"] == "Progress":
            done[what] = done.get(what, 0) + event["done"]
        advance(what, done.get(what, 0), totals.get(what, 0))
        on_event(event)
    return "".join(rest)


def _documents(text: str) -> Iterator[Mapping[str, Any]]:
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:]


class Application:
    """The application's processes: one that writes, and one that opens everything and reports."""

    def __init__(self, places: Places, log: Path) -> None:
        self.places = places
        self.log = log
        self._writer: subprocess.Popen[str] | None = None

    def start(self, base: int, advance: Advance) -> None:
        """Start the writer; returns when its first ``base`` documents are in."""
        argv = [sys.executable, "-m", "demo.writer", self.places.written, str(self.log)]
        self._writer = subprocess.Popen(
            [*argv, "--base", str(base)], stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT
        )
        assert self._writer.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._writer.stdout:
            if line.strip() == "ready":
                return
            advance("documents", int(line), base)
        raise RuntimeError("the application ended before it was ready")

    def stop(self) -> bool:
        """Let the writer end its last write; returns whether it had gone on all the while."""
        writer, self._writer = self._writer, None
        if writer is None:
            return False
        with writer:
            worked = writer.poll() is None
            writer.terminate()
        return worked and writer.returncode == 0

    def report(self, places: Places | None = None) -> Mapping[str, Any]:
        """Return what a freshly started application sees; where it cannot start, why."""
        argv = [sys.executable, "-m", "demo.report", (places or self.places).written]
        done = subprocess.run(argv, capture_output=True, encoding="utf-8", cwd=ROOT, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return {"problem": reason}
        report: Mapping[str, Any] = json.loads(done.stdout)
        return report
