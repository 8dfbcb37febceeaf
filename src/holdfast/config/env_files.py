"""The variables that references find: the real environment's, and those of files such as ``.env``.

Many stacks keep their passwords in a ``.env`` beside their compose file. `env_file` names it, so
that ``${env:NAME}`` is found there without a second copy of the password. The real environment
wins; of several files, the later one. A file is read like Compose reads it, and whoever may read it
knows the passwords: its permissions are its owner's business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..i18n import _
from ..model.dotenv import parse

LARGEST_FILE = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Variables:
    """Variables by name, and the files that some of them stand in. All may be secret: not shown."""

    values: Mapping[str, str] = field(repr=False)
    files: Mapping[str, Path]  # variable → the file, where it is not the real environment's


def read_variables(paths: Sequence[Path], environment: Mapping[str, str]) -> Variables:
    """Return the environment's variables and those of the files.

    Raises:
        UnreadableFile: a file is not there, cannot be read, or is no file of variables.

    """
    values: dict[str, str] = {}
    files: dict[str, Path] = {}
    for index, path in enumerate(paths):
        try:
            found = parse(_content(path), {**values, **environment})
        except (OSError, ValueError) as error:
            raise UnreadableFile(index, path, error) from None
        values |= found
        files |= dict.fromkeys(found, path)
    ours = {name: path for name, path in files.items() if name not in environment}
    return Variables({**values, **environment}, ours)


class UnreadableFile(Exception):
    """A file of variables that cannot be read: which of them, and why, without its content."""

    def __init__(self, index: int, path: Path, error: OSError | ValueError) -> None:
        reason = str(error)
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
        problem = _("{path} cannot be read: {reason}").format(path=path, reason=reason)
        super().__init__(problem)
        self.index, self.problem = index, problem


def _content(path: Path) -> str:
    """Return the text of a file. Raises ``OSError`` or ``ValueError``."""
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(_("the file is larger than {limit} KiB").format(limit=LARGEST_FILE >> 10))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # Not chained: the error would carry the content.
        raise ValueError(_("the file is not UTF-8 text")) from None
    if "\0" in text:
        raise ValueError(_("the file has a NUL byte in it"))
    return text
