"""``holdfast health``."""

from __future__ import annotations

import typer

from ..errors import FAILED, OK
from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, open_session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(health)


def health(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show whether every component and vault can be reached: whether a backup could run now."""
    from ..runtime.reports import health as look

    found = look(open_session(context, config))
    if as_json:
        documents.show({**documents.plain(found), "well": found.well})
    else:
        rows = [
            (
                name,
                _("well") if p.reachable else _("NOT REACHABLE"),
                p.version,
                text.size(p.size),
                "; ".join((*(f"{t} {v}" for t, v in p.tools.items()), *p.problems)),
            )
            for name, p in found.components.items()
        ]
        rows += [(name, problem or _("well"), "", "", "") for name, problem in found.vaults.items()]
        text.table((_("part"), _("state"), _("version"), _("size"), _("remarks")), rows)
        for problem in found.problems:
            text.say(problem)
    raise typer.Exit(OK if found.well else FAILED)
