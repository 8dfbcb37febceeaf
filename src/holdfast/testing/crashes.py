"""Killing a process at each step it takes on the file system, one run after the other.

A child process dies by SIGKILL right before its n-th change of the file system, as the interpreter
announces such changes to an audit hook. What lies between two changes is covered too: it is what
the disk holds before the second one.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

CHANGES = frozenset(
    {
        "os.chmod",
        "os.link",
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.symlink",
        "os.truncate",
        "fcntl.flock",
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_KILLED = -signal.SIGKILL


class ChildFailedError(AssertionError):
    """The child ended by an error of its own instead of by the kill."""


def is_change(event: str, arguments: tuple[object, ...]) -> bool:
    """Tell whether an audit event announces a change of the file system, or a lock."""
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & _WRITING)
    return event in CHANGES


def killed_before(step: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that dies before its n-th change; returns whether it got that far.

    Raises:
        ChildFailedError: the work raised an error.

    """
    _let_threads_end()
    child = os.fork()
    if child == 0:
        _run_and_exit(step, work)
    try:
        _pid, status = os.waitpid(child, 0)
    except BaseException:  # given up: nobody else would end it
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    ended = os.waitstatus_to_exitcode(status)
    if ended not in {0, _KILLED}:
        problem = f"the child ended with {ended} instead of being killed at step {step}"
        raise ChildFailedError(problem)
    return ended == _KILLED


def _let_threads_end() -> None:
    """Wait until threads that have ended for Python have ended for the system too.

    On their way out they hold locks of libraries, OpenSSL's for example. A child that is forked at
    that moment has the lock and not the thread, and waits for ever.
    """
    patience = time.monotonic() + _LONG
    while leaving := _tasks() - {thread.native_id for thread in threading.enumerate()} - _staying:
        if time.monotonic() > patience:
            _staying.update(leaving)
        time.sleep(0.001)


def _tasks() -> set[int]:
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}


_LONG = 0.1  # seconds that no thread takes to end
_staying: set[int] = set()  # threads of libraries, which are there until the process ends


def _run_and_exit(step: int, work: Callable[[], object]) -> None:
    left = step

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if is_change(event, arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        work()
    except BaseException:  # noqa: BLE001 - a child that returned would run the rest of the tests
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def every_crash(work: Callable[[], object], *, start: int = 1, stride: int = 1) -> Iterator[int]:
    """Kill ``work`` before its first change, its second, and so on until it gets to its end.

    Gives the number of each step after the kill, for the caller to look and to put things back; the
    last one is the run that nothing killed.
    """
    step = start
    while killed_before(step, work):
        yield step
        step += stride
    yield step
