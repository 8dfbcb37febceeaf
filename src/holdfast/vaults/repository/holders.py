"""Who holds a lock, and whether that process is known to be over."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SPACE = Path("/proc/self/ns/pid")
_GONE = {b"Z", b"X"}  # killed, but not yet reaped by its parent: it holds nothing any more


@dataclass(frozen=True, slots=True)
class Holder:
    """A process. What restic writes of it, and where that process is ours, what tells it apart.

    A number alone is soon given to another process, and means nothing in another container.
    """

    host: str
    pid: int
    boot: str = ""
    space: str = ""
    started: int = -1  # ticks after boot

    def evidence(self) -> dict[str, str | int]:
        """Return what a lock of ours says beyond what restic's say."""
        return {"boot": self.boot, "space": self.space, "started": self.started}


def this_holder() -> Holder:
    """Return this process."""
    boot, space = _place()
    found = _state(os.getpid())
    return Holder(socket.gethostname(), os.getpid(), boot, space, found[1] if found else -1)


def holder_of(host: str, pid: int, evidence: object) -> Holder:
    """Return the process that a lock speaks of; evidence not of our form says nothing."""
    if isinstance(evidence, Mapping):
        boot, space, started = (evidence.get(key) for key in ("boot", "space", "started"))
        if isinstance(boot, str) and isinstance(space, str) and isinstance(started, int):
            return Holder(host, pid, boot, space, started)
    return Holder(host, pid)


def is_known(holder: Holder) -> bool:
    """Tell whether it can be said from here if a process lives: same boot, same numbers."""
    boot, space = _place()
    return bool(boot) and (holder.boot, holder.space) == (boot, space) and holder.started >= 0


def is_over(holder: Holder) -> bool:
    """Tell whether a process that `is_known` has ended."""
    found = _state(holder.pid)
    return found is None or found[0] in _GONE or found[1] != holder.started


def number_is_free(holder: Holder) -> bool:
    """Tell whether this machine has no process of that number: restic's own test."""
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@cache
def _place() -> tuple[str, str]:
    try:
        return _BOOT.read_text("ascii").strip(), str(_SPACE.readlink())
    except OSError:
        return "", ""  # no /proc: then of no process anything is known


def _state(pid: int) -> tuple[bytes, int] | None:
    """Return a process's state and start; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    after_name = text[text.rindex(b")") + 2 :].split()  # the name may hold spaces and brackets
    return after_name[0], int(after_name[19])
