"""New content beside a live SQLite database, until it takes its place."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from holdfast.errors import NoSpace, TargetInUse, TargetUnfit
from holdfast.model.artifact import Artifact, Stream
from holdfast.ports import Source, Token

from ._sqlite_format import COMPANIONS
from ._sqlite_holder import Holder
from ._swap import FULL, Swap

EVIDENCE = "evidence"  # the label of artifacts that were copied though damaged, with the reason


class Live(Protocol):
    """What a staging needs to know of the live database."""

    name: str

    @property
    def path(self) -> Path: ...

    def occupants(self) -> Sequence[str]: ...


def companions(target: Path) -> Sequence[Path]:
    """Return the files that belong to a database file and to no other."""
    return [target.with_name(target.name + suffix) for suffix in COMPANIONS]


class SqliteStaged:
    """See `holdfast.ports.Staged`. An old log goes aside before the new file appears."""

    def __init__(self, live: Live, swap: Swap, look: Callable[[Path], Source]) -> None:
        """``look`` makes a source of a file that nobody changes."""
        self.token: Token = swap.token
        self._live = live
        self._swap = swap
        self._look = look
        self._new = swap.new(swap.targets[0])

    @property
    def view(self) -> Source:
        """The staged file as a source to be counted and queried."""
        return self._look(self._new)

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write the new file, durable when this returns, and open it once.

        It takes over the mode and, as far as this user may give files away, the owner of the live
        file; without one it gets those of a new file.

        Raises:
            NoSpace, TargetUnfit: it cannot be written.
            SourceUnfit, SourceCorrupt: what was written is no database that opens.

        """
        content = self._only(artifacts)
        self._swap.prepare()
        with self._foreseen():
            self._write(content)
        if EVIDENCE not in content.labels:
            with Holder(self._live.name, self._new, 0) as holder:
                holder.ask("still", path=str(self._new), recovering=False)

    def _only(self, artifacts: Sequence[Artifact]) -> Stream:
        streams = [artifact for artifact in artifacts if isinstance(artifact, Stream)]
        if len(artifacts) == 1 and streams:
            return streams[0]
        reason = "the backup does not hold one database file"
        if any(EVIDENCE in stream.labels for stream in streams):
            reason = "the backup is evidence of damage in several files; copy them by hand"
        raise TargetUnfit(component=self._live.name, path=self._live.path, reason=reason)

    def _write(self, content: Stream) -> None:
        target = self._swap.targets[0]
        before = target.stat() if target.exists() else None
        mode = 0o644 if before is None else 0o600
        descriptor = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with content.open() as chunks:
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(descriptor, view) :]
            if before is not None:
                with suppress(PermissionError):  # only root gives files away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _sync_folder(self._new.parent)

    def activate(self) -> None:
        """Switch to the new file; doing it again does nothing.

        Raises:
            TargetInUse: another program has the live file open; it would go on with the old one.

        """
        if self._new.exists() and (users := self._live.occupants()):
            raise TargetInUse(
                component=self._live.name, path=self._live.path, users=", ".join(users)
            )
        self._swap.activate()

    def revert(self) -> None:
        """Put the old file, its log and its journal back."""
        self._swap.revert()

    def settle(self, attic: Path | None) -> str | None:
        """Let the old file go, or into the attic."""
        return self._swap.settle(attic)

    @contextmanager
    def _foreseen(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=self._new) from error
            reason = error.strerror or str(error)
            raise TargetUnfit(
                component=self._live.name, path=self._live.path, reason=reason
            ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
