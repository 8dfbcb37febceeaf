"""``holdfast list`` and ``holdfast show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..i18n import _
from ..model.names import LATEST
from . import documents, text
from .common import ConfigOption, JsonOption, VaultOption, open_session

if TYPE_CHECKING:
    from ..verbs.select import Listed, Listing

BackupArgument = Annotated[
    str, typer.Argument(metavar="BACKUP", help=_("An id, latest or latest-verified."))
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(list_backups)
    app.command("show")(show)


def list_backups(
    context: typer.Context,
    *,
    vault: VaultOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the backups of this stack, oldest first."""
    listings = open_session(context, config).listings(vault)
    if as_json:
        documents.show(
            {
                "backups": [documents.backup_row(b) for li in listings for b in li.backups],
                "damaged": [
                    {"id": d.id, "vault": li.vault.name, "reason": d.reason}
                    for li in listings
                    for d in li.damaged
                ],
            }
        )
        return
    _show_list(listings)


def _show_list(listings: list[Listing]) -> None:
    rows = [_row(listed) for listing in listings for listed in listing.backups]
    if rows:
        heads = (_("backup"), _("made"), _("size"), _("components"), _("state"), _("vault"))
        text.table(heads, rows)
    else:
        text.say(_("no backups yet: `holdfast backup` makes one"))
    for listing in listings:
        for damaged in listing.damaged:
            text.say(
                _("damaged: {id} in {vault}: {reason}").format(
                    id=damaged.id, vault=listing.vault.name, reason=damaged.reason
                )
            )


def _row(listed: Listed) -> tuple[str, ...]:
    manifest = listed.manifest
    names = ", ".join(c.name for c in manifest.components if c.status == "completed")
    return (
        manifest.id,
        text.moment(manifest.created_at),
        text.size(manifest.size),
        names,
        _state(listed),
        listed.vault.name,
    )


def _state(listed: Listed) -> str:
    words = [_("complete") if listed.manifest.good else _("partial")]
    if any(component.evidence for component in listed.manifest.components):
        words = [_("evidence of damage")]
    if listed.marks.verified:
        words.append(_("verified ({level})").format(level=listed.marks.verified))
    if listed.marks.failed:
        words = [_("FAILED VERIFICATION")]
    if listed.marks.pinned is not None:
        words.append(_("pinned"))
    return ", ".join(words)


def show(
    context: typer.Context,
    backup: BackupArgument = LATEST,
    *,
    vault: VaultOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show one backup: what it holds, when each component was copied, what was proved of it."""
    listed = open_session(context, config).find(backup, vault)
    if as_json:
        documents.show(documents.backup_document(listed))
        return
    manifest = listed.manifest
    heading = _("{id} of {stack}, made {made} by Holdfast {version}: {state}")
    text.say(
        heading.format(
            id=manifest.id,
            stack=manifest.stack,
            made=text.moment(manifest.created_at),
            version=manifest.holdfast,
            state=_state(listed),
        )
    )
    if manifest.description:
        text.say(manifest.description)
    components = [
        (c.name, c.source, text.moment(c.instant), c.error or text.counts(c.facts))
        for c in manifest.components
    ]
    text.table((_("component"), _("kind"), _("instant"), _("holds")), components)
    artifacts = [(a.path, text.size(a.size), a.sha256[:16] + "…") for a in manifest.artifacts]
    text.table((_("artifact"), _("size"), "sha256"), artifacts)
    for note in (*manifest.notes, *(n for c in manifest.components for n in c.facts.notes)):
        text.say(_("note: {note}").format(note=note))
    for proof in listed.marks.proofs:
        verdict = _("passed") if proof.passed else "; ".join(proof.problems)
        text.say(f"{text.moment(proof.at)}  {proof.level}: {verdict}")
