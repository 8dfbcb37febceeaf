"""Tasks in processes forked from one that has loaded everything they need.

Where a test needs hundreds of processes, starting an interpreter and importing is most of the work.
The process that forks does nothing else and has no threads, so that its children are sound.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

DONE = b"done"
_PID = 8  # digits of a process
_LONGEST = 1 << 16  # bytes of a task

Task = dict[str, Any]


def channel() -> tuple[socket.socket, socket.socket]:
    """Return the end of those who ask for tasks, and that of the process which forks."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def ask(forking: socket.socket, task: Task, descriptors: Sequence[int] = ()) -> Forked:
    """Have a task begun; its process gets copies of the descriptors."""
    reading, writing = os.pipe()
    try:
        socket.send_fds(forking, [json.dumps(task).encode()], [writing, *descriptors])
    finally:
        os.close(writing)
    return Forked(task, reading)


class Forked:
    """A process at work on a task."""

    def __init__(self, task: Task, reply: int) -> None:
        """``reply`` is a pipe that tells the process, then how it went, and ends with it."""
        self._task = task
        self._reply = reply
        said = os.read(reply, _PID)
        if not said:
            raise AssertionError("the process that forks has ended")
        self.pid = int(said)
        self._done: bool | None = None
        try:
            self._process = os.pidfd_open(self.pid)
        except ProcessLookupError:  # it has ended already
            self._process = -1

    def __del__(self) -> None:
        for descriptor in (self._reply, self._process):
            if descriptor >= 0:
                os.close(descriptor)

    def poll(self) -> bool | None:
        """Return None while it runs, and then whether it did its task."""
        if self._done is None and select.select([self._reply], [], [], 0)[0]:
            self._done = os.read(self._reply, len(DONE)) == DONE
        return self._done

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; tells whether it did its task. Raises `subprocess.TimeoutExpired`."""
        if self._process >= 0 and not select.select([self._process], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(json.dumps(self._task), timeout or 0)
        return bool(self.poll())

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process >= 0:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)


def fork_on_request(requests: socket.socket, work: Callable[[Task, list[int]], None]) -> NoReturn:
    """Fork for each task until nobody is left who could ask for one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests to hear
    while True:
        word, descriptors, _flags, _address = socket.recv_fds(requests, _LONGEST, 8)
        _let_go()
        if not word:
            os._exit(0)
        reply, *others = descriptors
        if os.fork() == 0:
            requests.close()
            _do(work, json.loads(word), reply, others)
        for descriptor in descriptors:
            os.close(descriptor)


def _let_go() -> None:
    """Take leave of the children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _do(
    work: Callable[[Task, list[int]], None], task: Task, reply: int, descriptors: list[int]
) -> NoReturn:
    os.write(reply, f"{os.getpid():{_PID}}".encode())
    try:
        work(task, descriptors)
        os.write(reply, DONE)
    except BaseException:  # noqa: BLE001 - a child must not go on as a second one that forks
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(0)
