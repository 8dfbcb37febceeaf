"""``holdfast verify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OK, VERIFICATION_FAILED, UsageInvalid
from ..i18n import _
from ..model.names import LATEST
from . import documents, text
from .common import (
    ConfigOption,
    JsonOption,
    ProgressOption,
    VaultOption,
    observer,
    open_session,
    quiet,
)

if TYPE_CHECKING:
    from ..model.marks import Level


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    context: typer.Context,
    backup: Annotated[
        str,
        typer.Argument(metavar="BACKUP", help=_("An id, latest, latest-verified, or all.")),
    ] = LATEST,
    *,
    level: Annotated[
        str, typer.Option(metavar="LEVEL", help=_("How thoroughly: checksums or native."))
    ] = "checksums",
    vault: VaultOption = None,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Read a backup as a restore would, and write down what was proved."""
    from ..runtime.upkeep import verify_backups

    chosen = level_of(level)
    session = open_session(context, config)
    heard = observer(context, as_json=as_json, progress=progress)
    done = verify_backups(session, backup, vault or (), chosen, heard)
    if as_json:
        documents.show(
            {
                "verified": [
                    {
                        "id": v.backup,
                        "vault": v.vault,
                        "level": v.proof.level,
                        "passed": v.proof.passed,
                        "problems": v.proof.problems,
                    }
                    for v in done
                ]
            }
        )
    else:
        for v in done:
            if v.proof.passed and quiet(context):
                continue
            verdict = _("passed") if v.proof.passed else _("FAILED")
            text.say(f"{v.backup} ({v.vault}) {level}: {verdict}")
            for problem in v.proof.problems:
                text.say(f"  {problem}")
    raise typer.Exit(OK if all(v.proof.passed for v in done) else VERIFICATION_FAILED)


def level_of(word: str) -> Level:
    """Return the level that a word names; raises `UsageInvalid`."""
    from ..model.marks import Level

    known = (Level.CHECKSUMS, Level.NATIVE)
    if word not in known:
        raise UsageInvalid(problem=_("{word} is not checksums or native").format(word=word))
    return Level(word)
