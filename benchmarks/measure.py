"""Running commands one after the other and measuring them from outside.

A peak is the largest resident size of any single process of a command, as the kernel counts it
(``ru_maxrss``). The kernel starts that count with the size of whoever forked: this process is
therefore kept small, and data is made in processes of their own.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LONGEST = 600.0  # seconds that a command may take, unless it says otherwise


class BenchmarkFailed(Exception):
    """A command did not do what it should, so its time would mean nothing."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something to measure. ``before`` and ``after`` run unmeasured, each time.

    ``output`` is the file or folder it writes, whose size is a part of the result: who compresses
    less is faster.
    """

    name: str
    argv: Sequence[str]
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None
    accept: tuple[int, ...] = (0,)
    environment: Mapping[str, str] = field(default_factory=dict)
    output: Path | None = None
    limit: float = LONGEST


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a command."""

    seconds: float
    peak: int  # bytes
    size: int = 0  # bytes of its output
    cpu: float = 0.0  # seconds that processors were busy with it, those of its children too
    finished: bool = True  # False: it was ended at its limit


@dataclass(frozen=True, slots=True)
class Figures:
    """All the runs of a command. Times in seconds, ``peak`` in bytes."""

    name: str
    samples: tuple[Sample, ...]

    @property
    def median(self) -> float:
        """The time in the middle."""
        return statistics.median(sample.seconds for sample in self.samples)

    @property
    def shortest(self) -> float:
        """The shortest time."""
        return min(sample.seconds for sample in self.samples)

    @property
    def longest(self) -> float:
        """The longest time."""
        return max(sample.seconds for sample in self.samples)

    @property
    def peak(self) -> int:
        """The largest process of all runs."""
        return max(sample.peak for sample in self.samples)

    @property
    def cpu(self) -> float:
        """The processor seconds in the middle: what other work on the machine disturbs least."""
        return statistics.median(sample.cpu for sample in self.samples)

    @property
    def size(self) -> int:
        """The largest output of all runs."""
        return max(sample.size for sample in self.samples)

    @property
    def finished(self) -> bool:
        """Whether every run came to its own end."""
        return all(sample.finished for sample in self.samples)


def shell(script: str) -> list[str]:
    """Return a pipeline as a command; a failure anywhere in it is a failure."""
    return ["bash", "-o", "pipefail", "-c", script]


def alternate(commands: Sequence[Command], runs: int) -> list[Figures]:
    """Run A B C A B C …, after one round that is not counted."""
    samples: dict[str, list[Sample]] = {command.name: [] for command in commands}
    for turn in range(runs + 1):
        for command in commands:
            sample = run(command)
            if turn > 0:
                samples[command.name].append(sample)
    return [Figures(name, tuple(found)) for name, found in samples.items()]


def run(command: Command) -> Sample:
    """Run a command once and measure it.

    Raises:
        BenchmarkFailed: it ended with a status it should not have.

    """
    os.sync()  # so that nobody pays for what was written before
    command.before()
    os.sync()
    with tempfile.TemporaryFile() as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **command.environment},
            start_new_session=True,
        )
        finished, status, usage = _wait(process, command.limit)
        seconds = time.perf_counter() - begun
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").strip()
    if finished and status not in command.accept:
        raise BenchmarkFailed(f"{command.name} ended with {status}: {said[-600:]}")
    size = size_of(command.output) if command.output else 0
    command.after()
    cpu = usage.ru_utime + usage.ru_stime
    return Sample(seconds, usage.ru_maxrss * 1024, size, cpu, finished)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder, even if they change meanwhile."""
    total = 0
    for file in [path, *path.rglob("*")]:
        try:
            total += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _wait(
    process: subprocess.Popen[bytes], limit: float
) -> tuple[bool, int, resource.struct_rusage]:
    """Wait for a process, whose whole group is ended at its limit; returns also what it used."""
    overdue = threading.Event()

    def end() -> None:
        overdue.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(limit, end)
    timer.start()
    try:
        _pid, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    return not overdue.is_set(), process.returncode, usage
