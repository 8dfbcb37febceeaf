"""``holdfast init`` and ``holdfast discover``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..i18n import _
from . import documents, text
from .common import JsonOption

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help=_("Where to look."))]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(discover)


def init(
    folder: FolderArgument = Path(),
    *,
    force: Annotated[
        bool, typer.Option("--force", help=_("Replace a configuration that is there."))
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a commented holdfast.yaml for the stores that are found in a folder."""
    from ..config import init as configuration
    from ..runtime.registry import discoveries, kinds, unread

    configuration.refuse_existing(folder, force=force)
    found = discoveries(folder)
    done = configuration.init(folder, found, kinds(), unread=unread(folder), force=force)
    if as_json:
        documents.show(done.document)
        return
    text.say(done.summary)
    text.say(_("wrote {path}").format(path=done.path))
    text.say(done.hint)


def discover(folder: FolderArgument = Path(), *, as_json: JsonOption = False) -> None:
    """Show which stores are found in a folder, and write nothing."""
    from ..config.discover import document, propose, render
    from ..runtime.registry import discoveries, unread

    proposal = propose(discoveries(folder), folder, unread(folder))
    if as_json:
        documents.show(document(proposal))
    else:
        text.say(render(proposal).rstrip())
