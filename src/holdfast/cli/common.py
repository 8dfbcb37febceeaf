"""What the commands share: options, the session, progress, and how a command ends."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import StateUnwritable
from ..i18n import _

if TYPE_CHECKING:
    from ..ports import Observer
    from ..runtime.session import Session


@dataclass(slots=True)
class Settings:
    """What was said before the command's name; commands may say it again."""

    config: Path | None = None
    quiet: bool = False
    verbose: int = 0


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help=_("The configuration file.")),
]
JsonOption = Annotated[bool, typer.Option("--json", help=_("Print one JSON document."))]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help=_("Do not ask; go ahead."))]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", "-n", help=_("Show what would be done, and do nothing."))
]
ComponentOption = Annotated[
    list[str] | None,
    typer.Option("--component", metavar="NAME", help=_("Only this component; repeatable.")),
]
VaultOption = Annotated[
    list[str] | None,
    typer.Option("--vault", metavar="NAME", help=_("Only this vault; repeatable.")),
]
ProgressOption = Annotated[
    bool, typer.Option("--progress", help=_("With --json: a JSON line for each event, too."))
]


def settings(context: typer.Context) -> Settings:
    """Return what was said before the command's name."""
    found = context.find_root().obj
    return found if isinstance(found, Settings) else Settings()


def quiet(context: typer.Context) -> bool:
    """Tell whether only what went wrong is to be shown."""
    return settings(context).quiet


def open_session(context: typer.Context, config: Path | None) -> Session:
    """Load the configuration that the command line, the environment or the folder names."""
    from ..runtime.session import open_session as opened

    session = opened(config or settings(context).config)
    if context.info_name != "recover":
        _warn_of_unfinished(session)
    return session


def _warn_of_unfinished(session: Session) -> None:
    """Say at every command that a restore is waiting; what only reads works on without a state."""
    try:
        for unfinished in session.unfinished():
            said = _("warning: restore {run} was interrupted: run `holdfast recover`")
            typer.echo(said.format(run=unfinished.run), err=True)
    except StateUnwritable as error:
        typer.echo(_("warning: {text}").format(text=error), err=True)


def observer(context: typer.Context, *, as_json: bool, progress: bool = False) -> Observer:
    """Return who hears of the progress: bars on a terminal, lines elsewhere, or nobody."""
    from . import progress as shown

    said = settings(context)
    if as_json:
        return shown.JsonLines(sys.stdout) if progress else shown.Silent()
    if said.quiet:
        return shown.Warnings()
    return shown.for_terminal(verbose=bool(said.verbose))


def confirmed(question: str, *, yes: bool, word: str) -> bool:
    """Ask for a typed word; without a terminal, only ``--yes`` confirms."""
    if yes:
        return True
    if not sys.stdin.isatty():
        return False
    typer.echo(question, err=True)
    prompt = _("Type {word} to go ahead").format(word=word)
    return bool(typer.prompt(prompt, default="", show_default=False, err=True) == word)


def pass_over_interrupts() -> None:
    """Obey no request to end any more: it is being obeyed, or all is done but telling it.

    They are heard and passed over, not ignored: that, commands would inherit.
    """
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _pass_over)


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    """Go on."""
