"""Which process this is, and whether another one still lives."""

from __future__ import annotations

import os
import socket
from enum import Enum
from functools import cache
from pathlib import Path

from ..model.runs import Process

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NUMBER_SPACE = Path("/proc/self/ns/pid")
_GONE = {"Z", "X"}  # killed, but not yet reaped by its parent: it holds nothing any more


class Liveness(Enum):
    """What can be said of a process from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # of another machine, boot or container: its number means nothing here


def this_process() -> Process:
    """Return who we are; a field that cannot be found out is empty, or -1."""
    host, boot, space = _place()
    pid = os.getpid()
    found = _stat(pid)
    return Process(host, boot, space, pid, found[1] if found else -1)


@cache
def _place() -> tuple[str, str, str]:
    try:
        boot, space = BOOT_ID.read_text("ascii").strip(), str(NUMBER_SPACE.readlink())
    except OSError:
        boot, space = "", ""  # no /proc: every process is then unknown, never taken for dead
    return socket.gethostname(), boot, space


def liveness(process: Process) -> Liveness:
    """Tell whether a process lives; ``UNKNOWN`` wherever there is room for doubt."""
    _host, boot, space = _place()
    if not boot or (process.boot, process.space) != (boot, space) or process.started < 0:
        return Liveness.UNKNOWN
    found = _stat(process.pid)
    if found is None:
        return Liveness.UNKNOWN if _exists(process.pid) else Liveness.DEAD
    state, started = found
    if state in _GONE or started != process.started:
        return Liveness.DEAD  # it ended, and its number may have been given to another
    return Liveness.ALIVE


def ended(process: Process) -> bool:
    """Tell whether a process is known to be over, also because its machine was started anew.

    Good enough for a record of what happened; what must be safe asks `liveness`, since two machines
    may bear one name.
    """
    host, boot, _space = _place()
    rebooted = bool(boot) and process.host == host and process.boot not in {"", boot}
    return rebooted or liveness(process) is Liveness.DEAD


def _stat(pid: int) -> tuple[str, int] | None:
    """Return a process's state and start, in ticks since boot; None if it is not to be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    after_name = text[text.rindex(b")") + 2 :].split()  # the name may hold spaces and brackets
    return after_name[0].decode("ascii"), int(after_name[19])


def _exists(pid: int) -> bool:
    """Tell whether a process exists that /proc does not show us: mounted with ``hidepid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
