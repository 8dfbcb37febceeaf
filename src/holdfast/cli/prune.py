"""``holdfast prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import NotConfirmed
from ..i18n import _
from . import documents, text
from .common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    VaultOption,
    YesOption,
    confirmed,
    observer,
    open_session,
    quiet,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..verbs.prune import Pruning


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(prune)


def prune(
    context: typer.Context,
    plan: Annotated[
        str | None, typer.Argument(help=_("The plan whose `keep` decides; the only one if one."))
    ] = None,
    *,
    vault: VaultOption = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Delete the backups that a plan does not keep; never the newest good one, nor a pinned one."""
    from ..runtime.upkeep import execute_prune, not_freed, plan_prune

    session = open_session(context, config)
    prunings = plan_prune(session, plan, vault or ())
    doomed = sum(len(pruning.doomed) for pruning in prunings)
    if not (as_json or quiet(context)):
        _show(prunings)
    gone: dict[str, list[str]] = {}
    if not dry_run:
        question = _("{count} backups will be deleted.").format(count=doomed)
        if doomed and not confirmed(question, yes=yes, word=session.stack.name):
            raise NotConfirmed(what="prune")
        gone = execute_prune(session, prunings, observer(context, as_json=as_json))
    if as_json:
        documents.show({"dry_run": dry_run, "decisions": _decisions(prunings), "deleted": gone})
    elif dry_run:
        text.say(_("{count} would be deleted; nothing was done").format(count=doomed))
    elif not quiet(context):
        text.say(_("{count} deleted").format(count=sum(len(ids) for ids in gone.values())))
        for name in not_freed(prunings, gone):
            later = _("{vault}: what they held goes with `holdfast vault prune {vault}`")
            text.say(later.format(vault=name))


def _decisions(prunings: Sequence[Pruning]) -> list[dict[str, object]]:
    return [
        {
            "vault": pruning.listing.vault.name,
            "id": decision.id,
            "kept": decision.kept,
            "reasons": list(decision.reasons),
        }
        for pruning in prunings
        for decision in pruning.decisions
    ]


def _show(prunings: Sequence[Pruning]) -> None:
    rows = [
        (
            decision.id,
            pruning.listing.vault.name,
            _("keep") if decision.kept else _("delete"),
            ", ".join(decision.reasons),
        )
        for pruning in prunings
        for decision in pruning.decisions
    ]
    text.table((_("backup"), _("vault"), _("decision"), _("because")), rows)
