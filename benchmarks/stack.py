"""Holdfast as the benchmarks run it: the installed command, on a stack of its own."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .measure import Command

PLAN = "measured"
_removed = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure. ``small`` proves that it runs, and nothing else."""

    runs: int = 5
    small: bool = False

    def megabytes(self, full: int) -> int:
        """Return how much data to make."""
        return max(10, full // 500) if self.small else full

    def fewer(self, most: int) -> int:
        """Return how often to run something that takes long."""
        return min(self.runs, most)

    def more(self, least: int) -> int:
        """Return how often to run something whose bar asks for so many runs."""
        return self.runs if self.small else max(self.runs, least)


@dataclass(frozen=True, slots=True)
class Stack:
    """A configuration in a folder, with one vault that is emptied before each backup."""

    folder: Path
    components: Mapping[str, Mapping[str, object]]
    archive: str = "tar.zst"
    vault: Mapping[str, object] = field(default_factory=lambda: {"kind": "plain", "url": "backups"})
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self) -> None:
        """Write the configuration: JSON, which is YAML."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {
            "stack": "measured",
            "components": self.components,
            "vaults": {"local": self.vault},
            "plans": {PLAN: {"archive": self.archive}},
        }
        self.config.write_text(json.dumps(document), "utf-8")

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "holdfast.yaml"

    def backup(self, name: str) -> Command:
        """Return a backup into an empty vault."""
        argv = holdfast("backup", PLAN, self.config)
        return Command(name, argv, before=self._empty, output=self.folder / "backups")

    def verify(self, name: str, level: str) -> Command:
        """Return the verification of the newest backup."""
        return Command(name, holdfast("verify", "latest", self.config, "--level", level))

    def restore(self, name: str, target: Path) -> Command:
        """Return a restore of the newest backup into an empty folder."""
        argv = holdfast("restore", "latest", self.config, "--yes", "--target", str(target))
        return Command(name, argv, before=partial(remove, target), after=partial(remove, target))

    def _empty(self) -> None:
        remove(self.folder / "backups")
        remove(self.folder / ".holdfast")


def holdfast(verb: str, subject: str, config: Path, *options: str) -> list[str]:
    """Return a command line of Holdfast."""
    return [*program(), "--quiet", "--config", str(config), verb, subject, *options]


def program() -> list[str]:
    """Return how Holdfast is called: the script beside this Python, or the module."""
    script = Path(sys.executable).with_name("holdfast")
    return [str(script)] if script.exists() else [sys.executable, "-m", "holdfast"]


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there: its bytes at once, its inodes in the end.

    For minutes after many files were deleted, ext4 looks at each of their inodes before it takes a
    new one. Whoever creates files next would be measured four times as slow.
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for file in path.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_nlink == 1:
            os.truncate(file, 0)
    path.rename(path.with_name(f"removed-{os.getpid()}-{next(_removed)}"))
