"""References in values: ``${env:X}``, ``${env:X:-default}``, ``${file:/path}``; ``$${`` is ``${``.

What a reference gives may be a secret. It is read when it is used, stays out of every error and
every ``repr``, and is not interpreted again, neither as YAML nor as a reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigInvalid, SecretMissing
from ..i18n import _
from .document import Document, invalid
from .nodes import KeyPath

LARGEST_SECRET = 1 << 16  # bytes

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<inside>[^{}]*)\}|\$\{")
_INSIDE = re.compile(
    r"env:(?P<env>[A-Za-z_][A-Za-z0-9_]*)(?P<has_default>:-(?P<default>.*))?|file:(?P<file>.+)",
    re.ASCII | re.DOTALL,
)


class Revealed(str):
    """What a reference gave. It works as text everywhere, but is not shown by accident."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a mask: this is what tracebacks and debuggers print."""
        return "'***'"


class _Unreadable(Exception):
    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(reference)
        self.reference, self.reason = reference, reason


def references(text: str) -> tuple[str, ...]:
    """Return the references in a text, without their defaults: ``("${env:X}",)``.

    Raises ``ValueError`` where a ``${`` begins something that is none.
    """
    found = (match for match in _TOKEN.finditer(text) if match[0] != "$${")
    return tuple(_name(_inside(match)) for match in found)


def variable_of(reference: str) -> str:
    """Return the name of the variable that a reference names; empty for one to a file."""
    inside = _INSIDE.fullmatch(reference[2:-1])
    return (inside["env"] or "") if inside else ""


def _inside(match: re.Match[str]) -> re.Match[str]:
    inside = _INSIDE.fullmatch(match["inside"] or "")
    if inside is None:
        raise ValueError(_("has a ${ that begins no reference"))
    return inside


def _name(inside: re.Match[str]) -> str:
    kind = "env" if inside["env"] else "file"
    return f"${{{kind}:{inside[kind]}}}"


@dataclass(frozen=True, slots=True)
class Interpolation:
    """How the references of a document are read. ``environment`` may hold secrets: not shown."""

    document: Document
    environment: Mapping[str, str]

    def __repr__(self) -> str:
        """Return only which file it is for."""
        return f"Interpolation({self.document.path})"

    def reveal(self, keys: KeyPath, value: Any) -> Any:
        """Return the value at a place of the document with every reference in it replaced.

        Raises:
            SecretMissing: what a reference names is not there.
            ConfigInvalid: a reference is malformed.

        """
        if isinstance(value, dict):
            return {key: self.reveal((*keys, key), child) for key, child in value.items()}
        if isinstance(value, list):
            return [self.reveal((*keys, index), child) for index, child in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return self._text(keys, value)
        return value

    def _text(self, keys: KeyPath, text: str) -> str:
        try:
            refers = bool(references(text))
            replaced = _TOKEN.sub(self._replacement, text)
        except ValueError as error:
            raise malformed(self.document.place(keys), error) from error
        except _Unreadable as missing:
            raise SecretMissing(
                place=self.document.place(keys),
                reference=missing.reference,
                reason=missing.reason,
            ) from missing.__cause__
        return Revealed(replaced) if refers else replaced

    def _replacement(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        inside = _inside(match)
        if inside["env"]:
            return self._variable(inside)
        path = self.document.folder / Path(inside["file"])
        return _content(path, _name(inside))

    def _variable(self, inside: re.Match[str]) -> str:
        value = self.environment.get(inside["env"])
        if inside["has_default"] is not None:
            return value or inside["default"]
        if value is None:
            raise _Unreadable(_name(inside), _("the environment variable is not set"))
        return value


def malformed(where: str, error: ValueError) -> ConfigInvalid:
    """Return the error for a text with a ``${`` that begins no reference."""
    advice = _("write ${env:NAME}, ${env:NAME:-default} or ${file:/path}; $${ for ${ itself")
    return invalid(where, error, advice)


def _content(path: Path, reference: str) -> str:
    """Return what a file holds, without the newline that editors put at its end."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_SECRET + 1)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise _Unreadable(reference, reason) from error
    if len(content) > LARGEST_SECRET:
        reason = _("the file is larger than {limit} KiB").format(limit=LARGEST_SECRET >> 10)
        raise _Unreadable(reference, reason)
    try:
        text = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        # Not chained: the error would carry the content.
        raise _Unreadable(reference, _("the file is not UTF-8 text")) from None
    if not text or "\0" in text:
        reason = _("the file has a NUL byte in it") if text else _("the file is empty")
        raise _Unreadable(reference, reason)
    return text
