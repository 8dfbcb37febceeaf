"""Names: of backups, components and artifacts; and the paths that are made from them.

Everything that comes from a file, an archive or a command line passes through here before it
becomes a path, so that no name ever leads out of its folder.
"""

from __future__ import annotations

import re
from datetime import datetime
from string import Formatter
from typing import TYPE_CHECKING

from holdfast.errors import UnsafeName

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

LONGEST_NAME = 200  # bytes; file systems allow 255, and drafts add a suffix
TIMESTAMP = "%Y%m%d_%H%M%S"
LATEST = "latest"
LATEST_VERIFIED = "latest-verified"
RESERVED_IDS = frozenset({LATEST, LATEST_VERIFIED, "manifests"})

_SPACE = re.compile(r"\s")


def safe_name(name: str, what: str) -> str:
    """Return ``name`` if it may be one part of a path and one word of a command line.

    Raises:
        UnsafeName: it is empty, too long, hidden, starts with a dash, or has a separator,
            white space or a control character in it.

    """
    reason = _reason_against(name)
    if reason:
        raise UnsafeName(what=what, name=name, reason=reason)
    return name


def _reason_against(name: str) -> str:
    if not name:
        return "it is empty"
    if name.startswith((".", "-")):
        return "it starts with a dot or a dash"
    if "/" in name or "\\" in name:
        return "it has a path separator"
    if _SPACE.search(name) or not name.isprintable():
        return "it has white space or control characters"
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
        return f"it is longer than {LONGEST_NAME} bytes"
    return ""


def safe_path(path: str, what: str) -> str:
    """Return ``path`` if it is relative, normal and stays below where it starts.

    Any character but NUL is allowed in its parts, newlines included: these are users' files.

    Raises:
        UnsafeName: it is absolute, empty, or has an empty part, ``.`` or ``..``.

    """
    parts = path.split("/")
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise UnsafeName(what=what, name=path, reason="it leads out of its folder")
    return path


def safe_backup_id(backup_id: str) -> str:
    """Return ``backup_id`` if it may name a backup; raises `UnsafeName` otherwise."""
    if backup_id in RESERVED_IDS:
        raise UnsafeName(what="backup id", name=backup_id, reason="it is a reserved word")
    return safe_name(backup_id, "backup id")


def timestamp(instant: datetime) -> str:
    """Return the instant as names carry it, for example ``20260204_120000``."""
    return instant.strftime(TIMESTAMP)


def template_fields(template: str) -> set[str]:
    """Return the fields that a template names; raises ``ValueError`` on a malformed one."""
    fields = set()
    for _text, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            problem = f"{{{name}}} is not a plain field"
            raise ValueError(problem)
        fields.add(name)
    return fields


def check_template(template: str, known: Collection[str], *, needs: Collection[str] = ()) -> None:
    """Raise ``ValueError`` unless a template uses ``known`` fields only and all it ``needs``."""
    fields = template_fields(template)
    if unknown := fields - set(known):
        problem = f"unknown field {{{min(unknown)}}}; known: {', '.join(sorted(known))}"
        raise ValueError(problem)
    if missing := set(needs) - fields:
        problem = f"{{{min(missing)}}} is needed, or two backups would have one name"
        raise ValueError(problem)


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return the template with its fields replaced."""
    return template.format(**values)
