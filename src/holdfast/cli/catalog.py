"""``holdfast catalog``."""

from __future__ import annotations

import typer

from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, open_session


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(help=_("The history of runs; the vaults' manifests stay the truth."))
    group.callback()(_group)
    group.command()(rebuild)
    app.add_typer(group, name="catalog")


def _group() -> None:
    """Keep the group a group: with one command alone, Typer would fold it away."""


def rebuild(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Restore the history from the manifests in the vaults; a damaged catalog is set aside."""
    from ..runtime.history import rebuild_catalog

    result = rebuild_catalog(open_session(context, config))
    if as_json:
        documents.show(documents.plain(result))
        return
    text.say(_("{count} backups known again").format(count=result.backups))
    if result.aside:
        text.say(_("the old catalog lies in {place}").format(place=result.aside))
