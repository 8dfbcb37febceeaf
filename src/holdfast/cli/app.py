"""The command line: which commands there are, and how a failure ends the program."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from ..errors import CANCELLED, FAILED, OK, Cancelled, HoldfastError, NoSpace, UsageInvalid
from ..i18n import _
from . import (
    audit,
    backup,
    catalog,
    check,
    config,
    health,
    init,
    listing,
    pin,
    prune,
    recover,
    restore,
    status,
    transfer,
    vault,
    verify,
)
from .common import ENDING, ConfigOption, Settings, pass_over_interrupts

LOUDNESS = frozenset({"-q", "--quiet", "-v", "-vv", "--verbose"})
COMPLETION = "_HOLDFAST_COMPLETE"  # the variable by which a shell asks for completions

app = typer.Typer(
    name="holdfast",
    help=_("Back up, verify and restore whole application stacks as one."),
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    init,
    backup,
    listing,
    verify,
    restore,
    check,
    prune,
    pin,
    transfer,
    vault,
    status,
    health,
    recover,
    config,
    catalog,
    audit,
)
for module in COMMANDS:
    module.register(app)


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    *,
    config_file: ConfigOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help=_("Show warnings only."))] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help=_("Show more."))] = 0,
    version: Annotated[bool, typer.Option("--version", help=_("Show the version."))] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(f"holdfast {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    context.obj = Settings(config_file, quiet, verbose)


@app.command()
def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish")]) -> None:
    """Print the completion script of a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    if shell not in {"bash", "zsh", "fish"}:
        raise UsageInvalid(problem=_("{shell} is not bash, zsh or fish").format(shell=shell))
    script = get_completion_script(prog_name="holdfast", complete_var=COMPLETION, shell=shell)
    typer.echo(script)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status. Foreseen failures are one line and a hint."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and `&` ask for
            signal.signal(number, _interrupt)
    if COMPLETION in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        command = typer.main.get_command(app)
        returned = command.main(hoisted(arguments), prog_name="holdfast", standalone_mode=False)
        sys.stdout.flush()  # while a reader that went away can still be noticed
    except BaseException as error:  # noqa: BLE001 - the border: every failure gets its words here
        return _say_failure(error, as_json="--json" in arguments)
    if returned == CANCELLED:  # which is how Typer hands a Ctrl-C on
        return fail(Cancelled(), as_json="--json" in arguments)
    return returned if isinstance(returned, int) else OK


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``-q`` and ``-v`` in front, where every command hears them."""
    loudness = [word for word in arguments if word in LOUDNESS]
    return loudness + [word for word in arguments if word not in LOUDNESS]


def _say_failure(error: BaseException, *, as_json: bool) -> int:
    if (row := _row_of(error)) is not None:
        return fail(row, as_json=as_json)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output went away; what was asked for is done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    return _bug(error)


def _row_of(error: BaseException) -> HoldfastError | None:
    """Return the row of the error table that an error is, or comes down to."""
    if isinstance(error, HoldfastError):
        return error
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Cancelled()
    if isinstance(error, TyperException):
        return UsageInvalid(problem=getattr(error, "format_message", error.__str__)())
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return NoSpace(path=error.filename or _("the output"))
    return None


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Let a request to end undo what is half-made; once: a second one must not stop the undoing.

    The later ones are heard and not obeyed, instead of ignored: that, commands would inherit.
    """
    pass_over_interrupts()
    raise KeyboardInterrupt


def fail(error: HoldfastError, *, as_json: bool) -> int:
    """Say what failed and what to do now; returns the exit status.

    Where nobody can hear it, because the output is closed or its disk is full, the status tells.
    """
    with suppress(OSError):
        _say(error, as_json=as_json)
    return error.exit_status


def _say(error: HoldfastError, *, as_json: bool) -> None:
    if as_json:
        document = {
            "error": {
                "code": error.code,
                "message": str(error),
                "hint": error.hint,
                "retryable": error.retryable,
            }
        }
        typer.echo(json.dumps(document, ensure_ascii=False))
    typer.echo(f"holdfast: {error}", err=True)
    if error.hint:
        typer.echo(f"  {_('hint')}: {error.hint}", err=True)


def _bug(error: BaseException) -> int:
    """Write the traceback, without local variables, to a file: they may hold secrets."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="holdfast-", suffix=".log", delete=False, encoding="utf-8"
    ) as report:
        report.write(text)
    place = Path(report.name)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    typer.echo(_("holdfast: this is a bug of Holdfast: {what}").format(what=what), err=True)
    typer.echo(f"  {_('hint')}: {_('please report it with {place}').format(place=place)}", err=True)
    return FAILED
