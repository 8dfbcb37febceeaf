"""Copying a Chroma folder while it is written to: lock, copy, let go, check; again if need be.

Chroma commits every write into a queue in its database, and applies the queue to its index files
later, in place and without any lock. So a copy is right if the database is copied under its write
lock, and each index file at rest: what the index does not have yet, the queue still has, and Chroma
applies it again when the copy is opened. An index that was caught half-written fails the check of
its copy. The check needs no lock, and writers wait for the copying alone.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, cast

from holdfast.errors import (
    HoldfastError,
    NoSpace,
    SourceCorrupt,
    SourceLocked,
    SourceMissing,
    SourceUnfit,
    SourceUnreadable,
    SourceUnstable,
)

from ._chroma_check import Problem
from ._chroma_holder import DATABASE, TOO_LONG

HOLDER = Path(__file__).with_name("_chroma_holder.py")
SETTLE_SECONDS = 8.0  # how long a write of index files that is under way may take to end
REST_SECONDS = 0.3  # between two attempts: what waited for the lock gets its turn
PATIENCE_SECONDS = 4.0  # a fault that stays this long in files that do not change is damage
FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a copy may ask of the writers, as the options of the component say."""

    lock_seconds: float
    pause_seconds: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy, what it took, and what is still wrong with it: nothing, but in evidence."""

    instant: datetime
    held: tuple[float, ...]  # seconds that writers were held, for each attempt
    problems: tuple[Problem, ...] = ()

    @property
    def attempts(self) -> int:
        """How often the folder was copied."""
        return len(self.held)


class Fence:
    """A live Chroma folder, and the copy of it that is to be made."""

    def __init__(self, component: str, root: Path, target: Path, budget: Budget) -> None:
        """Touch nothing yet. ``target`` must be new or empty."""
        self.component = component
        self.root = root
        self.target = target
        self.budget = budget

    def copy(self, check: Callable[[], list[Problem]], *, evidence: bool = False) -> Copied:
        """Copy until ``check`` finds nothing wrong with the copy.

        With ``evidence`` a folder that is damaged, not merely in motion, is copied as it is.

        Raises:
            SourceCorrupt: the same fault stayed in files that did not change.
            SourceUnstable: the files kept changing, or copying held writers for too long.
            SourceLocked, SourceMissing, SourceUnfit, SourceUnreadable, NoSpace: as they say.

        """
        with _holder(self._job()) as ask:
            try:
                return self._until_right(ask, check, evidence=evidence)
            except SourceCorrupt as damage:
                if not evidence:
                    raise
                answer = self._answered(ask("raw"))
                fault = Problem("", damage.fields["reason"])
                return Copied(_instant(answer), (0.0,), (fault,))

    def _until_right(
        self, ask: Ask, check: Callable[[], list[Problem]], *, evidence: bool
    ) -> Copied:
        held: list[float] = []
        watch = _Watch()
        while True:
            answer = self._answered(ask("copy"))
            held.append(float(answer["held"]))
            problems = check() if answer["quiet"] else [Problem("", "its files kept changing")]
            if not problems:
                return Copied(_instant(answer), tuple(held))
            if watch.damage(problems, answer):
                if evidence:
                    return Copied(_instant(answer), tuple(held), tuple(problems))
                raise SourceCorrupt(
                    component=self.component, path=self.root, reason=problems[0].text
                )
            if len(held) >= self.budget.attempts:
                raise self._unstable(problems[0].text)
            time.sleep(REST_SECONDS)

    def _job(self) -> dict[str, object]:
        return {
            "root": str(self.root),
            "target": str(self.target),
            "lock_seconds": self.budget.lock_seconds,
            "pause_seconds": self.budget.pause_seconds,
            "settle_seconds": SETTLE_SECONDS,
        }

    def _answered(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, or raise what it says went wrong."""
        if "error" not in answer:
            return answer
        raise self._error(answer)

    def _error(self, answer: dict[str, Any]) -> HoldfastError:
        kind, reason = str(answer["error"]), str(answer["reason"])
        path = self.root / DATABASE
        if kind == "locked":
            seconds = round(self.budget.lock_seconds)
            return SourceLocked(component=self.component, path=path, seconds=seconds)
        if kind == "corrupt":
            return SourceCorrupt(component=self.component, path=path, reason=reason)
        if kind == "unfit":
            return unfit(self.component, self.root, reason)
        if kind == "too-long":
            return self._unstable(f"copying it held writers for {self.budget.pause_seconds:g} s")
        if kind == "system":
            return self._system_error(answer)
        return SourceUnreadable(component=self.component, path=path, reason=reason)

    def _system_error(self, answer: dict[str, Any]) -> HoldfastError:
        code, path = cast("int", answer["errno"]), answer["path"] or self.root
        if code in FULL:
            return NoSpace(path=self.target)
        if code == errno.ENOENT:
            return SourceMissing(component=self.component, path=path)
        return SourceUnreadable(component=self.component, path=path, reason=answer["reason"])

    def _unstable(self, reason: str) -> HoldfastError:
        return SourceUnstable(component=self.component, path=self.root, reason=reason)


