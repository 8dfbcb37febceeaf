"""``holdfast check``."""

from __future__ import annotations

import typer

from ..errors import OK, VERIFICATION_FAILED
from ..i18n import _
from . import documents, text
from .common import ComponentOption, ConfigOption, JsonOption, observer, open_session, quiet


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(check)


def check(
    context: typer.Context,
    *,
    component: ComponentOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Check the live stores: their integrity, and the assertions of the configuration."""
    from ..runtime.upkeep import check_live

    session = open_session(context, config)
    around = session.surroundings(observer(context, as_json=as_json))
    report = check_live(session, component or (), around)
    if as_json:
        documents.show({**documents.plain(report), "passed": not report.problems})
    else:
        for problem in report.problems:
            text.say(problem)
        if not (report.problems or quiet(context)):
            said = _("{components} components are sound, and {checks} checks hold")
            text.say(said.format(components=len(report.integrity), checks=report.checks))
    raise typer.Exit(VERIFICATION_FAILED if report.problems else OK)
