"""Processes that hold databases, forked from one that is ready instead of started.

Holdfast starts an interpreter for each database that it holds (`holdfast.sources._sqlite_holder`),
a dozen for one restore. Where hundreds of commands are killed, that would be half of the work. So
their commands ask a process here for holders, by the call with which they would start them; what
holders do then is Holdfast's own code. Whether they are started well is tried by all other tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from holdfast.sources import _sqlite_holder, _sqlite_server
from tests.forking import Forked, Task, ask, channel, fork_on_request


class Holders:
    """The process that forks. It ends when nobody is left who could ask it."""

    def __init__(self) -> None:
        self._asking, answering = channel()
        with answering:
            if os.fork() == 0:
                self._asking.close()
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, 0)
                os.dup2(nothing, 1)
                fork_on_request(answering, _hold)

    def take_over(self) -> None:
        """Give this process its holders from now on."""
        instead = SimpleNamespace(
            Popen=self._start,
            DEVNULL=subprocess.DEVNULL,
            TimeoutExpired=subprocess.TimeoutExpired,
        )
        setattr(_sqlite_holder, "subprocess", instead)  # noqa: B010 - mypy forbids the plain way

    def _start(self, _command: Sequence[str], *, pass_fds: Sequence[int], **_: Any) -> Forked:
        return ask(self._asking, {}, pass_fds)


def _hold(_task: Task, descriptors: list[int]) -> None:
    (control,) = descriptors
    sys.argv[1:] = [str(control)]
    _sqlite_server.main()
