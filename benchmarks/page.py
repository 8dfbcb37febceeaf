"""``docs/benchmarks.md``: written as a whole, or with some cases as they were measured again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .table import Row, Section, markdown

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MEMORY = "Memory"
_HEAD = "# Benchmarks\n\nMade by `make bench`; nothing on this page is written by hand.\n"


def memory(sections: Sequence[Section]) -> Section:
    """Judge the largest process of Holdfast in every case by what was promised of memory."""
    rows = [
        Row(
            f"{section.title}: {row.name}",
            f"{row.peak / 1e6:.0f} MB",
            bar=f"≤ {section.peak / 1e6:.0f} MB",
            met=row.peak <= section.peak,
        )
        for section in sections
        for row in section.rows
        if row.ours and row.peak
    ]
    return Section(
        MEMORY,
        "The largest single process of each command of Holdfast, as the kernel counts it.",
        tuple(rows),
    )


def whole(sections: Sequence[Section], about: str) -> str:
    """Return the page of all cases, measured in one run."""
    shown = map(markdown, [*sections, memory(sections)])
    return "\n\n".join([_HEAD, about, *shown]).replace("\n\n\n", "\n\n") + "\n"


def renewed(page: str, sections: Sequence[Section], about: str) -> str:
    """Return a page with the results of some cases in place of their former ones.

    ``about`` says of each when that was. Raises ``LookupError`` for a case that it does not have.
    """
    head, *parts = re.split(r"(?m)^(?=## )", page)
    titles = [part.partition("\n")[0].removeprefix("## ") for part in parts]
    for section in sections:
        if section.title not in titles:
            raise LookupError(f"{section.title} is not on the page")
        told = replace(section, about=f"{section.about} {about}")
        parts[titles.index(section.title)] = markdown(told) + "\n\n"
        table = titles.index(MEMORY)
        parts[table] = _with_rows(parts[table], section)
    return f"{(head + ''.join(parts)).rstrip()}\n"


def _with_rows(table: str, section: Section) -> str:
    """Return the table of memory with the rows of one case as they are now."""
    lines = table.splitlines(keepends=True)
    former = [at for at, line in enumerate(lines) if line.startswith(f"| {section.title}: ")]
    now = ["| " + " | ".join(row.cells()) + " |\n" for row in memory([section]).rows]
    first = former[0] if former else len(lines)
    others = [line for at, line in enumerate(lines) if at not in former]
    return "".join([*others[:first], *now, *others[first:]])
