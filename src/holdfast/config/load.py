"""Finding the configuration file, and turning it into a stack."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigMissing
from ..model.stack import Stack
from .document import read
from .examine import examine
from .kinds import Kinds

FILE_NAME = "holdfast.yaml"
VARIABLE = "HOLDFAST_CONFIG"


@dataclass(frozen=True, slots=True)
class Found:
    """Which file it is, and why: ``origin`` is ``flag``, ``environment`` or ``folder``."""

    path: Path
    origin: str


def find(flag: Path | None = None, environment: Mapping[str, str] | None = None) -> Found:
    """Find the file: what the flag names, ``$HOLDFAST_CONFIG``, here, the user's, the machine's.

    Raises:
        ConfigMissing: none of them is there; what was named must be.

    """
    environment = os.environ if environment is None else environment
    if flag is not None:
        return _named(Found(flag, "flag"))
    if variable := environment.get(VARIABLE):
        return _named(Found(Path(variable), "environment"))
    folders = [Path(), *_users_folder(environment), Path("/etc/holdfast")]
    places = [folder / FILE_NAME for folder in folders]
    for place in places:
        if os.path.lexists(place):
            return Found(place, "folder")
    raise ConfigMissing(places=", ".join(map(str, places)))


def _users_folder(environment: Mapping[str, str]) -> list[Path]:
    """Return the user's own folder for us; none where the user has no home."""
    xdg = Path(environment.get("XDG_CONFIG_HOME", ""))
    if xdg.is_absolute():  # the standard has it that a relative one is ignored
        return [xdg / "holdfast"]
    try:
        home = Path(environment.get("HOME") or Path.home())
    except RuntimeError:
        return []
    return [home / ".config" / "holdfast"]


def _named(found: Found) -> Found:
    # Not `exists`: what may not be looked at is there, and reading it will say why it fails.
    if not os.path.lexists(found.path):
        raise ConfigMissing(places=found.path)
    return found


def load(path: Path, kinds: Kinds, environment: Mapping[str, str] | None = None) -> Stack:
    """Read a file and return the stack that it declares.

    A secret that is missing for one component or vault is an error only of what uses it: the
    mapping raises `SecretMissing` when that one is asked for.

    Raises:
        ConfigInvalid: the first problem in the file.
        SecretMissing: something else than a component or vault refers to what is not there.

    """
    document = read(path)
    examined = examine(document, kinds, os.environ if environment is None else environment)
    if examined.stack is None:
        raise examined.problems[0]
    return examined.stack
