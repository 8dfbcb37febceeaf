"""What the options of every kind of source and vault share.

Each adapter declares its own options as a subclass, in its own file; the configuration composes
them. Only adapters and ``config`` import this module: pydantic takes a while to load.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

from ..i18n import _


class Options(BaseModel):
    """Options of one component or vault: frozen, and strict about unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, str]]:
        """Name the options that were set, never their values: a password may be among them."""
        return [(None, name) for name in sorted(self.model_fields_set)]


def not_nothing(path: object) -> object:
    """Refuse an empty path."""
    if path == "":  # would be the folder of the configuration file itself
        raise ValueError(_("is empty"))
    return path


def beside_the_file(path: Path, info: ValidationInfo) -> Path:
    """Return a path that starts from the folder of the configuration file."""
    base = (info.context or {}).get("base")
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise ValueError(_("starts with ~ and no such user has a home")) from error
    return path if base is None or path.is_absolute() else Path(base) / path


LocalPath = Annotated[Path, BeforeValidator(not_nothing), AfterValidator(beside_the_file)]
"""A path that, where relative, is relative to the folder of the configuration file."""


def _file_beside(path: str, info: ValidationInfo) -> str:
    return str(beside_the_file(Path(path), info))


LocalFile = Annotated[str, BeforeValidator(not_nothing), AfterValidator(_file_beside)]
"""The same, of a file that several may name, because it is not what is kept: a key, certificates.

It is text, so that nobody takes it for a place where data lies.
"""

__all__ = ["Field", "LocalFile", "LocalPath", "Options", "beside_the_file", "not_nothing"]
