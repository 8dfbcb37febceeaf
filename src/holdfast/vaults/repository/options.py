"""Options of a vault of kind ``repository``."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from holdfast.model.options import LocalPath
from holdfast.model.store_options import StoreOptions

from .._naming import DEFAULT_NAME, Naming


class RepositoryOptions(StoreOptions):
    """Where a repository lies, what opens it, and how its backups are called."""

    password: str = Field(
        min_length=1,
        description="What opens the repository. Whoever loses it has lost every backup in it.",
    )
    name: str = Field(
        default=DEFAULT_NAME,
        description="id of each backup; fields: stack, timestamp (which it needs)",
    )
    timezone: str = Field(default="UTC", description="time zone of the timestamps in names")
    workspace: LocalPath | None = Field(
        default=None,
        description="Folder on this machine for copies of stores that cannot be streamed, such as"
        " SQLite databases; they are removed again. Without it, the system's folder for temporary"
        " files.",
    )
    lock_wait: float = Field(
        default=0.0,
        ge=0,
        le=86400,
        description="Seconds to wait for others who have locked the repository.",
    )

    cache: bool = Field(
        default=True,
        description="Whether copies of index files, snapshots and folders' lists are kept on this"
        " machine, encrypted as they are, if the vault is in a bucket or on a server. They lie in"
        " `$XDG_CACHE_HOME/holdfast` (`~/.cache/holdfast`), take 4 GiB at most, and may be"
        " deleted at any time.",
    )

    @model_validator(mode="after")
    def _has_a_sound_name(self) -> Self:
        Naming(self.name, self.timezone)
        return self

    @property
    def naming(self) -> Naming:
        """How backups are called."""
        return Naming(self.name, self.timezone)
