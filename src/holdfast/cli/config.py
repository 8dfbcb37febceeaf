"""``holdfast config validate``, ``show`` and ``schema``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from ..errors import USAGE, HoldfastError
from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, settings

if TYPE_CHECKING:
    from ..config.examine import Examined
    from ..config.load import Found

group = typer.Typer(help=_("Check and show the configuration."), no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="config")


@group.command()
def validate(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Check the whole file and name everything that is wrong with it."""
    examined, found = _examined(context, config)
    if as_json:
        documents.show(
            {
                "config": str(found.path),
                "valid": not examined.problems,
                "problems": [_document(problem) for problem in examined.problems],
                "missing": [_document(missing) for missing in examined.missing],
            }
        )
        raise typer.Exit(USAGE if examined.problems else 0)
    for missing in examined.missing:
        typer.echo(_("warning: {what}").format(what=missing), err=True)
    if examined.problems:
        for problem in examined.problems[:-1]:
            typer.echo(f"holdfast: {problem}", err=True)
            typer.echo(f"  {_('hint')}: {problem.hint}" if problem.hint else "", err=True)
        raise examined.problems[-1]
    text.say(_("{path} is valid").format(path=found.path))


@group.command()
def show(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Print every value in force and where it comes from, with secrets masked."""
    from ..config import show as shown

    lines = shown.settings(*_examined(context, config))
    if as_json:
        documents.show(shown.documents(lines))
    else:
        typer.echo(shown.render(lines), nl=False)


@group.command()
def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from ..config.reference import json_schema
    from ..runtime.registry import kinds

    documents.show(json_schema(kinds()))


def _examined(context: typer.Context, config: ConfigOption) -> tuple[Examined, Found]:
    from ..config.document import read
    from ..config.examine import examine
    from ..config.load import find
    from ..runtime.registry import kinds

    found = find(config or settings(context).config)
    return examine(read(found.path), kinds(), os.environ), found


def _document(error: HoldfastError) -> dict[str, str]:
    return {"code": error.code, "message": str(error), "hint": error.hint}
