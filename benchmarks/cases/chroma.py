"""A live Chroma store of 1 GB: how long its application must wait, and how long a backup takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from ..data import make
from ..measure import Command, Figures, Sample, run, size_of
from ..peers import pack
from ..stack import Options, Stack
from ..table import Row, Section, seconds_row
from ..writers import pauses, writing

MEGABYTES = 1000
PAUSE_PER_GIGABYTE = 3.5  # seconds that a write may be delayed
FILE_CHANGED = 1  # what tar ends with when a file changed while it was read


@dataclass(frozen=True, slots=True)
class Round:
    """One run under writing: what it took, and how long the slowest write meanwhile."""

    sample: Sample
    longest: float
    usual: float


def measure(work: Path, options: Options) -> Section:
    """Measure tar and a backup in turn, each while an application adds vectors."""
    work.mkdir()
    store = work / "chroma"
    make("chroma", store, options.megabytes(MEGABYTES))
    stack = Stack(work / "stack", {"memory": {"source": "chroma", "path": str(store)}})
    stack.write()
    peer = replace(
        pack("tar | zstd -1 -T2: not consistent", store, work / "out.tar.zst", "zstd -q -1 -T2"),
        accept=(0, FILE_CHANGED),
    )
    commands = (peer, stack.backup("Holdfast backup"))
    rounds: dict[str, list[Round]] = {command.name: [] for command in commands}
    for turn in range(options.fewer(3) + 1):
        for command in commands:
            done = _round(command, store, work / "writer.log")
            if turn > 0:
                rounds[command.name].append(done)
    theirs, ours = (_figures(name, done) for name, done in rounds.items())
    gigabytes = size_of(store) / 1e9
    return Section(
        "Chroma, 1 GB, live",
        f"An application adds 20 vectors of 1,536 dimensions every 50 ms meanwhile; at the end the "
        f"store has {gigabytes:.2f} GB. tar reads it without asking, and what it packs does not "
        "open in most cases: its time is shown for comparison, not as an alternative.",
        (
            seconds_row(theirs),
            seconds_row(ours, peer=theirs, ours=True),
            *_pause_rows(rounds[commands[1].name], gigabytes),
        ),
    )


def _round(command: Command, store: Path, log: Path) -> Round:
    """Run a command while an application writes, and see how long its writes took."""
    window: list[float] = []
    prepared = replace(command, before=partial(_noted, command.before, window))
    with writing("chroma", store, log):
        sample = run(prepared)
        ended = time.time()
        time.sleep(1.0)  # the write that the end of the backup delayed is in the log
    # None at all: it was over between two writes. A write that was held up would be among them,
    # and a writer that died has raised.
    waited = pauses(log, window[0], ended) or [0.0]
    return Round(sample, max(waited), median(waited))


def _noted(before: object, window: list[float]) -> None:
    if callable(before):
        before()
    window.append(time.time())


def _figures(name: str, rounds: list[Round]) -> Figures:
    return Figures(name, tuple(done.sample for done in rounds))


def _pause_rows(rounds: list[Round], gigabytes: float) -> list[Row]:
    longest = [done.longest for done in rounds]
    worst = max(longest) / gigabytes
    return [
        Row(
            "longest write meanwhile",
            f"{median(longest):.2f} s",
            f"{min(longest):.2f}-{max(longest):.2f}",
            runs=len(rounds),
            ours=True,
        ),
        Row(
            "the longest of all, per GB",
            f"{worst:.2f} s",
            bar=f"≤ {PAUSE_PER_GIGABYTE:g} s",
            met=worst <= PAUSE_PER_GIGABYTE,
            ours=True,
        ),
        Row("usual write meanwhile", f"{median(done.usual for done in rounds):.2f} s", ours=True),
    ]
