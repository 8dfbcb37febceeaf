"""What the options of every kind of source and vault share.

Each adapter declares its own options as a subclass, in its own file; the configuration composes
them. Only adapters and ``config`` import this module: pydantic takes a while to load.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo


class Options(BaseModel):
    """Options of one component or vault: frozen, and strict about unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get("base")
    path = path.expanduser()
    return path if base is None or path.is_absolute() else Path(base) / path


LocalPath = Annotated[Path, AfterValidator(_beside_the_file)]
"""A path that, where relative, is relative to the folder of the configuration file."""

__all__ = ["Field", "LocalPath", "Options"]
