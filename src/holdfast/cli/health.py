"""``holdfast health``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ..errors import FAILED, OK
from ..i18n import _
from . import documents, text
from .common import ConfigOption, JsonOption, open_session

if TYPE_CHECKING:
    from ..model.facts import Probe
    from ..runtime.reports import Health


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
        _show(found)
    raise typer.Exit(OK if found.well else FAILED)


def _show(found: Health) -> None:
    """Print a line for each part, and below it one for everything that is wrong."""
    rows = [_component(name, probe) for name, probe in found.components.items()]
    rows += [(name, problem or _("well")) for name, problem in found.vaults.items()]
    heads = (_("part"), _("state"), _("version"), _("size"), _("tools"), _("rights"))
    text.table(heads, rows)
    for name, probe in found.components.items():
        if probe.reachable:
            for problem in probe.problems:
                text.say(f"{name}: {problem}")
    for problem in found.problems:
        text.say(problem)


def _component(name: str, probe: Probe) -> tuple[str, ...]:
    well = _("reachable, but see below") if probe.problems else _("well")
    return (
        name,
        well if probe.reachable else _("NOT REACHABLE"),
        probe.version,
        text.size(probe.size),
        ", ".join(f"{tool} {version}".rstrip() for tool, version in probe.tools.items()),
        probe.rights,
    )
