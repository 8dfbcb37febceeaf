"""``holdfast export`` and ``holdfast import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..i18n import _
from . import documents, text
from .common import (
    ConfigOption,
    JsonOption,
    ProgressOption,
    VaultOption,
    observer,
    open_session,
    quiet,
)
from .pin import BackupArgument


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export")(export)
    app.command("import")(import_backup)


def export(
    context: typer.Context,
    backup: BackupArgument,
    file: Annotated[Path, typer.Argument(help=_("The .tar to write, or - for standard output."))],
    *,
    vault: VaultOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Write a backup as one .tar: all of it, and what is needed to check it."""
    from ..runtime.transfer import STANDARD, export_backup

    session = open_session(context, config)
    heard = observer(context, as_json=as_json, progress=progress)
    manifest, size = export_backup(session, backup, vault or (), file, heard)
    if file == STANDARD or (quiet(context) and not as_json):
        return
    if as_json:
        documents.show({"id": manifest.id, "file": file, "size": size})
    else:
        said = _("{id} exported to {file}, {size}")
        text.say(said.format(id=manifest.id, file=file, size=text.size(size)))


def import_backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help=_("An exported .tar, or - for standard input."))],
    *,
    vault: Annotated[
        str | None, typer.Option(metavar="NAME", help=_("Where to, if there are several."))
    ] = None,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Take an exported backup in, after checking every byte of it."""
    from ..runtime.transfer import import_backup as take

    session = open_session(context, config)
    manifest = take(session, file, vault, observer(context, as_json=as_json, progress=progress))
    if as_json:
        documents.show({"id": manifest.id})
    elif not quiet(context):
        text.say(_("{id} imported").format(id=manifest.id))
