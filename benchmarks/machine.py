"""What the results were measured on and with, in words."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from holdfast import __version__

PEERS = Path(sys.prefix) / "peers"  # what `scripts/peers` unpacks
_TOOLS = (
    ("tar", "--version"),
    ("gzip", "--version"),
    ("zstd", "--version"),
    ("sqlite3", "--version"),
    (str(PEERS / "restic"), "version"),
    (str(PEERS / "borg"), "--version"),
    ("rclone", "version"),
    ("curl", "--version"),
)


def describe(minutes: float, *, small: bool) -> str:
    """Return a paragraph on the machine, the tools, and what the figures can bear."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    lines = [
        (
            f"Measured on {datetime.now(UTC):%Y-%m-%d} in {minutes:.0f} minutes: {_processor()}, "
            f"{os.cpu_count()} cores, {memory:.0f} GB of memory, {platform.system()} "
            f"{platform.release()}."
        ),
        (
            f"With Holdfast {__version__}, Python {platform.python_version()}, SQLite "
            f"{sqlite3.sqlite_version}; peers: {', '.join(_versions())}."
        ),
        (
            "Peers and Holdfast run in turn (A B A B) in one session, after a round that is not "
            "counted; `ratio` is a median by the median of the peer above it. What was written "
            "before is synced before each run. The page cache is not dropped: everything is read "
            "from memory, and the disk counts only where something is synced. `CPU s` are seconds "
            "of all cores, of a command and its children: other work disturbs them least. The load "
            f"average at the end was {os.getloadavg()[2]:.1f} over 15 minutes; what exceeds "
            f"{os.cpu_count()} by much was other work, and the times are then to be doubted."
        ),
    ]
    if small:
        lines.append("Little data (`--small`): these figures mean nothing.")
    return "\n\n".join(lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> list[str]:
    found = []
    for tool, option in _TOOLS:
        if shutil.which(tool) is None:
            found.append(f"{Path(tool).name} not installed")
            continue
        said = subprocess.run([tool, option], capture_output=True, text=True, check=False).stdout
        number = re.search(r"\d+(\.\d+)+", said)
        found.append(f"{Path(tool).name} {number[0] if number else 'of unknown version'}")
    return found
