"""``holdfast audit``."""

from __future__ import annotations

import json
from datetime import datetime

import typer

from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, open_session


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help=_("The audit trail: who did what, when, chained by hash."))
    group.command()(verify)
    group.command("list")(list_entries)
    app.add_typer(group, name="audit")


def verify(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Check that no entry was changed, moved or removed."""
    from ..runtime.history import audit_trail

    with audit_trail(open_session(context, config)) as trail:
        count = trail.verify()
    if as_json:
        documents.show({"entries": count, "intact": True})
    else:
        text.say(_("{count} entries, unbroken").format(count=count))


def list_entries(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show the newest entries, oldest first."""
    from ..runtime.history import audit_trail

    with audit_trail(open_session(context, config)) as trail:
        entries = trail.entries()
    if as_json:
        rows = [{**documents.plain(e), "details": json.loads(e.details)} for e in entries]
        documents.show({"entries": rows})
        return
    text.table(
        ("#", _("when"), _("who"), _("what"), _("of"), _("outcome")),
        [
            (
                str(e.number),
                text.moment(datetime.fromisoformat(e.at)),
                f"{e.user}@{e.host}",
                e.verb,
                e.subject,
                e.outcome,
            )
            for e in entries
        ],
    )
