"""What a snapshot holds, read from its bytes while they go by: without Qdrant, without unpacking.

The layout of a snapshot of a collection is that of Qdrant 1.13 to 1.19: ``config.json`` and
``payload_index.json`` of the collection; for each shard a folder with the archive of each segment,
and with its log. Counted are the points that Qdrant would have after recovering it; where only
Qdrant itself can tell, the count is left open and `Contents.undecided` says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.model.artifact import Chunk

from ._qdrant_ids import BadIdsError, IdSet, ImmutableIds, MutableIds
from ._qdrant_tar import NotATarError, Take, TarReader
from ._qdrant_wal import SPARSE, Sizes, UndecidedError, replay

CONFIG, INDEXES = "config.json", "payload_index.json"
SEGMENTS, LOG = "segments", "wal"
SHARD, LOG_FILE = re.compile("[0-9]{1,9}"), re.compile("(closed|open)-[0-9]{1,19}|first-index")
SEGMENT_STATE = "segment.json"
MUTABLE = "mutable_id_tracker.mappings"
IMMUTABLE, DELETED = "id_tracker.mappings", "id_tracker.deleted"
OTHER_IDS = ("id_tracker.i2e", "CURRENT")  # a form of 1.18 for ids on disk; RocksDB up to 1.14
LARGEST_DOCUMENT = 64 << 20  # bytes of a JSON file, or of the bits of deleted points


@dataclass(frozen=True, slots=True)
class Contents:
    """What a snapshot holds. ``points`` is by shard: in a cluster a node has only some of them."""

    points: Mapping[int, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    indexes: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    undecided: str = ""


@dataclass(slots=True)
class _Shard:
    ids: IdSet
    log: Path
    applied: int = -1  # the last operation that a segment knows of
    undecided: str = ""


class SnapshotReader:
    """Reads one snapshot from its chunks. ``workspace`` is for its log, and for ids if many.

    Leave its context: what it wrote there goes.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._tar = TarReader(self)
        self._shards: dict[int, _Shard] = {}
        self._documents: dict[str, bytearray] = {}
        self._reading: MutableIds | ImmutableIds | None = None
        self._deleted = b""
        self._segments = 0
        self._problem = ""

    def push(self, chunk: Chunk) -> None:
        """Take in the next bytes; damage is told at the end, and what follows it passed over."""
        if self._problem:
            return
        try:
            self._tar.push(chunk)
        except (NotATarError, BadIdsError) as error:
            self._problem = str(error)

    def contents(self) -> Contents:
        """Return what it holds, when all chunks have come."""
        if self._problem:
            return Contents(problems=(self._problem,))
        if not self._tar.complete:
            return Contents(problems=("it ends in the middle",))
        config, indexes = self._document(CONFIG), self._document(INDEXES)
        if "params" not in config:
            return Contents(problems=(f"it has no {CONFIG}",))
        points, undecided = {}, ""
        for number, shard in sorted(self._shards.items()):
            try:
                points[number] = self._count(shard, sizes_of(config))
            except UndecidedError as error:
                undecided = f"shard {number}: {error}"
        return Contents(points, config, indexes.get("schema", {}), undecided=undecided)

    def _count(self, shard: _Shard, sizes: Sizes) -> int:
        if shard.undecided:
            raise UndecidedError(shard.undecided)
        there = replay(shard.log, applied=shard.applied, sizes=sizes)
        return shard.ids.count(there) + sum(there.values())

    def _document(self, name: str) -> dict[str, Any]:
        try:
            found = json.loads(bytes(self._documents.get(name, b"")) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    # --- as the visitor of the archive ---

    def enter(self, name: str) -> bool:
        """Enter the archives of segments."""
        parts = PurePosixPath(name).parts
        return (
            len(parts) == 3  # noqa: PLR2004 - shard, kind, file
            and SHARD.fullmatch(parts[0]) is not None
            and parts[1] == SEGMENTS
            and parts[2].endswith(".tar")
        )

    def open(self, name: str, size: int) -> Take | None:
        """Take what is of interest."""
        parts = PurePosixPath(name).parts
        if len(parts) == 1 and name in {CONFIG, INDEXES}:
            return self._collect(name, size)
        if len(parts) < 3 or not SHARD.fullmatch(parts[0]):  # noqa: PLR2004 - shard, kind, file
            return None
        shard = self._shard(int(parts[0]))
        if parts[1] == LOG:
            # Only these names become files of ours, whatever the archive calls its own.
            return _writer(shard.log / parts[2]) if LOG_FILE.fullmatch(parts[2]) else None
        return self._open_ids(shard, parts[-1], size) if parts[1] == SEGMENTS else None

    def _open_ids(self, shard: _Shard, name: str, size: int) -> Take | None:
        if name in {DELETED, SEGMENT_STATE}:
            return self._collect(name, size)
        if name == MUTABLE:
            self._reading = MutableIds(shard.ids)
        elif name == IMMUTABLE:
            if DELETED not in self._documents:
                shard.undecided = "what was deleted from it comes too late"
            self._reading = ImmutableIds(shard.ids, bytes(self._documents.get(DELETED, b"")))
        elif name in OTHER_IDS:
            shard.undecided = "a segment keeps its ids in a form that is not read here"
        else:
            return None
        return self._reading.take if self._reading else None

    def close(self, name: str) -> None:
        """End what was begun."""
        parts = PurePosixPath(name).parts
        if isinstance(self._reading, ImmutableIds):
            self._reading.end()
        self._reading = None
        if self.enter(name):
            shard = self._shard(int(parts[0]))
            shard.ids.end_segment()
            state = self._document(SEGMENT_STATE)
            if not state:
                raise NotATarError(f"{name} has no {SEGMENT_STATE}")
            shard.applied = max(shard.applied, state.get("version") or -1)
            self._documents.pop(DELETED, None)
            self._documents.pop(SEGMENT_STATE, None)

    def _shard(self, number: int) -> _Shard:
        if number not in self._shards:
            folder = self._workspace / f"shard-{number}"
            self._shards[number] = _Shard(IdSet(folder / "ids"), folder / "log")
        return self._shards[number]

    def _collect(self, name: str, size: int) -> Take:
        if size > LARGEST_DOCUMENT:
            raise NotATarError(f"{name} is larger than any")
        document = self._documents[name] = bytearray(size)

        def take(offset: int, piece: memoryview) -> None:
            document[offset : offset + len(piece)] = piece

        return take


def sizes_of(config: Mapping[str, Any]) -> Sizes:
    """Return the dimensions of each vector by the parameters of its collection."""
    params = config.get("params", {})
    vectors = params.get("vectors") or {}
    named = {"": vectors} if "size" in vectors else vectors
    sizes = {name: int(one["size"]) for name, one in named.items()}
    return {**sizes, **dict.fromkeys(params.get("sparse_vectors") or {}, SPARSE)}


def _writer(path: Path) -> Take:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    def take(offset: int, piece: memoryview) -> None:
        with path.open("r+b", buffering=0) as file:
            file.seek(offset)
            file.write(piece)

    return take
