"""A live SQLite database of 1 GB, written to all the while, against SQLite's own shell."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

from ..data import make
from ..measure import Command, alternate, run
from ..stack import Options, Stack, remove
from ..table import Row, Section, seconds_row
from ..writers import writing

MEGABYTES = 1000
STARVING_SECONDS = 30.0  # after which the shell's own way is given up


def measure(work: Path, options: Options) -> Section:
    """Measure a backup while a writer commits every few milliseconds."""
    work.mkdir()
    database, log = work / "live.db", work / "writer.log"
    make("sqlite", database, options.megabytes(MEGABYTES))
    stack = Stack(work / "stack", {"rows": {"source": "sqlite", "path": str(database)}})
    stack.write()
    out = work / "out"
    peer = _copy(out, "sqlite3 .backup, in a read transaction", _shell(database, out, held=True))
    alone = _copy(
        out,
        "Holdfast, the copy alone",
        [sys.executable, "-m", "benchmarks.copy_sqlite", str(database), str(out)],
    )
    plain = _copy(
        out,
        "sqlite3 .backup, as documented",
        _shell(database, out, held=False),
        limit=2.0 if options.small else STARVING_SECONDS,
    )
    with writing("sqlite", database, log):
        theirs, copied, whole = alternate(
            [peer, alone, stack.backup("Holdfast backup: copy, hash, count, seal, sync")],
            options.runs,
        )
        starved = run(plain)
    verified, restored = alternate(
        [
            stack.verify("Holdfast verify, native", "native"),
            stack.restore("Holdfast restore beside it", work / "restored"),
        ],
        options.fewer(3),
    )
    return Section(
        "SQLite, 1 GB, live",
        "A writer commits every 5 ms meanwhile; journal mode WAL. The shell syncs its copy, and so "
        "does Holdfast. By itself the shell's `.backup` starts over at each commit of another "
        "process and never ends; inside a read transaction it does, which is what we compare with.",
        (
            seconds_row(theirs),
            seconds_row(copied, peer=theirs, most=1.0, ours=True),
            seconds_row(whole, peer=theirs, most=1.4, ours=True),
            Row(
                plain.name,
                f"{starved.seconds:.2f} s" if starved.finished else "not finished",
                "" if starved.finished else f"given up after {starved.seconds:.0f} s",
                peak=starved.peak,
                runs=1,
            ),
            seconds_row(verified, ours=True),
            seconds_row(restored, ours=True),
        ),
    )


def _shell(database: Path, out: Path, *, held: bool) -> list[str]:
    hold = ["BEGIN", "SELECT count(*) FROM sqlite_master"] if held else []
    copy = f".backup {shlex.quote(str(out))}"
    return ["sqlite3", "-cmd", ".timeout 60000", str(database), *hold, copy]


def _copy(out: Path, name: str, argv: list[str], limit: float = 300.0) -> Command:
    empty = partial(remove, out)
    return Command(name, argv, before=empty, after=empty, output=out, limit=limit)
