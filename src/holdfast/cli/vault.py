"""``holdfast vault``: the places where backups rest."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FAILED, UsageInvalid
from ..i18n import _
from . import documents, text, upkeep
from .common import ConfigOption, JsonOption, ProgressOption, observer, open_session, quiet
from .upkeep import Name

PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--new-password-file",
        metavar="FILE",
        help=_("Where the new password stands, in the first line; otherwise it is asked for."),
    ),
]
SHOWN = 8  # characters of a key's name


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help=_("The vaults: make them, look at them, copy between them."))
    group.command()(init)
    group.command("list")(list_vaults)
    group.command()(copy)
    group.command()(unlock)
    upkeep.register(group)
    keys = typer.Typer(help=_("The passwords that open a vault."))
    keys.command("list")(list_keys)
    keys.command("add")(add_key)
    keys.command("remove")(remove_key)
    keys.command("change")(change_password)
    group.add_typer(keys, name="key")
    app.add_typer(group, name="vault")


def init(
    context: typer.Context, name: Name, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Make a vault of a kind that must be made: a repository, with its first key."""
    from ..runtime.vaults import init_vault

    session = open_session(context, config)
    init_vault(session, name, observer(context, as_json=as_json))
    if as_json:
        documents.show({"vault": name})
    elif not quiet(context):
        text.say(_("vault {name} is made").format(name=name))
        text.say(_("keep its password in a second place: without it every backup there is lost"))


def list_vaults(
    context: typer.Context, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """List the vaults, how many backups are there, and what is wrong with them."""
    from ..runtime.vaults import states

    found = states(open_session(context, config))
    if as_json:
        documents.show({"vaults": [documents.plain(one) for one in found]})
    else:
        heads = (_("vault"), _("kind"), _("where"), _("backups"), _("free"), "")
        text.table(
            heads,
            [
                (
                    one.name,
                    one.kind,
                    one.where,
                    "-" if one.problem else str(one.backups),
                    "-" if one.free is None else text.size(one.free),
                    one.problem,
                )
                for one in found
            ],
        )
    if any(one.problem for one in found):
        raise typer.Exit(FAILED)


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help=_("The vault to copy from."))],
    target: Annotated[str, typer.Argument(metavar="TO", help=_("The vault to copy to."))],
    backups: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BACKUP]...", help=_("Only these; without any, all that lack.")),
    ] = None,
    *,
    as_json: JsonOption = False,
    progress: ProgressOption = False,
    config: ConfigOption = None,
) -> None:
    """Copy backups from one vault to another, of whatever kind, checking every byte."""
    from ..runtime.transfer import copy_backups

    session = open_session(context, config)
    heard = observer(context, as_json=as_json, progress=progress)
    copied = copy_backups(session, backups or (), source, target, heard)
    if as_json:
        documents.show({"copied": [manifest.id for manifest in copied]})
        return
    for manifest in [] if quiet(context) else copied:
        text.say(_("{id} copied to {vault}").format(id=manifest.id, vault=target))
    if not copied and not quiet(context):
        text.say(_("{vault} has them all").format(vault=target))


def unlock(
    context: typer.Context,
    name: Name,
    *,
    everything: Annotated[
        bool,
        typer.Option("--all", help=_("Those of others too; make sure that nobody is at work.")),
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove locks that nobody holds any more."""
    from ..runtime.vaults import unlock as unlock_vault

    session = open_session(context, config)
    heard = observer(context, as_json=as_json)
    removed = unlock_vault(session, name, heard, everything=everything)
    if as_json:
        documents.show({"removed": list(removed)})
    elif not quiet(context):
        for one in removed:
            text.say(_("removed the lock of {holder}").format(holder=one))
        if not removed:
            text.say(_("there was none"))


def list_keys(
    context: typer.Context, name: Name, *, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """List the keys; the one that the configuration's password opens is marked."""
    from ..runtime.vaults import keys_of

    found = keys_of(open_session(context, config), name)
    if as_json:
        documents.show({"keys": [documents.plain(key) for key in found]})
        return
    heads = (_("key"), _("made"), _("by"), "")
    rows = [
        (
            key.name[:SHOWN],
            key.created[:19],
            f"{key.username}@{key.hostname}",
            _("in use") if key.current else "",
        )
        for key in found
    ]
    text.table(heads, rows)


def add_key(
    context: typer.Context,
    name: Name,
    *,
    password_file: PasswordFile = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let another password open a vault."""
    from ..runtime.vaults import add_key as add
    from ..runtime.vaults import guarded

    session = open_session(context, config)
    guarded(session, name)  # before anybody is asked for a password
    key = add(session, name, _password(password_file), observer(context, as_json=as_json))
    _told(context, key, _("key {key} is added"), as_json=as_json)


def remove_key(
    context: typer.Context,
    name: Name,
    key: Annotated[str, typer.Argument(metavar="KEY", help=_("What its name begins with."))],
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Take a password away. Whoever had opened the vault with it may still know its inner key."""
    from ..runtime.vaults import remove_key as remove

    session = open_session(context, config)
    remove(session, name, key, observer(context, as_json=as_json))
    _told(context, key, _("key {key} is removed"), as_json=as_json)


def change_password(
    context: typer.Context,
    name: Name,
    *,
    password_file: PasswordFile = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Put another password in the place of the configuration's; then change it there, too."""
    from ..runtime.vaults import change_password as change
    from ..runtime.vaults import guarded

    session = open_session(context, config)
    guarded(session, name)
    key = change(session, name, _password(password_file), observer(context, as_json=as_json))
    _told(context, key, _("key {key} takes the place of the old one"), as_json=as_json)


def _told(context: typer.Context, key: str, said: str, *, as_json: bool) -> None:
    if as_json:
        documents.show({"key": key})
    elif not quiet(context):
        text.say(said.format(key=key[:SHOWN]))


def _password(file: Path | None) -> str:
    """Return a new password: from a file, from a person twice, or from standard input."""
    if file is not None:
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageInvalid(problem=f"{file} cannot be read: {error}") from error
        password = lines[0] if lines else ""
    elif sys.stdin.isatty():
        password = typer.prompt(_("New password"), hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise UsageInvalid(problem=_("the new password is empty"))
    return password
