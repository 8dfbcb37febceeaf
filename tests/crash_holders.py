"""Processes that hold databases, forked from one that is ready instead of started.

Holdfast starts an interpreter for each database that it holds (`holdfast.sources._sqlite_holder`),
a dozen for one restore. Where hundreds of commands are killed, that would be half of the work. So
their commands ask a process here for holders, by the call with which they would start them; what
holders do then is Holdfast's own code. Whether they are started well is tried by all other tests.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from holdfast.sources import _sqlite_holder, _sqlite_server


class Holders:
    """The process that forks. It ends when nobody is left who could ask it."""

    def __init__(self) -> None:
        self._asking, answering = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answering:
            if os.fork() == 0:
                self._asking.close()
                _fork_on_request(answering)

    def take_over(self) -> None:
        """Give this process its holders from now on."""
        instead = SimpleNamespace(
            Popen=self._start,
            DEVNULL=subprocess.DEVNULL,
            TimeoutExpired=subprocess.TimeoutExpired,
        )
        setattr(_sqlite_holder, "subprocess", instead)  # noqa: B010 - mypy forbids the plain way

    def _start(self, command: Sequence[str], *, pass_fds: Sequence[int], **_: Any) -> Holder:
        (control,) = pass_fds
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as reply:
            socket.send_fds(self._asking, [b"one"], [control, writing])
            os.close(writing)
            return Holder(command, int(reply.read()))


class Holder:
    """A holder, as far as `subprocess.Popen` is used with it."""

    def __init__(self, command: Sequence[str], process: int) -> None:
        self._command = command
        try:
            self._process = os.pidfd_open(process)
        except ProcessLookupError:  # it has ended already
            self._process = -1

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end; raises `subprocess.TimeoutExpired`."""
        if self._process < 0:
            return
        if not select.select([self._process], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self._command, timeout or 0)
        os.close(self._process)
        self._process = -1

    def kill(self) -> None:
        """End it."""
        if self._process >= 0:
            signal.pidfd_send_signal(self._process, signal.SIGKILL)


def _fork_on_request(requests: socket.socket) -> None:
    """Fork a holder for each request; never return. A request is its socket, and a pipe."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a holder here
    while True:
        _word, descriptors, _flags, _address = socket.recv_fds(requests, 8, 2)
        if not descriptors:
            os._exit(0)
        control, reply = descriptors
        process = os.fork()
        if process == 0:
            _become_holder(control, [reply, requests.detach()])
        os.write(reply, str(process).encode())
        os.close(reply)
        os.close(control)


def _become_holder(control: int, others: Sequence[int]) -> None:
    """Serve the socket in this process; never return."""
    try:
        for descriptor in others:
            os.close(descriptor)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.argv[1:] = [str(control)]
        _sqlite_server.main()
    finally:
        os._exit(1)
