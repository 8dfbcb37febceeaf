"""Rows of results, and how they are printed: for the terminal and for ``docs/benchmarks.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .measure import Figures

PROMISED_PEAK = 200_000_000  # bytes, whatever is backed up or restored
HEAD = ("", "median", "min-max", "ratio", "bar", "met", "CPU s", "peak MB", "writes MB", "runs")


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``ratio`` is its median by that of what it is compared to; ``bar``: the promise."""

    name: str
    median: str
    spread: str = ""
    ratio: str = ""
    bar: str = ""
    met: bool | None = None  # None: a figure for information, nothing was promised
    cpu: float = 0.0  # seconds; 0: not measured
    peak: int = 0  # bytes; 0: not measured
    size: int = 0  # bytes of what it writes; 0: not measured
    runs: int = 0
    ours: bool = False

    def cells(self) -> tuple[str, ...]:
        """Return the texts of the line."""
        met = {None: "", True: "yes", False: "no"}[self.met]
        numbers = (round(self.peak / 1e6), round(self.size / 1e6), self.runs)
        shown = (str(number) if number else "" for number in numbers)
        cpu = f"{self.cpu:.2f}" if self.cpu else ""
        return (self.name, self.median, self.spread, self.ratio, self.bar, met, cpu, *shown)


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one case, and what to know when reading them."""

    title: str
    about: str
    rows: tuple[Row, ...]
    peak: int = PROMISED_PEAK  # bytes that no process of Holdfast may exceed in it


def seconds_row(
    figures: Figures,
    *,
    peer: Figures | None = None,
    most: float | None = None,
    ours: bool = False,
) -> Row:
    """Return the row of a timed command.

    ``peer`` is what it is compared to; ``most`` is the promise: the ratio to the peer that it may
    reach at most, or without a peer the seconds.
    """
    if not figures.finished:
        return Row(figures.name, "did not finish", f"> {figures.longest:.0f} s", ours=ours)
    ratio = figures.median / peer.median if peer else None
    judged = figures.median if ratio is None else ratio
    unit = " s" if ratio is None else " x"
    return Row(
        name=figures.name,
        median=f"{figures.median:.2f} s",
        spread=f"{figures.shortest:.2f}-{figures.longest:.2f}",
        ratio="" if ratio is None else f"{ratio:.2f} x",
        bar="" if most is None else f"≤ {most:g}{unit}",
        met=None if most is None else judged <= most,
        cpu=figures.cpu,
        peak=figures.peak,
        size=figures.size,
        runs=len(figures.samples),
        ours=ours,
    )


def text(section: Section) -> str:
    """Return a section for the terminal."""
    lines = [HEAD, *(row.cells() for row in section.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    shown = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([section.title, section.about, "", *shown])


def markdown(section: Section) -> str:
    """Return a section for the documentation."""
    head = "| " + " | ".join(HEAD) + " |"
    rule = "|---|" + "---:|" * (len(HEAD) - 1)
    rows = ["| " + " | ".join(row.cells()) + " |" for row in section.rows]
    return "\n".join([f"## {section.title}", "", section.about, "", head, rule, *rows])


def unmet(sections: Sequence[Section]) -> list[Row]:
    """Return the rows whose promise was not kept."""
    return [row for section in sections for row in section.rows if row.met is False]
