"""``holdfast recover``."""

from __future__ import annotations

import typer

from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, observer, open_session, pass_over_interrupts


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(recover)


def recover(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Finish or undo a restore that was interrupted, so that the stack is whole again."""
    from ..runtime.restores import recover_all

    session = open_session(context, config)
    outcomes = recover_all(session, observer(context, as_json=as_json))
    pass_over_interrupts()
    if as_json:
        documents.show({"recovered": outcomes})
        return
    if not outcomes:
        text.say(_("nothing to recover"))
    said = {
        "completed": _("restore {run}: finished; the restored data is live"),
        "rolled_back": _("restore {run}: undone; everything is as it was before"),
    }
    for run, outcome in outcomes.items():
        text.say(said[outcome].format(run=run))
