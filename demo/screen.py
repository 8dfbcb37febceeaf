"""What the demonstration shows: plain lines that fit one screen, and bars where a terminal is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

WIDTH = 100  # columns; a line that is longer is cut
TIME_COLUMN = 90  # where the seconds of a line end

Advance = Callable[[str, int, int], None]  # what is being done, units done so far, units in all


class Screen:
    """Writes lines, and counts the claims that did not hold."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self.claims = 0
        self.broken: list[str] = []

    def title(self, text: str) -> None:
        """Show the first line."""
        self._line(text, "bold")

    def chapter(self, text: str) -> None:
        """Begin a chapter."""
        self._line(text, "bold cyan")

    def say(self, text: str, seconds: float | None = None) -> None:
        """Show a line, with how long it took."""
        self._line(_timed(f"  {text}", seconds))

    def command(self, text: str, seconds: float, *, outcome: str = "") -> None:
        """Show a command that was run."""
        words = f"  $ {text}" + (f"   {outcome}" if outcome else "")
        self._line(_timed(words, seconds), "bold")

    def claim(self, text: str, *, holds: bool, otherwise: str = "") -> None:
        """Show something that was compared: whether it holds, and if not, what was found."""
        self.claims += 1
        if holds:
            self._line(f"  ✓ {text}", "green")
            return
        self.broken.append(text)
        self._line(f"  ✗ NOT TRUE: {text}", "bold red")
        if otherwise:
            self._line(f"    {otherwise}", "red")

    def verdict(self, seconds: float) -> int:
        """Show the last line; returns the exit status, 0 only if every claim held."""
        if self.broken:
            self._line(f"{len(self.broken)} of {self.claims} claims did NOT hold", "bold red")
            return 1
        self._line(
            _timed(f"All {self.claims} claims were compared, and hold", seconds), "bold green"
        )
        return 0

    @contextmanager
    def waiting(self, label: str) -> Iterator[Advance]:
        """Show a bar while something is under way; nothing where no terminal is."""
        if not self._console.is_terminal:
            yield lambda _what, _done, _total: None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=None)

            def advance(what: str, done: int, total: int) -> None:
                progress.update(
                    task, description=f"{label}  {what}", completed=done, total=total or None
                )

            yield advance

    def _line(self, text: str, style: str = "") -> None:
        cut = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
        self._console.print(Text(cut, style))


def _timed(text: str, seconds: float | None) -> str:
    if seconds is None:
        return text
    shown = f"{seconds:.1f} s"
    return f"{text}{shown:>{max(len(shown) + 2, TIME_COLUMN - len(text))}}"
