"""What a backup of PostgreSQL consists of, as its artifacts and their labels tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.errors import TargetUnfit
from holdfast.model.artifact import Artifact, Stream

from ._postgres_count import Selection
from ._postgres_dump import GLOBALS, HOLDS, LEFT_OUT, NEEDS, SERVER, TABLE, TOOL
from ._postgres_snapshot import Needs
from ._postgres_tools import Version, read_version

SCRIPT = ".sql"


@dataclass(frozen=True, slots=True)
class Dumped:
    """One database of a backup: its dump, and the rows of large tables apart from it."""

    database: str  # empty where the backup does not tell
    main: Stream
    parts: Sequence[Stream] = ()

    @property
    def is_script(self) -> bool:
        """Whether it is SQL, not an archive."""
        return self.main.suffix == SCRIPT

    @property
    def needs(self) -> Needs:
        """What a server must have for it; nothing where the backup does not tell."""
        return Needs(**json.loads(self.main.labels.get(NEEDS, "{}")))

    @property
    def selection(self) -> Selection:
        """What was left out of it."""
        return Selection(**json.loads(self.main.labels.get(LEFT_OUT, "{}")))

    @property
    def server(self) -> Version:
        """The version of the server it came from; zeros where the backup does not tell."""
        return read_version(f"PostgreSQL) {self.main.labels.get(SERVER, '')}")

    @property
    def tool(self) -> Version:
        """The version of the program that wrote it; zeros where the backup does not tell."""
        return read_version(f"PostgreSQL) {self.main.labels.get(TOOL, '')}")


@dataclass(frozen=True, slots=True)
class Backup:
    """All of them, and the roles of the server."""

    dumps: Sequence[Dumped]
    roles: Stream | None = field(default=None)

    def prefix(self, dumped: Dumped) -> str:
        """Return what comes before the names of tables in the facts of this backup."""
        return f"{dumped.database}/" if len(self.dumps) > 1 else ""


def backup_of(artifacts: Sequence[Artifact], component: str, where: str) -> Backup:
    """Return what the artifacts are. Raises `TargetUnfit` where they are no such backup."""
    streams = [artifact for artifact in artifacts if isinstance(artifact, Stream)]
    roles = next((stream for stream in streams if stream.part == GLOBALS), None)
    mains = [s for s in streams if s is not roles and TABLE not in s.labels]
    dumps = [
        Dumped(
            main.labels.get(HOLDS, ""),
            main,
            [s for s in streams if TABLE in s.labels and _holds(s) == _holds(main)],
        )
        for main in mains
    ]
    if not dumps or len(streams) != len(artifacts):
        reason = "the backup holds no dump of a database"
        raise TargetUnfit(component=component, path=where, reason=reason)
    return Backup(dumps, roles)


def _holds(stream: Stream) -> str:
    return stream.labels.get(HOLDS, "")
