"""The tree of 1.5 GB in repositories: restic, borg and Holdfast, each with encryption."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..data import make
from ..machine import PEERS
from ..measure import Command, alternate, shell, size_of
from ..stack import Options, Stack, holdfast, remove
from ..table import Row, Section, seconds_row

MEGABYTES = 1500
PASSWORD = "measured"  # noqa: S105 - of repositories that end with the measurement
SPOT = 100_000  # bytes that are edited at once
EDITED = 0.01  # of the tree
STORED_BAR = 1.1


@dataclass(frozen=True, slots=True)
class Tool:
    """A program with a repository of its own, and what it is told."""

    name: str
    repository: Path
    init: Sequence[str]
    backup: Sequence[str]
    restore: Sequence[str]
    verify: Sequence[str]
    target: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    restored_in: Path | None = None  # the working folder of `restore`

    def prepared(self) -> None:
        """Make an empty repository."""
        remove(self.repository)
        remove(self.repository.parent / ".holdfast")
        self.run(self.init)

    def run(self, argv: Sequence[str]) -> None:
        """Run one of the command lines, unmeasured."""
        subprocess.run(
            argv, check=True, env={**os.environ, **self.environment}, capture_output=True
        )

    def command(
        self, what: str, argv: Sequence[str], before: Callable[[], None] = lambda: None
    ) -> Command:
        """Return a command line to be measured."""
        name = f"{self.name}, {what}"
        return Command(name, argv, before=before, environment=self.environment)


def measure(work: Path, options: Options) -> Section:
    """Measure the same five things with each program that is there."""
    work.mkdir()
    tree = work / "tree"
    make("tree", tree, options.megabytes(MEGABYTES))
    tools = [tool for tool in _tools(work, tree) if shutil.which(tool.backup[0])]
    runs = options.more(5)
    rows = [
        *_compared(tools, _full, runs, 0.55),
        *_compared(tools, _unchanged, runs, 0.8),
        *_compared(tools, _restore, runs, 0.7),
        *_compared(tools, _verify, runs, 1.0),
        *_edited(tools, tree, options),
    ]
    return Section(
        "A tree of 1.5 GB in a repository",
        "The tree of the case before, encrypted, compressed as each does by itself (restic: "
        "`auto`; borg: `zstd,3`), on a local disk. The bars are against restic. Holdfast counts, "
        "judges and writes down what it did as in every backup. Edited are 1 % of the bytes of the "
        "large files, in place, 100 kB at a time.",
        tuple(rows),
        peak=300_000_000,
    )


def _tools(work: Path, tree: Path) -> Iterator[Tool]:
    restic, places = str(PEERS / "restic"), work / "restic"
    base = [restic, "-q", "-r", str(places)]
    yield Tool(
        "restic",
        places,
        init=[*base, "init"],
        backup=[*base, "backup", str(tree)],
        restore=[*base, "restore", "latest", "--target", str(work / "by restic")],
        verify=[*base, "check", "--read-data"],
        target=work / "by restic",
        environment={"RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(work / "cache")},
    )
    borg, place, out = str(PEERS / "borg"), work / "borg", work / "by borg"
    newest = f"'{borg}' list --short --last 1 '{place}'"
    yield Tool(
        "borg",
        place,
        init=[borg, "init", "--encryption", "repokey-blake2", str(place)],
        backup=[borg, "create", "--compression", "zstd,3", f"{place}::{{utcnow}}", str(tree)],
        restore=shell(f"cd '{out}' && '{borg}' extract '{place}'::$({newest})"),
        verify=[borg, "check", "--verify-data", str(place)],
        target=out,
        environment={"BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(work / "borg-base")},
        restored_in=out,
    )
    stack = Stack(
        work / "holdfast",
        {"uploads": {"source": "files", "path": str(tree)}},
        vault={"kind": "repository", "url": "repository", "password": PASSWORD},
    )
    stack.write()
    target = work / "by holdfast"
    yield Tool(
        "Holdfast",
        stack.folder / "repository",
        init=holdfast("vault", "init", stack.config, "local"),
        backup=holdfast("backup", "measured", stack.config),
        restore=holdfast("restore", "latest", stack.config, "--yes", "--target", str(target)),
        verify=holdfast("vault", "check", stack.config, "local"),
        target=target,
    )


def _full(tool: Tool) -> Command:
    return tool.command("full backup", tool.backup, tool.prepared)


def _unchanged(tool: Tool) -> Command:
    return tool.command("nothing changed", tool.backup)


def _restore(tool: Tool) -> Command:
    def clear() -> None:
        remove(tool.target)
        if tool.restored_in is not None:
            tool.restored_in.mkdir()

    return tool.command("restore", tool.restore, clear)


def _verify(tool: Tool) -> Command:
    return tool.command("verify all data", tool.verify)


def _compared(
    tools: Sequence[Tool], command: Callable[[Tool], Command], runs: int, most: float
) -> Iterator[Row]:
    """Measure all in turn; what was backed up last is what the next ones find."""
    figures = alternate([command(tool) for tool in tools], runs)
    by_name = {found.name.partition(",")[0]: found for found in figures}
    peer = by_name.get("restic")
    for name, found in by_name.items():
        ours = name == "Holdfast"
        yield seconds_row(
            found,
            peer=None if name == "restic" else peer,
            most=most if ours and peer else None,
            ours=ours,
        )
    for tool in tools:
        remove(tool.target)


def _edited(tools: Sequence[Tool], tree: Path, options: Options) -> Iterator[Row]:
    """Edit the tree in place, back it up once more, and see how much each repository grows."""
    before = {tool.name: size_of(tool.repository) for tool in tools}
    _edit(tree)
    grown = {}
    for tool in tools:
        tool.run(tool.backup)
        grown[tool.name] = size_of(tool.repository) - before[tool.name]
    peer = grown.get("restic")
    for name, size in grown.items():
        ratio = size / peer if peer else None
        ours = name == "Holdfast"
        yield Row(
            f"{name}, new bytes of 1 % edited",
            f"{size / 1e6:.1f} MB",
            ratio="" if ratio is None or name == "restic" else f"{ratio:.2f} x",
            bar=f"≤ {STORED_BAR} x" if ours else "",
            met=ratio <= STORED_BAR if ours and ratio is not None and not options.small else None,
        )


def _edit(tree: Path) -> None:
    chosen = random.Random(20_260_204)
    for path in (tree / "dump.sql", tree / "vectors.f32", tree / "images.bin"):
        size = path.stat().st_size
        with path.open("r+b") as file:
            for _spot in range(max(1, round(size * EDITED / SPOT))):
                file.seek(chosen.randrange(max(1, size - SPOT)))
                file.write(chosen.randbytes(min(SPOT, size)))
