"""`holdfast init`: a first configuration file, valid as it stands and explained line by line."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from uuid import uuid4

from ..errors import StateUnwritable, UsageInvalid, printable
from ..i18n import _
from ..model.facts import Discovery
from .discover import Proposal, document, paths_of, propose, safe_stack_name
from .discover import render as describe
from .document import parse
from .examine import examine
from .kinds import Kinds
from .load import FILE_NAME
from .nodes import resolve
from .template import ENV_FILE, EXAMPLE_COMPONENTS, FILE, FOUND_COMPONENTS
from .values import check_timezone

_PLAIN = re.compile(r"[\w./][\w./-]*( [\w./-]+)*")
_REMARK_COLUMN = 34
_LONGEST_REMARK = 60


@dataclass(frozen=True, slots=True)
class Initialized:
    """What `init` wrote: the file, what it proposes, and whether there was anything to propose."""

    path: Path
    text: str
    proposal: Proposal

    @property
    def document(self) -> dict[str, Any]:
        """The same as one plain JSON value."""
        return {"config": str(self.path), **document(self.proposal)}

    @property
    def summary(self) -> str:
        """What was found, one line for each store."""
        return describe(self.proposal).rstrip()

    @property
    def hint(self) -> str:
        """What to do next."""
        if self.proposal.components:
            return _("look through {path}, then run `holdfast backup`").format(path=self.path)
        return _("no stores were found here: describe yours in {path}, where examples stand ready")


def init(
    folder: Path,
    discoveries: Iterable[Discovery],
    kinds: Kinds,
    *,
    unread: Iterable[str] = (),
    force: bool = False,
) -> Initialized:
    """Write a configuration file for the stores that were found below a folder.

    ``unread`` is as in `propose`.

    Raises:
        UsageInvalid: there is a file already, and ``force`` is not given.
        StateUnwritable: the file cannot be written.

    """
    refuse_existing(folder, force=force)
    path = folder / FILE_NAME
    proposal = propose(discoveries, folder, unread)
    text = render(proposal, safe_stack_name(folder), local_timezone())
    if proposal.components:
        problems = examine(parse(text.encode(), path), kinds, {}).problems
        if problems:
            raise problems[0]
    try:
        _write(path, text.encode(), force=force)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StateUnwritable(path=path, reason=reason) from error
    return Initialized(path, text, proposal)


def refuse_existing(folder: Path, *, force: bool) -> None:
    """Raise `UsageInvalid` if a file is there that may not be replaced."""
    path = folder / FILE_NAME
    if not force and os.path.lexists(path):
        raise _exists(path)


def render(proposal: Proposal, stack: str, timezone: str) -> str:
    """Return the file's text."""
    found = "".join(_component(component) for component in proposal.components)
    left_out = "".join(f"  # left out: {line}\n" for line in proposal.left_out)
    components = FOUND_COMPONENTS + found if found else EXAMPLE_COMPONENTS
    return FILE.format(
        stack=write_value(stack),
        env_file=_env_file(proposal.env_files),
        timezone=write_value(timezone),
        components=components + left_out,
        vault=write_value(_vault_folder(proposal, stack)),
    )


def _env_file(files: list[str]) -> str:
    if not files:
        return ""
    return ENV_FILE.format(files=write_value(files[0] if len(files) == 1 else files))


def _component(discovery: Discovery) -> str:
    lines = [f"  {write_value(discovery.name)}:", f"    source: {write_value(discovery.source)}"]
    for key, value in discovery.options.items():
        lines.append(f"    {write_value(key)}: {write_value(value)}")
    for key, reference in discovery.secrets.items():
        lines.append(f"    {write_value(key)}: {_quoted(reference)}")
    if len(discovery.comment) > _LONGEST_REMARK:
        remarks = printable(discovery.comment).split("; ")
        lines[:0] = [f"  # {remark}" for remark in remarks]
    elif discovery.comment:
        lines[1] = f"{lines[1]:<{_REMARK_COLUMN}} # {printable(discovery.comment)}"
    return "\n".join(lines) + "\n"


def _vault_folder(proposal: Proposal, stack: str) -> str:
    """Return a folder for the vault that holds no store, and lies in none."""
    paths = [path for component in proposal.components for path in paths_of(component)]
    for folder in ("backups", "holdfast-backups", f"{stack}-backups"):
        inside = any(PurePath(folder).is_relative_to(path) for path in paths)
        if not inside and not any(PurePath(path).is_relative_to(folder) for path in paths):
            return folder
    return f"../{stack}-backups"


def write_value(value: object) -> str:
    """Return a value in YAML 1.2 on one line, quoted only where it must be."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        pairs = (f"{write_value(key)}: {write_value(child)}" for key, child in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(write_value, value)) + "]"
    return {None: "null", True: "true", False: "false"}.get(_hashable(value), str(value))


def _hashable(value: object) -> Any:
    return value if value is None or isinstance(value, bool) else ""


def _text(text: str) -> str:
    text = text.replace("${", "$${")
    if _PLAIN.fullmatch(text) and resolve(text) == text and text.isprintable():
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def local_timezone(localtime: Path = Path("/etc/localtime")) -> str:
    """Return the name of the machine's own time zone; UTC where it does not tell."""
    _before, found, name = str(localtime.resolve()).partition("/zoneinfo/")
    try:
        return check_timezone(name.removeprefix("posix/")) if found else "UTC"
    except ValueError:
        return "UTC"


def _exists(path: Path) -> UsageInvalid:
    return UsageInvalid(problem=_("{path} exists already; --force replaces it").format(path=path))


def _write(path: Path, content: bytes, *, force: bool) -> None:
    """Write a file that only its owner may read: whole, or not at all."""
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if force:
            draft.replace(path)
        else:
            _link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _link(draft: Path, path: Path) -> None:
    """Give the draft its name, unless somebody took it meanwhile."""
    try:
        path.hardlink_to(draft)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        draft.rename(path)  # a file system without links; that nobody was here is seconds old


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
