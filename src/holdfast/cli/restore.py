"""``holdfast restore``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qsl, urlsplit

import typer

from ..errors import NotConfirmed, ReferencesBroken, UnknownName, UsageInvalid
from ..i18n import _
from ..model.names import LATEST
from . import documents, text
from .common import (
    ComponentOption,
    ConfigOption,
    DryRunOption,
    JsonOption,
    ProgressOption,
    VaultOption,
    YesOption,
    confirmed,
    observer,
    open_session,
    pass_over_interrupts,
    quiet,
)

if TYPE_CHECKING:
    from ..runtime.restores import RestorePlan, RestoreReport


_SECRET = re.compile(r"passw|secret|token|key$|signature", re.IGNORECASE)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(restore)


def restore(
    context: typer.Context,
    backup: Annotated[
        str,
        typer.Argument(metavar="BACKUP", help=_("An id, latest or latest-verified.")),
    ] = LATEST,
    *,
    component: ComponentOption = None,
    vault: VaultOption = None,
    at: Annotated[
        str, typer.Option(metavar="TIME", help=_("The newest good backup not later than this."))
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|NAME=URL",
            help=_(
                "Write DIR/<component>/ instead of the live stores, or one component to another"
                " place; repeatable."
            ),
        ),
    ] = None,
    discard: Annotated[
        bool, typer.Option("--discard", help=_("Do not keep what is replaced in the state folder."))
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Restore the stack, or some of it, as one transaction: all of it, or nothing."""
    from ..runtime import restores

    session = open_session(context, config)
    folder, elsewhere = _targets(target or [], session.stack.components)
    order = restores.RestoreOrder(
        backup=backup,
        components=tuple(component or ()),
        vaults=tuple(vault or ()),
        at=_instant(at, backup) if at else None,
        target=folder,
        elsewhere=elsewhere,
        keep_replaced=not discard,
    )
    plan = restores.plan_restore(session, order)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return
    restores.refuse_occupied(session, plan)
    if not (as_json or quiet(context)):
        _show_plan(plan, as_json=False)
    if plan.replaces and not confirmed(
        _("This replaces what is there now."), yes=yes, word=session.stack.name
    ):
        raise NotConfirmed(what=f"restore {plan.listed.manifest.id}")
    heard = observer(context, as_json=as_json, progress=progress)
    report = restores.execute_restore(session, plan, heard)
    pass_over_interrupts()
    if as_json:
        documents.show(documents.restore_report(report))
    elif not quiet(context):
        _show(report)
    if report.result.violations:
        problems = "; ".join(str(violation) for violation in report.result.violations)
        broken = ReferencesBroken(problems=problems)
        if not as_json:
            raise broken
        typer.echo(f"holdfast: {broken}", err=True)  # the document is printed, and has them all
        raise typer.Exit(broken.exit_status)


def _targets(words: Sequence[str], known: Collection[str]) -> tuple[Path | None, dict[str, str]]:
    """Tell ``NAME=URL`` from a folder, whose name may have an ``=`` in it too."""
    folder, elsewhere = None, {}
    for word in words:
        name, equals, url = word.partition("=")
        if equals and name in known:
            _refuse_password(url)
            if name in elsewhere:
                raise UsageInvalid(
                    problem=_("--target names two places for {name}").format(name=name)
                )
            elsewhere[name] = url
        elif equals and "://" in url:
            listed = ", ".join(known)
            raise UnknownName(what="component", name=name, known=listed)
        elif folder is None:
            folder = Path(word)
        else:
            problem = _("--target names two folders: {one} and {other}")
            raise UsageInvalid(problem=problem.format(one=folder, other=word))
    return folder, elsewhere


def _refuse_password(url: str) -> None:
    """Everybody on the machine can read a command line, and the journal keeps the URL."""
    try:
        parts = urlsplit(url)
        secret = parts.password or any(map(_SECRET.search, dict(parse_qsl(parts.query))))
    except ValueError:  # not chained: it may quote what it could not read
        raise UsageInvalid(problem=_("--target: what follows the = is not a URL")) from None
    if secret:
        raise UsageInvalid(
            problem=_(
                "--target: a password does not belong on the command line: the one that is"
                " configured for the component is used"
            )
        )


def _instant(word: str, backup: str) -> datetime:
    if backup not in {LATEST, "latest-verified"}:
        raise UsageInvalid(problem=_("--at chooses a backup: it does not go with an id"))
    try:
        instant = datetime.fromisoformat(word)
    except ValueError:
        problem = _("{word} is not a time such as 2026-02-04T12:00").format(word=word)
        raise UsageInvalid(problem=problem) from None
    return instant.astimezone()


def _show_plan(plan: RestorePlan, *, as_json: bool) -> None:
    if as_json:
        documents.show({"dry_run": True, **documents.restore_plan(plan)})
        return
    manifest = plan.listed.manifest
    made = text.moment(manifest.created_at)
    text.say(_("restore {id}, made {made}:").format(id=manifest.id, made=made))
    rows = []
    for change in plan.changes:
        name = change.component
        for what, now, then in text.changes(change.now, change.then):
            rows.append((name, what, now, then))
            name = ""
        rows += [("", note, "", "") for note in change.now.notes]
        rows += [("", _("in use by {user}").format(user=user), "", "") for user in change.occupants]
    text.table((_("component"), _("what"), _("now"), _("after")), rows)


def _show(report: RestoreReport) -> None:
    names = ", ".join(report.result.facts)
    done = _("restored {names} from {id} in {seconds}; every count is as it was backed up")
    seconds = text.duration(report.seconds)
    text.say(done.format(names=names, id=report.backup, seconds=seconds))
    for name, place in report.result.kept.items():
        text.say(_("what was there before: {name} in {place}").format(name=name, place=place))
