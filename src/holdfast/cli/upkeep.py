"""``holdfast vault prune``, ``check`` and ``repair``: what keeps a repository small and sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import VERIFICATION_FAILED
from ..i18n import _
from . import documents, text
from .common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    ProgressOption,
    observer,
    open_session,
    quiet,
)

if TYPE_CHECKING:
    from ..model.upkeep import Checked, Pruned
    from ..runtime.vaults import Repaired

Name = Annotated[str, typer.Argument(metavar="NAME", help=_("A vault of the configuration."))]
LISTED = 50  # lines of problems that people are shown; JSON has them all


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(prune)
    group.command()(check)
    group.command()(repair)


def prune(
    context: typer.Context,
    name: Name,
    *,
    tolerate: Annotated[
        float,
        typer.Option(
            min=0, max=100, metavar="PERCENT", help=_("How much may be left that nothing needs.")
        ),
    ] = 5.0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove from a repository what no backup needs any more."""
    from ..runtime.vaults import prune_vault

    session = open_session(context, config)
    heard = observer(context, as_json=as_json, progress=progress)
    done = prune_vault(session, name, heard, tolerated=tolerate / 100, dry_run=dry_run)
    if as_json:
        documents.show({"vault": name, "dry_run": dry_run} | documents.plain(done))
    elif not quiet(context):
        _tell_pruned(done, dry_run=dry_run)


def _tell_pruned(done: Pruned, *, dry_run: bool) -> None:
    said = _("{used} needed by {snapshots} snapshots, {unused} by none")
    used, unused = text.size(done.used), text.size(done.unused)
    text.say(said.format(used=used, snapshots=done.snapshots, unused=unused))
    freed = _("{freed} would be freed") if dry_run else _("{freed} freed")
    moved = _("{packs} packs with {size} moved for that")
    text.say(
        f"{freed.format(freed=text.size(done.freed))}, "
        f"{moved.format(packs=done.repacked_packs, size=text.size(done.repacked))}"
    )
    if done.held:
        held = _("{count} packs stay for as long as their object lock holds")
        text.say(held.format(count=len(done.held)))


def check(
    context: typer.Context,
    name: Name,
    *,
    days: Annotated[
        int | None,
        typer.Option(min=1, help=_("Read only what is due today, so that all is in so many days.")),
    ] = None,
    data: Annotated[
        bool, typer.Option("--data/--no-data", help=_("Whether the data are read at all."))
    ] = True,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Look whether a repository is whole: everything it consists of, whatever backups it is of."""
    from ..runtime.vaults import check_vault

    session = open_session(context, config)
    heard = observer(context, as_json=as_json, progress=progress)
    found = check_vault(session, name, heard, days=days, data=data)
    if as_json:
        documents.show({"vault": name, "sound": found.sound} | documents.plain(found))
    else:
        _tell_checked(found, said_nothing=quiet(context))
    raise typer.Exit(0 if found.sound else VERIFICATION_FAILED)


def _tell_checked(found: Checked, *, said_nothing: bool) -> None:
    for problem in found.problems[:LISTED]:
        text.say(problem)
    more = len(found.problems[LISTED:]) + found.more
    if more:
        text.say(_("and {count} more").format(count=more))
    if said_nothing:
        return
    for hint in found.hints[:LISTED]:
        text.say(f"{_('hint')}: {hint}")
    said = _("{snapshots} snapshots, {packs} packs, {read} read: {result}")
    result = _("sound") if found.sound else _("NOT SOUND; `holdfast vault repair` keeps the rest")
    read = text.size(found.bytes_read)
    snapshots, packs = found.snapshots, found.packs
    text.say(said.format(snapshots=snapshots, packs=packs, read=read, result=result))


def repair(
    context: typer.Context,
    name: Name,
    *,
    write: Annotated[
        bool, typer.Option("--write", help=_("Store what is left of damaged backups beside them."))
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help=_("With --write: then remove the damaged ones."))
    ] = False,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Repair a repository after damage: keep all that is sound, and say what backups lost."""
    from ..runtime.vaults import repair_vault

    session = open_session(context, config)
    heard = observer(context, as_json=as_json, progress=progress)
    done = repair_vault(session, name, heard, write=write, forget=forget)
    whole = not done.snapshots.losses
    if as_json:
        documents.show({"vault": name} | documents.plain(done))
    else:
        _tell_repaired(done)
    raise typer.Exit(0 if whole else VERIFICATION_FAILED)


def _tell_repaired(done: Repaired) -> None:
    said = _("{packs} packs listed anew; {damaged} were damaged: {moved} blobs saved, {lost} lost")
    packs = done.packs
    damaged = len(packs.damaged)
    text.say(
        said.format(packs=done.index.packs, damaged=damaged, moved=packs.moved, lost=packs.lost)
    )
    losses = done.snapshots.losses
    for loss in losses[:LISTED]:
        backup, path = loss.backup or loss.snapshot[:8], loss.path or _("all of it")
        text.say(f"{backup}: {path}: {loss.reason}")
    more = len(losses[LISTED:]) + done.snapshots.more
    if more:
        text.say(_("and {count} more").format(count=more))
    for backup, repaired in done.snapshots.backups.items():
        left = _("what is left of {backup} is {repaired}")
        text.say(left.format(backup=backup, repaired=repaired))
    if not losses:
        text.say(_("no backup lost anything"))
