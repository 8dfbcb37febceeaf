"""A source whose live stores lie in a dictionary: the smallest one that does everything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from ..errors import SourceMissing, SourceUnfit
from ..model.artifact import Artifact, Chunks, Entry, EntryKind, Stream, Tree, TreeItems
from ..model.facts import Discovery, Facts, Inspection, Probe
from ..model.options import Options
from ..ports import Frozen, Role, Token
from ._entries import in_chunks
from ._trips import drain, read_stream

Content = Mapping[str, bytes]
World = dict[str, Content | None]
"""Live stores by their place. None: there is no store at that place, and that is remembered."""


class MemorySource:
    """Keys with values at one place of a world.

    Its artifacts are an index (a stream) and the values (a tree), so that a vault meets both kinds.
    """

    kind: ClassVar[str] = "memory"
    role: ClassVar[Role] = Role.ROWS
    options_model: ClassVar[type] = Options  # it has none

    def __init__(self, name: str, place: Path, world: World) -> None:
        self.name = name
        self.place = place
        self.world = world

    @property
    def where(self) -> str:
        """Say which place it is."""
        return str(self.place)

    @property
    def content(self) -> Content | None:
        """What is live, or None."""
        return self.world.get(str(self.place))

    @content.setter
    def content(self, content: Content) -> None:
        self.world[str(self.place)] = dict(content)

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find nothing: a folder tells nothing of a dictionary."""
        del folder
        return ()

    def probe(self) -> Probe:
        """Look whether there is a store at the place."""
        if self.content is None:
            return Probe(reachable=False, problems=(f"{self.place} does not exist",))
        return Probe(reachable=True, version="1", size=_bytes(self.content))

    def facts(self) -> Facts:
        """Count keys and bytes."""
        return Facts() if self.content is None else _facts(self.content)

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Give what is live now; values never change, so holding them is enough."""
        del workspace
        if self.content is None:
            raise SourceMissing(component=self.name, path=self.place)
        held = dict(self.content)
        yield Frozen(
            artifacts=(_index(held), _values(held)),
            instant=datetime.now(UTC),
            facts=lambda: _facts(held),
            evidence=evidence,
        )

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read the values, and compare them with the index."""
        del workspace
        index, content = self._read(artifacts)
        wrong = sorted(_disagreeing(index, content))
        problems = [f"{key}: not as the index says" for key in wrong]
        return Inspection(_facts(content), tuple(problems))

    def staging(self, tag: str, workspace: Path) -> MemoryStaged:
        """Return the place beside the live one."""
        del workspace
        return self.reopen({"place": str(self.place), "tag": tag})

    def reopen(self, token: Token) -> MemoryStaged:
        """Return a staging by its token."""
        return MemoryStaged(self, token)

    def at(self, folder: Path) -> MemorySource:
        """Return a source whose place lies in ``folder``."""
        return MemorySource(self.name, folder / self.place.name, self.world)

    def elsewhere(self, url: str) -> MemorySource:
        """Return a source whose place is ``url``."""
        return MemorySource(self.name, Path(url), self.world)

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[MemorySource]:
        """Give a source with a world of its own."""
        yield MemorySource(self.name, workspace / self.place.name, {})

    def occupants(self) -> Sequence[str]:
        """Name nobody: no program opens a dictionary."""
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Put index and values into the target folder, as files."""
        return (
            'mkdir -p "$TARGET"/values',
            f'cp {paths["index"]} "$TARGET"/index.json',
            f'tar -xf {paths["values"]} -C "$TARGET"/values',
        )

    def load(self, artifacts: Sequence[Artifact]) -> Content:
        """Return the content of artifacts; raises `SourceUnfit` where the index disagrees."""
        index, content = self._read(artifacts)
        if _disagreeing(index, content):
            raise SourceUnfit(
                component=self.name, path=self.place, expected="a whole backup", reason="index"
            )
        return content

    def _read(self, artifacts: Sequence[Artifact]) -> tuple[dict[str, Any], Content]:
        index: dict[str, Any] = {}
        content: dict[str, bytes] = {}
        for artifact in artifacts:
            if isinstance(artifact, Stream):
                index = json.loads(read_stream(artifact))
                continue
            with artifact.open() as items:
                for entry, chunks in items:
                    if entry.kind is EntryKind.FILE:
                        content[entry.path] = drain(chunks)
        return index, content


class MemoryStaged:
    """New content beside the live one, in the same world."""

    def __init__(self, source: MemorySource, token: Token) -> None:
        self.token = token
        self._source = source
        self._world = source.world
        self._live = str(token["place"])
        self._new = f"{self._live}~new~{token['tag']}"
        self._old = f"{self._live}~old~{token['tag']}"

    @property
    def view(self) -> MemorySource:
        """The staged content as a source."""
        return MemorySource(self._source.name, Path(self._new), self._world)

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Read everything, then put it beside the live content."""
        self._world[self._new] = self._source.load(artifacts)

    def activate(self) -> None:
        """Switch; a second call finds it done."""
        if self._new in self._world:
            self._world[self._old] = self._world.get(self._live)
            self._world[self._live] = self._world.pop(self._new)

    def revert(self) -> None:
        """Put back what was there, even if that was nothing."""
        self._world.pop(self._new, None)
        if self._old in self._world:
            before = self._world.pop(self._old)
            if before is None:
                self._world.pop(self._live, None)
            else:
                self._world[self._live] = before

    def settle(self, attic: Path | None) -> str | None:
        """Drop the old content, or put it under a place in the attic."""
        kept = None if attic is None else str(attic / Path(self._live).name)
        old = self._world.pop(self._old, None)
        if kept and old is not None:
            self._world[kept] = old
        return kept if kept in self._world else None


def _facts(content: Content) -> Facts:
    return Facts({"keys": len(content), "bytes": _bytes(content)})


def _bytes(content: Content) -> int:
    return sum(len(value) for value in content.values())


def _digest(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()


def _disagreeing(index: Mapping[str, str], content: Content) -> set[str]:
    """Return the keys whose value is not the one that the index promises."""
    found = {key: _digest(value) for key, value in content.items()}
    return {key for key, _digest_of_it in found.items() ^ index.items()}


def _index(content: Content) -> Stream:
    data = json.dumps({key: _digest(value) for key, value in content.items()}).encode()

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield in_chunks(data)

    return Stream("index.json", opened, len(data), part="index")


def _values(content: Content) -> Tree:
    def items() -> TreeItems:
        yield Entry(".", EntryKind.FOLDER, mode=0o755), iter(())
        for key, value in content.items():
            yield Entry(key, EntryKind.FILE, size=len(value)), in_chunks(value)

    @contextmanager
    def opened() -> Iterator[TreeItems]:
        yield items()

    return Tree("values", opened, _bytes(content), len(content) + 1, part="values")
