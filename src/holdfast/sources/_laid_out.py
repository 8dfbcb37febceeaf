"""A folder with a component's stored artifacts as files: what ``--target DIR`` makes of a server.

A database that only a server can hold is of no use as a live store in a folder, but its dump is: a
person can read it, search it, or load it wherever they like.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, cast

from holdfast.errors import NoScratch, NoSpace, SourceUnfit, TargetUnfit
from holdfast.model.artifact import CHUNK, Artifact, Chunks, Stream
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.names import safe_name
from holdfast.model.options import Options
from holdfast.ports import Frozen, Role, Source, Token

from ._elsewhere import local_path
from ._swap import FULL, Swap
from ._sync import Disk
from ._tree import tree_of, write_tree


class LaidOut:
    """The artifacts of a component in a folder, a file or a folder each, to be used by hand.

    ``owner`` is the source whose artifacts they are: it counts those that were just laid out.
    """

    kind: ClassVar[str] = "laid-out"
    options_model: ClassVar[type[Options]] = Options
    role: ClassVar[Role] = Role.FILES

    def __init__(
        self, owner: Source, folder: Path, laid: Sequence[Artifact] = (), workspace: Path = Path()
    ) -> None:
        """Touch nothing. ``laid`` are the artifacts in the folder, where they are known."""
        self.owner = owner
        self.name = owner.name
        self.folder = folder
        self._laid = laid
        self._workspace = workspace

    @property
    def where(self) -> str:
        """Say which folder it is."""
        return str(self.folder)

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find nothing: this is no live store."""
        del folder
        return ()

    def probe(self) -> Probe:
        """Look whether the folder is there."""
        if not self.folder.is_dir():
            return Probe(reachable=False, problems=(f"{self.folder} does not exist",))
        return Probe(reachable=True, size=self.facts().counts.get("bytes", 0))

    def facts(self) -> Facts:
        """Count what the artifacts hold where they are known, or else what lies in the folder."""
        if self._laid:
            self._workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
            with TemporaryDirectory(dir=self._workspace) as empty:
                return self.owner.inspect(self._laid, Path(empty)).facts
        sizes = [path.stat().st_size for path in self.folder.rglob("*") if path.is_file()]
        return Facts({"files": len(sizes), "bytes": sum(sizes)}) if sizes else Facts()

    def freeze(self, workspace: Path, *, evidence: bool = False) -> AbstractContextManager[Frozen]:
        """Refuse: only the live store is backed up."""
        del workspace, evidence
        reason = "it holds what was restored"
        raise SourceUnfit(component=self.name, path=self.folder, expected="live", reason=reason)

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Let the owner read them."""
        return self.owner.inspect(artifacts, workspace)

    def staging(self, tag: str, workspace: Path) -> LaidOutStaged:
        """Return the folder beside this one where the artifacts are written first."""
        return LaidOutStaged(self, Swap(self.name, [self.folder], tag), workspace)

    def reopen(self, token: Token) -> LaidOutStaged:
        """Return a staging by its token."""
        return LaidOutStaged(self, Swap.reopened(self.name, token), Path(str(token["workspace"])))

    def at(self, folder: Path) -> LaidOut:
        """Return another folder for the same artifacts."""
        return LaidOut(self.owner, folder)

    def elsewhere(self, url: str) -> LaidOut:
        """Return another folder for the same artifacts."""
        return self.at(local_path(url, self.name))

    def scratch(self, workspace: Path) -> AbstractContextManager[Source]:
        """Refuse: the owner has twins."""
        del workspace
        raise NoScratch(component=self.name, reason="it is a folder with files of it")

    def occupants(self) -> Sequence[str]:
        """Name nobody: no application runs on these files."""
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Give what the owner gives."""
        return self.owner.guide(paths)


class LaidOutStaged:
    """The artifacts in a folder beside, until it takes its place."""

    def __init__(self, source: LaidOut, swap: Swap, workspace: Path) -> None:
        self.token: Token = {**swap.token, "workspace": str(workspace)}
        self._source = source
        self._swap = swap
        self._workspace = workspace
        self._laid: list[Artifact] = []

    @property
    def view(self) -> Source:
        """The folder as it will be."""
        folder = self._swap.new(self._source.folder)
        return cast("Source", LaidOut(self._source.owner, folder, self._laid, self._workspace))

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write each artifact under its own name; all durable when this returns.

        Raises:
            UnsafeName, TreeUnsafe: a name would lead out of the folder.
            NoSpace, TargetUnfit: it cannot be written there.

        """
        self._swap.prepare()
        folder = self._swap.new(self._source.folder)
        with self._foreseen(folder):
            folder.mkdir(mode=0o700)
            with Disk(folder) as disk:
                self._laid = [self._lay(artifact, folder) for artifact in artifacts]
                disk.sync()

    def _lay(self, artifact: Artifact, folder: Path) -> Artifact:
        place = folder / safe_name(artifact.name, "artifact")
        if not isinstance(artifact, Stream):
            write_tree(artifact, place, component=self._source.name)
            written = tree_of(place, artifact.name)
            return replace(written, part=artifact.part, labels=artifact.labels)
        with artifact.open() as chunks, place.open("xb", buffering=0) as file:
            for chunk in chunks:
                file.write(chunk)
        return replace(artifact, open=lambda: _reading(place), path=place)

    def activate(self) -> None:
        """Switch; doing it again does nothing."""
        self._swap.activate()

    def revert(self) -> None:
        """Put back what was in the folder."""
        self._swap.revert()

    def settle(self, attic: Path | None) -> str | None:
        """Let what was in the folder go, or into the attic."""
        return self._swap.settle(attic)

    @contextmanager
    def _foreseen(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=folder) from error
            reason = error.strerror or str(error)
            raise TargetUnfit(component=self._source.name, path=folder, reason=reason) from error


@contextmanager
def _reading(path: Path) -> Iterator[Chunks]:
    with path.open("rb", buffering=0) as file:
        yield iter(lambda: os.read(file.fileno(), CHUNK), b"")
