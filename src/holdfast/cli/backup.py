"""``holdfast backup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OK, PARTIAL, VERIFICATION_FAILED
from ..i18n import _
from . import documents, text
from .common import (
    ComponentOption,
    ConfigOption,
    DryRunOption,
    JsonOption,
    ProgressOption,
    VaultOption,
    observer,
    open_session,
    pass_over_interrupts,
    quiet,
)

if TYPE_CHECKING:
    from ..runtime.backups import BackupOrder, BackupReport
    from ..runtime.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(backup)


def backup(
    context: typer.Context,
    plan: Annotated[str | None, typer.Argument(help=_("A plan of the configuration."))] = None,
    *,
    component: ComponentOption = None,
    vault: VaultOption = None,
    description: Annotated[str, typer.Option(help=_("A few words to find it by."))] = "",
    evidence: Annotated[
        bool, typer.Option("--evidence", help=_("Copy damaged stores as they are, marked so."))
    ] = False,
    verify: Annotated[
        str, typer.Option(metavar="LEVEL", help=_("Verify afterwards: checksums or native."))
    ] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Back up the stack as one recovery point: all of it, or what a plan names."""
    from ..runtime import backups
    from .verify import level_of

    if verify:
        level_of(verify)
    session = open_session(context, config)
    order = backups.BackupOrder(
        plan, tuple(component or ()), tuple(vault or ()), description, evidence, verify
    )
    if dry_run:
        _show_plan(session, order, as_json=as_json)
        return
    report = backups.backup(session, order, observer(context, as_json=as_json, progress=progress))
    pass_over_interrupts()
    if as_json:
        documents.show(documents.backup_report(report))
    elif _status(report) != OK or not quiet(context):
        _show(report)
    raise typer.Exit(_status(report))


def _status(report: BackupReport) -> int:
    if not (report.result.complete and report.manifest.good):
        return PARTIAL
    return VERIFICATION_FAILED if report.unproven else OK


def _verdict(report: BackupReport) -> str:
    if report.manifest.good:
        return _("complete") if report.result.complete else _("complete, BUT NOT IN EVERY VAULT")
    if report.result.failures:
        return _("PARTIAL: not a good backup")
    return _("EVIDENCE OF DAMAGE: not a good backup")


def _show_plan(session: Session, order: BackupOrder, *, as_json: bool) -> None:
    from ..runtime.backups import backup_request

    request = backup_request(session, order)
    probes = {source.name: source.probe() for source in request.sources}
    if as_json:
        documents.show(
            {
                "dry_run": True,
                "components": probes,
                "vaults": [vault.name for vault in request.vaults],
            }
        )
        return
    rows = [
        (name, _("yes") if p.reachable else "; ".join(p.problems) or _("no"), text.size(p.size))
        for name, p in probes.items()
    ]
    text.table((_("component"), _("can be backed up"), _("size")), rows)
    vaults = ", ".join(vault.name for vault in request.vaults)
    text.say(_("would be backed up to: {vaults}; nothing was done").format(vaults=vaults))


def _show(report: BackupReport) -> None:
    manifest = report.manifest
    rows = [
        (
            c.name,
            c.source,
            _("failed: {error}").format(error=c.error) if c.error else text.counts(c.facts),
        )
        for c in manifest.components
    ]
    text.table((_("component"), _("kind"), _("holds")), rows)
    text.say(
        _("{id}: {whole}, {size} in {seconds}, skew {skew:.2f} s, in {vaults}").format(
            id=manifest.id,
            whole=_verdict(report),
            size=text.size(manifest.size),
            seconds=text.duration(report.seconds),
            skew=manifest.skew_seconds,
            vaults=", ".join(report.result.sealed),
        )
    )
    for name, error in report.result.lost_vaults.items():
        text.say(_("not in {vault}: {error}").format(vault=name, error=error))
    for name, proof in report.proofs.items():
        verdict = _("verified") if proof.passed else _("NOT VERIFIED")
        text.say(f"{verdict} ({proof.level}) {name} {'; '.join(proof.problems)}".rstrip())
    for name, gone in report.pruned.items():
        if gone:
            deleted = ", ".join(gone)
            text.say(_("pruned from {vault}: {ids}").format(vault=name, ids=deleted))
