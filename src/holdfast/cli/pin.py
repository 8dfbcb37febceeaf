"""``holdfast pin`` and ``holdfast unpin``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, VaultOption, observer, open_session, quiet

if TYPE_CHECKING:
    from ..verbs.select import Listed

BackupArgument = Annotated[
    str, typer.Argument(metavar="BACKUP", help=_("An id, latest or latest-verified."))
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pin)
    app.command()(unpin)


def pin(
    context: typer.Context,
    backup: BackupArgument,
    reason: Annotated[str, typer.Option(help=_("Why it is kept."))] = "",
    *,
    vault: VaultOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Keep a backup for ever: no policy deletes it."""
    _set(context, config, backup, vault, reason or _("by hand"), as_json=as_json)


def unpin(
    context: typer.Context,
    backup: BackupArgument,
    *,
    vault: VaultOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let a pinned backup go the way of the others again."""
    _set(context, config, backup, vault, None, as_json=as_json)


def _set(
    context: typer.Context,
    config: ConfigOption,
    backup: str,
    vault: VaultOption,
    reason: str | None,
    *,
    as_json: bool,
) -> None:
    from ..runtime.upkeep import pin as set_pin

    session = open_session(context, config)
    heard = observer(context, as_json=as_json)
    changed: list[Listed] = set_pin(session, backup, vault or (), reason, heard)
    if as_json:
        documents.show({"backups": [documents.backup_row(listed) for listed in changed]})
        return
    for listed in [] if quiet(context) else changed:
        pinned = listed.marks.pinned
        state = _("not pinned") if pinned is None else _("pinned: {why}").format(why=pinned)
        text.say(f"{listed.manifest.id} ({listed.vault.name}): {state}")