class _Watch:
    """Tells damage from motion: damage stays, in files that stay as they are."""

    def __init__(self) -> None:
        self._state: object = None
        self._since = 0.0

    def damage(self, problems: list[Problem], answer: dict[str, Any]) -> bool:
        """Look at one failed attempt; True once the same fault has stayed for long enough."""
        faulty = {problem.segment for problem in problems}
        stamps = answer["stamps"]
        files = {name: s for name, s in stamps.items() if name.split("/")[0] in faulty}
        state = (problems, files) if answer["quiet"] else None
        if state is None or state != self._state:
            self._state, self._since = state, time.monotonic()
            return False
        return time.monotonic() - self._since >= PATIENCE_SECONDS


Ask = Callable[[str], dict[str, Any]]


@contextmanager
def _holder(job: dict[str, object]) -> Iterator[Ask]:
    """Run the program that holds the lock; it is gone, and the lock with it, when this is left.

    It has a session of its own: a Ctrl-C at the terminal is ours to handle, and a Ctrl-Z that stops
    us does not stop it in the middle of a copy, with the lock held.
    """
    command = [sys.executable, "-I", "-S", str(HOLDER), json.dumps(job)]
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        ) as child,
    ):

        def ask(command: str) -> dict[str, Any]:
            return _asked(child, command) or _ended(child, complaints)

        try:
            yield ask
        finally:
            child.kill()


def _asked(child: subprocess.Popen[str], command: str) -> dict[str, Any] | None:
    assert child.stdin is not None  # noqa: S101 - both are pipes, made above
    assert child.stdout is not None  # noqa: S101
    try:  # past the buffer: what could not be sent must not be tried again on closing
        os.write(child.stdin.fileno(), f"{command}\n".encode())
    except BrokenPipeError:
        return None
    line = child.stdout.readline()
    return cast("dict[str, Any]", json.loads(line)) if line else None


def _ended(child: subprocess.Popen[str], complaints: IO[bytes]) -> dict[str, Any]:
    """Say why it ended instead of answering."""
    status = child.wait()
    if status == TOO_LONG:
        return {"error": "too-long", "reason": ""}
    complaints.seek(0)
    last = complaints.read().decode(errors="replace").strip().rpartition("\n")[2]
    return {"error": "unreadable", "reason": f"the copying program ended with {status}: {last}"}


def _instant(answer: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(float(answer["instant"]), UTC)


def unfit(component: str, root: Path, reason: str) -> SourceUnfit:
    """Return the error for a folder that is not a store of Chroma's."""
    return SourceUnfit(component=component, path=root, expected="a Chroma folder", reason=reason)
