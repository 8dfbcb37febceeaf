"""How long the small commands take, that one types many times a day."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ..measure import Command, alternate
from ..stack import Options, Stack, program
from ..table import Section, seconds_row

BACKUPS = 1000


def measure(work: Path, options: Options) -> Section:
    """Measure ``--version``, and a list of a thousand real backups."""
    work.mkdir()
    count = 20 if options.small else BACKUPS
    note = work / "note.txt"
    note.write_text("a small file, but a real backup\n", "utf-8")
    stack = Stack(work / "stack", {"notes": {"source": "files", "paths": [str(note)]}})
    stack.write()
    argv = [sys.executable, "-m", "benchmarks.many_backups", str(stack.config), str(count)]
    subprocess.run(argv, check=True)
    listing = [*program(), "--config", str(stack.config), "list", "--json"]
    bare, version, listed = alternate(
        [
            Command("python -c pass", [sys.executable, "-c", "pass"]),
            Command("holdfast --version", [*program(), "--version"]),
            Command(f"holdfast list --json, {count:,} backups", listing),
        ],
        max(options.runs, 1 if options.small else 11),
    )
    return Section(
        "Start-up",
        "Python alone is shown for comparison: no command of ours can be faster.",
        (
            seconds_row(bare),
            seconds_row(version, most=0.15, ours=True),
            seconds_row(listed, most=0.6, ours=True),
        ),
    )
