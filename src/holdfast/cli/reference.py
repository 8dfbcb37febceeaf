"""The reference pages of errors and commands, made from the code by `scripts/reference`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from .. import errors
from .app import app

ERRORS_HEAD = """\
# Errors

<!-- Made from `holdfast.errors` by `scripts/reference`; do not edit by hand. -->

Every failure that Holdfast foresees. It prints one line on standard error, `holdfast: message`, and
a hint; with `--json` also a document `{"error": {"code": …, "message": …, "hint": …}}` on standard
output. Codes are stable. *Retry* says that the same command may succeed a moment later.

| code | exit status | retry | message | hint |
|---|---|---|---|---|
"""

COMMANDS_HEAD = """\
# Commands

<!-- Made from the command line itself by `scripts/reference`; do not edit by hand. -->

`holdfast [--config FILE] [-q|-v] COMMAND …`. Results go to standard output, progress and warnings
to standard error. `latest` and `latest-verified` name backups everywhere. Exit statuses: 0 done,
1 failed, 2 usage or configuration, 3 partial, 10 not found, 11 locked, 20 verification failed,
21 restored but references broken, 22 rolled back, 130 cancelled.
"""


def errors_page() -> str:
    """Return the page of all errors."""
    rows = [
        f"| `{row.code}` | {row.exit_status} | {'yes' if row.retryable else ''} "
        f"| {_cell(row.message)} | {_cell(row.hint_text)} |\n"
        for row in errors.table()
    ]
    return ERRORS_HEAD + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("{{", "{").replace("}}", "}").replace("|", "\\|")


def commands_page() -> str:
    """Return the page of all commands."""
    return COMMANDS_HEAD + "".join(_sections(typer.main.get_command(app), "holdfast"))


def _sections(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield _section(command, path)
        return
    for name, child in children.items():
        yield from _sections(child, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    words = [path, *(_word(argument) for argument in arguments)]
    lines = [f"\n## `{' '.join(words)}`\n", f"{command.help}\n"]
    lines += [f"- `{_word(argument)}`: {_help(argument)}" for argument in arguments]
    lines += [
        f"- `{', '.join(option.opts)}`{_value(option)}: {_help(option)}" for option in options
    ]
    return "\n".join(lines) + "\n"


def _word(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[]").upper()
    return name if argument.required else f"[{name}]"


def _value(option: Any) -> str:
    if option.is_flag or option.count:
        return ""
    return f" `{option.metavar or option.name.upper()}`"


def _help(parameter: Any) -> str:
    text = re.sub(r"\s+", " ", parameter.help or "").strip()
    default = parameter.default
    shown = isinstance(default, str) and default != ""
    return f"{text} Default: `{default}`." if shown else text
