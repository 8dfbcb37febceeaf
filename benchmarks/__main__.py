"""`python -m benchmarks [CASE…]`: measure Holdfast side by side with its peers."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from .cases import measure_apart
from .machine import describe
from .page import PAGE, memory, renewed, whole
from .stack import Options
from .table import Section, text, unmet

CASES = (
    "startup",
    "sqlite",
    "tree",
    "repository",
    "chroma",
    "chroma_server",
    "objects",
    "redis",
    "qdrant",
    "postgres",
)


def main() -> int:
    """Measure and print; returns 0 also where a bar was missed, which the table says."""
    options = _parsed()
    sections: list[Section] = []
    begun = time.monotonic()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start compiles all of Holdfast anew
    with tempfile.TemporaryDirectory(prefix="holdfast-benchmarks-", dir=options.folder) as folder:
        how = Options(options.runs, options.small)
        for name in options.names or CASES:
            sections.append(measure_apart(name, Path(folder) / name, how))
            print(text(sections[-1]), end="\n\n", flush=True)
    print(text(memory(sections)), end="\n\n")
    minutes = (time.monotonic() - begun) / 60
    about = describe(minutes, small=options.small)
    print(about)
    if not options.small:
        _say_unmet([*sections, memory(sections)])
    if options.write:
        _write(sections, about, everything=not options.names)
    return 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--runs", type=int, default=5, help="of each command, after one that warms")
    parser.add_argument(
        "--small", action="store_true", help="little data: only to see that it runs"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write the results to {PAGE.name} too, all or some"
    )
    parser.add_argument("--folder", type=Path, help="where to put the data; on a local disk")
    options = parser.parse_args()
    for name in options.names:
        if name not in CASES:
            parser.error(f"there is no case named {name}; known: {', '.join(CASES)}")
    if options.write and options.small:
        parser.error("--write is for results, not for --small")
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def _say_unmet(sections: list[Section]) -> None:
    missed = unmet(sections)
    for row in missed:
        print(f"NOT MET: {row.name}: {row.ratio or row.median} (bar {row.bar})")
    if not missed:
        print("Every bar was met.")


def _write(sections: list[Section], about: str, *, everything: bool) -> None:
    if everything:
        page = whole(sections, about)
    else:
        load = os.getloadavg()[2]
        told = f"Measured again by itself on {date.today()}; the load average was {load:.1f}."  # noqa: DTZ011 - that of whoever reads it
        page = renewed(PAGE.read_text("utf-8"), sections, told)
    PAGE.write_text(page, "utf-8")
    print(f"written to {PAGE}")


if __name__ == "__main__":
    sys.exit(main())
