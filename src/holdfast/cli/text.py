"""Results as text for people: small tables, sizes and times in words."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import typer

from ..i18n import _

if TYPE_CHECKING:
    from ..model.facts import Facts

UNFOLDED = 10_000  # columns: more than any row of ours has
MANY = 6  # counts of a component that are shown on its line


def say(line: str = "") -> None:
    """Print a line on standard output."""
    typer.echo(line)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without lines, as wide as the terminal; in a pipe no cell is ever folded."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        drawn.add_column(head, overflow="fold", no_wrap=number == 0)
    for row in rows:
        drawn.add_row(*(_literal(cell) for cell in row))
    width = None if sys.stdout.isatty() else UNFOLDED
    Console(highlight=False, width=width).print(drawn)


def _literal(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)


def size(count: int) -> str:
    """Return a number of bytes as people read it."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004 - the step between the units
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def moment(instant: datetime | None) -> str:
    """Return an instant in the reader's own time zone."""
    if instant is None:
        return "-"
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(length: timedelta | float | None) -> str:
    """Return a length of time, in the two units that matter."""
    if length is None:
        return "-"
    seconds = length.total_seconds() if isinstance(length, timedelta) else length
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if hours < 1:
        return _("{n:.0f} min").format(n=minutes)
    if days < 2:  # noqa: PLR2004 - "30 h" is clearer than "1 d 6 h"
        return _("{n:.0f} h").format(n=hours)
    return _("{n:.0f} d").format(n=days)


def counts(facts: Facts) -> str:
    """Return counts on one line, the biggest groups first where there are many."""
    return _counted(facts.counts) or "-"


def _counted(numbers: Mapping[str, int]) -> str:
    shown = [f"{name} {_amount(name, n)}" for name, n in sorted(numbers.items())]
    more = f", … {len(shown) - MANY}" if len(shown) > MANY else ""
    return ", ".join(shown[:MANY]) + more


def _amount(name: str, number: int) -> str:
    return size(number) if name == "bytes" else f"{number:,}"


def changes(now: Facts, then: Facts) -> list[tuple[str, str, str]]:
    """Return a row for each count: its name, its value now, and what it will be."""
    return [
        (name, _cell(name, now.counts), _cell(name, then.counts))
        for name in sorted({*now.counts, *then.counts})
    ]


def _cell(name: str, numbers: Mapping[str, int]) -> str:
    return _amount(name, numbers[name]) if name in numbers else "-"
