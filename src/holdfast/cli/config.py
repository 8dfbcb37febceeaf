"""``holdfast config``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from ..errors import OK, USAGE
from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, settings

if TYPE_CHECKING:
    from ..config.examine import Examined
    from ..config.load import Found


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help=_("The configuration file: check it, show it, describe its form."))
    group.command()(validate)
    group.command()(show)
    group.command()(schema)
    app.add_typer(group, name="config")


def validate(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Check the configuration file, and say everything that is wrong with it."""
    found, examined = _examine(context, config)
    problems = [*examined.problems, *examined.missing]
    if as_json:
        rows = [{"code": p.code, "message": str(p), "hint": p.hint} for p in problems]
        documents.show({"config": found.path, "valid": not problems, "problems": rows})
    else:
        for problem in problems:
            text.say(str(problem))
            text.say(f"  {_('hint')}: {problem.hint}")
        if not problems:
            text.say(_("{path} is valid").format(path=found.path))
    raise typer.Exit(USAGE if problems else OK)


def show(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Print every value in force and where it comes from; secrets are masked."""
    from ..config import show as shown

    found, examined = _examine(context, config)
    values = shown.settings(examined, found)
    if as_json:
        documents.show({"settings": shown.documents(values)})
    else:
        text.say(shown.render(values).rstrip())


def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    from ..config.reference import json_schema
    from ..runtime.registry import kinds

    documents.show(json_schema(kinds()))


def _examine(context: typer.Context, config: ConfigOption) -> tuple[Found, Examined]:
    from ..config.document import read
    from ..config.examine import examine
    from ..config.load import find
    from ..runtime.registry import kinds

    found = find(config or settings(context).config)
    return found, examine(read(found.path), kinds(), os.environ)
