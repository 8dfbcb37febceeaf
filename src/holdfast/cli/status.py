"""``holdfast status``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ..errors import FAILED, OK
from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, open_session

if TYPE_CHECKING:
    from ..runtime.reports import PlanStatus, Status, VaultStatus


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show how the stack stands: newest backups, promises kept or not, what runs and what ran."""
    from ..runtime.reports import status as look

    found = look(open_session(context, config))
    if as_json:
        documents.show(_document(found))
    else:
        _show(found)
    raise typer.Exit(OK if found.well else FAILED)


def _document(found: Status) -> dict[str, object]:
    return {
        "stack": found.stack,
        "well": found.well,
        "vaults": [
            {
                "vault": v.vault,
                "backups": v.backups,
                "good": v.good,
                "bytes": v.bytes,
                "newest": v.newest and documents.backup_row(v.newest),
                "newest_verified": v.newest_verified and documents.backup_row(v.newest_verified),
                "damaged": list(v.damaged),
                "problem": v.problem,
            }
            for v in found.vaults
        ],
        "plans": [
            {
                "plan": p.plan,
                "newest": p.newest and p.newest.id,
                "age_seconds": p.age,
                "rpo_seconds": p.rpo,
                "late": p.late,
            }
            for p in found.plans
        ],
        "running": found.running and documents.plain(found.running),
        "unfinished": list(found.unfinished),
        "runs": [documents.plain(run) for run in found.recent],
        "replaced": list(found.replaced),
        "problem": found.problem,
    }


def _show(found: Status) -> None:
    text.say(_("stack {name}").format(name=found.stack))
    for run in found.unfinished:
        text.say(_("INTERRUPTED: restore {run}: run `holdfast recover`").format(run=run))
    if found.running:
        holder = found.running
        text.say(_("running: {verb}, {who}").format(verb=holder.verb, who=holder))
    text.table(
        (_("vault"), _("good"), _("size"), _("newest"), _("newest verified")),
        [_vault(vault) for vault in found.vaults],
    )
    for vault in found.vaults:
        for line in filter(None, [vault.problem, *(f"damaged: {d}" for d in vault.damaged)]):
            text.say(f"{vault.vault}: {line}")
    if found.plans:
        heads = (_("plan"), _("newest"), _("age"), _("promised"), _("state"))
        text.table(heads, [_plan(plan) for plan in found.plans])
    if found.recent:
        text.table(
            (_("run"), _("verb"), _("state"), _("when"), _("of")),
            [
                (r.id, r.verb, r.error_text or r.state, text.moment(r.started_at), r.backup)
                for r in found.recent
            ],
        )
    for place in found.replaced:
        text.say(_("kept from before a restore: {place}").format(place=place))
    if found.problem:
        text.say(found.problem)


def _vault(vault: VaultStatus) -> tuple[str, ...]:
    newest, verified = vault.newest, vault.newest_verified
    return (
        vault.vault,
        f"{vault.good}/{vault.backups}",
        text.size(vault.bytes),
        text.moment(newest.manifest.created_at) if newest else "-",
        text.moment(verified.manifest.created_at) if verified else "-",
    )


def _plan(plan: PlanStatus) -> tuple[str, ...]:
    return (
        plan.plan,
        plan.newest.id if plan.newest else "-",
        text.duration(plan.age),
        text.duration(plan.rpo),
        _("LATE") if plan.late else _("kept"),
    )
