"""``holdfast init`` and ``holdfast discover``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..i18n import _
from . import documents, text
from .common import JsonOption

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help=_("Where to look; this folder by default."))
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(discover)


def init(
    folder: FolderArgument = Path(),
    *,
    force: Annotated[bool, typer.Option("--force", help=_("Replace a file that exists."))] = False,
    as_json: JsonOption = False,
) -> None:
    """Look for stores and write a first holdfast.yaml, explained line by line."""
    from ..config.init import init as initialize
    from ..config.init import refuse_existing
    from ..runtime.discovery import discover as found
    from ..runtime.registry import kinds

    refuse_existing(folder, force=force)  # before a long look around
    made = initialize(folder, found(folder), kinds(), force=force)
    if as_json:
        documents.show(made.document)
        return
    text.say(_("wrote {path}").format(path=made.path))
    text.say(made.summary)
    text.say(made.hint)


def discover(folder: FolderArgument = Path(), *, as_json: JsonOption = False) -> None:
    """Look for stores in a folder, and show what `holdfast init` would propose."""
    from ..config import discover as discovery
    from ..runtime.discovery import discover as found

    proposal = discovery.propose(found(folder), folder)
    if as_json:
        documents.show(discovery.document(proposal))
    else:
        typer.echo(discovery.render(proposal), nl=False)
