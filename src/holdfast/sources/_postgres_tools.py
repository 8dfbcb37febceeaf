"""Finding PostgreSQL's own programs: those of the server's version, or the nearest newer ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from holdfast.errors import ToolMissing, ToolTooOld

from ._command import ProgramFailed, answer
from ._postgres_errors import ADVICE

# Where distributions and their own packages put each major version.
_USUAL = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin")
Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tools:
    """A folder with programs of one version, such as (17, 10)."""

    folder: Path
    version: Version

    def __getitem__(self, program: str) -> str:
        """Return the path of a program."""
        return str(self.folder / program)

    @property
    def shown(self) -> str:
        """The version as people write it."""
        return written(self.version)


def written(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def read_version(text: str) -> Version:
    """Return the version that a text such as ``pg_dump (PostgreSQL) 17.10 (Debian …)`` has in it.

    A development version such as ``18beta1`` counts as 18.0.
    """
    found = re.search(r"(\d+)(?:\.(\d+))?", text.rpartition("PostgreSQL)")[2])
    return (int(found[1]), int(found[2] or 0)) if found else (0, 0)


class Toolbox:
    """All the programs that there are on this machine."""

    def __init__(self, component: str, folder: Path | None) -> None:
        """``folder`` is where the options say they are; without it the usual places are tried."""
        self._component = component
        self._folder = folder

    def for_server(self, server: Version, program: str = "pg_dump") -> Tools:
        """Return the programs that serve a server best.

        Those of its own major version, since what a newer `pg_dump` writes an older server may not
        take back; or else the nearest newer ones.

        Raises:
            ToolMissing: there is none at all.
            ToolTooOld: all are older than the server.

        """
        found = self._found(program)
        fit = [tools for tools in found if tools.version[0] >= server[0]]
        if not fit:
            newest = max(found, key=lambda tools: tools.version)
            raise ToolTooOld(
                component=self._component,
                tool=newest[program],
                found=newest.shown,
                server=written(server),
                advice=f"install the client programs of PostgreSQL {server[0]}, or name their"
                " folder with the option `tools`",
            )
        return min(fit, key=lambda tools: (tools.version[0], -tools.version[1]))

    def for_archive(self, writer: Version) -> Tools:
        """Return the programs that read what `pg_dump` of a version wrote; raises as above.

        Where the writer is not known (zeros), the newest ones.
        """
        if writer[0]:
            return self.for_server(writer, "pg_restore")
        return max(self._found("pg_restore"), key=lambda tools: tools.version)

    def _found(self, program: str) -> list[Tools]:
        found = [tools for folder in self._folders() if (tools := _tools_in(folder, program))]
        if not found:
            raise ToolMissing(component=self._component, tool=program, advice=ADVICE)
        return found

    def _folders(self) -> Iterator[Path]:
        if self._folder is not None:
            yield self._folder
            return
        for pattern in _USUAL:  # first: what Debian has on PATH only looks for these
            yield from Path("/").glob(pattern[1:])
        for place in os.environ.get("PATH", os.defpath).split(os.pathsep):
            if place:
                yield Path(place)


def _tools_in(folder: Path, program: str) -> Tools | None:
    path = folder / program
    try:
        status = path.stat()
    except OSError:
        return None
    version = _version_of(str(path), status.st_mtime_ns)
    return Tools(folder, version) if version[0] else None


@cache
def _version_of(path: str, mtime_ns: int) -> Version:
    """Ask a program for its version; (0, 0) if it does not run. Asked once for each file."""
    del mtime_ns  # a file that was replaced is asked again
    try:
        return read_version(answer([path, "--version"], patience=20).decode("utf-8", "replace"))
    except ProgramFailed:
        return (0, 0)
