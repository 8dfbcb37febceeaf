"""Who holds a lock, and whether that process is known to be over."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

_MACHINE = Path("/etc/machine-id")
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
    machine: str = ""
    boot: str = ""
    space: str = ""
    started: int = -1  # ticks after boot

    def evidence(self) -> dict[str, str | int]:
        """Return what a lock of ours says beyond what restic's say."""
        return {name: getattr(self, name) for name in ("machine", "boot", "space", "started")}


def this_holder() -> Holder:
    """Return this process."""
    machine, boot, space = _place()
    found = _state(os.getpid())
    started = found[1] if found else -1
    return Holder(socket.gethostname(), os.getpid(), machine, boot, space, started)


def holder_of(host: str, pid: int, evidence: object) -> Holder:
    """Return the process that a lock speaks of; evidence not of our form says nothing."""
    found = evidence if isinstance(evidence, Mapping) else {}
    machine, boot, space = (str(found.get(key) or "") for key in ("machine", "boot", "space"))
    started = found.get("started")
    return Holder(host, pid, machine, boot, space, started if isinstance(started, int) else -1)


def is_known(holder: Holder) -> bool:
    """Tell whether it can be said from here if a process lives: same boot, same numbers."""
    _machine, boot, space = _place()
    return bool(boot) and (holder.boot, holder.space) == (boot, space) and holder.started >= 0


def is_of_this_machine(holder: Holder) -> bool:
    """Tell whether it is certain that a process was one of this machine, at whatever boot.

    A name is not enough: many machines are called as they came.
    """
    machine, _boot, _space = _place()
    return bool(machine) and (holder.host, holder.machine) == (socket.gethostname(), machine)


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
def _place() -> tuple[str, str, str]:
    """Return this machine, its boot, and its numbering of processes; empty what is not known."""
    try:
        boot, space = _BOOT.read_text("ascii").strip(), str(_SPACE.readlink())
    except OSError:  # no /proc: then of no process anything is known
        boot, space = "", ""
    try:
        machine = _MACHINE.read_bytes().strip()
    except OSError:
        machine = b""
    # Hashed: systemd asks not to show the id itself to others.
    return sha256(b"holdfast lock " + machine).hexdigest()[:32] if machine else "", boot, space


def _state(pid: int) -> tuple[bytes, int] | None:
    """Return a process's state and start; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    after_name = text[text.rindex(b")") + 2 :].split()  # the name may hold spaces and brackets
    return after_name[0], int(after_name[19])
