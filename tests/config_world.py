"""A small world of kinds for tests of the configuration, apart from the real adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from holdfast.config.document import parse
from holdfast.config.examine import Examined, examine
from holdfast.config.kinds import Kinds
from holdfast.errors import ConfigInvalid, ExtraMissing, HoldfastError
from holdfast.model.options import Field, LocalPath, Options

FILE = Path("holdfast.yaml")


class DatabaseOptions(Options):
    """A database file."""

    path: LocalPath = Field(description="The file.")
    timeout: float = Field(default=60, ge=0, description="Seconds to wait.")


class FolderOptions(Options):
    """A folder, or several."""

    path: LocalPath | None = Field(default=None, description="The folder.")
    paths: list[LocalPath] = Field(default_factory=list, description="Several of them.")
    exclude: list[str] = Field(default_factory=list, description="What to leave out.")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.path is None) == (not self.paths):
            raise ValueError("needs either `path` or `paths`")
        return self


class ServerOptions(Options):
    """A server with a password."""

    url: str = Field(description="Its address.")
    port: int = Field(default=5432, description="Its port.")
    password: str = Field(default="", description="Its password.")
    tags: list[str] = Field(default_factory=list, description="Words.")

    @field_validator("password")
    @classmethod
    def _long_enough(cls, password: str) -> str:
        if password and len(password) < 4:
            raise ValueError(f"{password} is too short")  # a careless adapter quotes the value
        return password


class PlainOptions(Options):
    """A folder of backups."""

    url: LocalPath = Field(description="The folder.")


def _uninstalled() -> type[Options]:
    raise ExtraMissing(what="kind of source heavy", package="heavy", extra="heavy")


KINDS = Kinds(
    sources={
        "sqlite": lambda: DatabaseOptions,
        "files": lambda: FolderOptions,
        "server": lambda: ServerOptions,
        "heavy": _uninstalled,
    },
    vaults={"plain": lambda: PlainOptions},
)

VAULTS = "vaults: {local: {kind: plain, url: backups}}\n"
SMALL = "stack: brain\ncomponents:\n  projects: {source: sqlite, path: data/projects.db}\n" + VAULTS


def examined(text: str, environment: dict[str, str] | None = None, path: Path = FILE) -> Examined:
    return examine(parse(text.encode(), path), KINDS, environment or {})


def problems(text: str, environment: dict[str, str] | None = None) -> list[tuple[str, str, str]]:
    """Return place, problem and advice of everything that is wrong with a text."""
    try:
        found: tuple[HoldfastError, ...] = examined(text, environment).problems
    except ConfigInvalid as error:
        found = (error,)
    assert all(isinstance(error, ConfigInvalid) for error in found), found
    return [(e.fields["place"], e.fields["problem"], e.fields["advice"]) for e in found]


def only(text: str, environment: dict[str, str] | None = None) -> tuple[str, str, str]:
    """Return the one problem of a text."""
    [found] = problems(text, environment)
    return found
