"""The artifacts of a backup of Qdrant: a snapshot of each collection, and two readable documents.

``collections.json`` has the parameters and payload indexes of each collection for people to read;
the snapshots hold them too. ``aliases.json`` is the body of the request that creates the aliases,
for they are in no snapshot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from holdfast.model.artifact import Artifact, Chunks, Stream

from ._qdrant_api import Actions, creating_alias
from ._qdrant_count import Contents
from ._qdrant_facts import Described
from ._qdrant_merge import SHARDS
from ._qdrant_reading import Open
from ._qdrant_taking import Taken

COLLECTIONS, ALIASES = "collections.json", "aliases.json"
ALIASES_PART, COLLECTIONS_PART = ":aliases", ":collections"  # no collection has a colon in its name
COLLECTION, SHA256 = "collection", "sha256"  # labels of a snapshot
LARGEST_DOCUMENT = 64 << 20
LONGEST_STEM = 150  # characters of the name of a file, before it is shortened


class NotOursError(ValueError):
    """The artifacts are not those of a backup of Qdrant."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A backup as it is read back: the snapshots of each collection, one for each node."""

    snapshots: Mapping[str, Sequence[Stream]]
    aliases: Mapping[str, str]


def snapshot_name(collection: str, node: int = 0, nodes: int = 1) -> str:
    """Return the name of the file that a snapshot is kept as."""
    stem = quote(collection, safe="")
    if len(stem) > LONGEST_STEM:
        stem = f"{stem[:LONGEST_STEM]}-{hashlib.sha256(collection.encode()).hexdigest()[:12]}"
    if stem.startswith((".", "-")):
        stem = f"%{ord(stem[0]):02X}{stem[1:]}"
    return f"{stem}.node{node + 1}.snapshot" if nodes > 1 else f"{stem}.snapshot"


def part_of(collection: str, node: int) -> str:
    """Return the part of a component that a snapshot is."""
    return f"{collection}:{node + 1}" if node else collection


def collection_of(part: str) -> str:
    """Return the collection of a snapshot by its part."""
    return part.partition(":")[0]


def document(name: str, part: str, content: Any) -> Stream:
    """Return an artifact that is a JSON document for people, too."""
    data = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter([data])

    return Stream(name, opened, len(data), part)


def snapshot_stream(one: Taken, open_: Open, nodes: int) -> Stream:
    """Return the artifact of a snapshot, which ``open_`` gives."""
    return Stream(
        snapshot_name(one.collection, one.node, nodes),
        open_,
        one.snapshot.size,
        part_of(one.collection, one.node),
        {COLLECTION: one.collection, SHA256: one.snapshot.checksum, SHARDS: one.shards},
        compressible=True,
    )


def collections_document(shapes: Mapping[str, Mapping[str, Any]]) -> Stream:
    """Return the artifact of the collections' parameters, as the server describes them."""
    content = {
        name: {
            "config": info["config"],
            "payload_schema": {
                field: {key: value for key, value in schema.items() if key != "points"}
                for field, schema in info.get("payload_schema", {}).items()
            },
        }
        for name, info in shapes.items()
    }
    return document(COLLECTIONS, COLLECTIONS_PART, content)


def aliases_document(aliases: Mapping[str, str]) -> Stream:
    """Return the artifact of the aliases."""
    actions = [creating_alias(alias, meant) for alias, meant in sorted(aliases.items())]
    return document(ALIASES, ALIASES_PART, {"actions": actions})


def stored(artifacts: Iterable[Artifact]) -> Stored:
    """Return what artifacts are, without reading a snapshot.

    Raises:
        NotOursError: they are something else.

    """
    snapshots: dict[str, list[Stream]] = {}
    aliases: Mapping[str, str] = {}
    for artifact in artifacts:
        if not isinstance(artifact, Stream):
            raise NotOursError(f"{artifact.name} is a folder")
        if artifact.part == ALIASES_PART:
            aliases = _aliases(artifact)
        elif artifact.part != COLLECTIONS_PART:
            name = artifact.labels.get(COLLECTION) or collection_of(artifact.part)
            snapshots.setdefault(name, []).append(artifact)
    return Stored(snapshots, aliases)


def _aliases(artifact: Stream) -> dict[str, str]:
    data = b""
    with artifact.open() as chunks:
        for chunk in chunks:
            data += chunk
            if len(data) > LARGEST_DOCUMENT:
                raise NotOursError(f"{artifact.name} is too long")
    try:
        actions: Actions = json.loads(data)["actions"]
        created = [action["create_alias"] for action in actions]
        return {str(one["alias_name"]): str(one["collection_name"]) for one in created}
    except (KeyError, TypeError, ValueError) as error:
        raise NotOursError(f"{artifact.name} is damaged") from error


def points_of(parts: Sequence[Contents]) -> int:
    """Return how many points the snapshots of one collection hold, those of all nodes together.

    Of a shard that lies on several nodes, that of the first counts.
    """
    shards: dict[int, int] = {}
    for contents in reversed(parts):
        shards.update(contents.points)
    return sum(shards.values())


def problems_of(parts: Sequence[Contents]) -> list[str]:
    """Return what is wrong with the snapshots of one collection, or missing from all of them."""
    problems = [problem for contents in parts for problem in contents.problems]
    if problems or any(contents.undecided for contents in parts):
        return problems
    params = parts[0].config["params"]
    there = {number for contents in parts for number in contents.points}
    if params.get("sharding_method") == "custom":
        return []
    return [
        f"shard {number} is missing"
        for number in range(int(params.get("shard_number") or 1))
        if number not in there
    ]


def described(parts: Sequence[Contents], aliases: Sequence[str]) -> Described:
    """Return what the snapshots of one collection say of it."""
    first = parts[0]
    return Described(points_of(parts), first.config, first.indexes, aliases)


def all_described(
    parts: Mapping[str, Sequence[Contents]], aliases: Mapping[str, str]
) -> dict[str, Described]:
    """Return what the snapshots of all collections say of them."""
    return {
        name: described(each, [alias for alias, meant in aliases.items() if meant == name])
        for name, each in parts.items()
    }


def all_problems_of(parts: Mapping[str, Sequence[Contents]], backup: Stored) -> list[str]:
    """Return what is wrong with a whole backup."""
    lost = [
        f"the alias {alias} stands for {meant}, which is not in the backup"
        for alias, meant in backup.aliases.items()
        if meant not in backup.snapshots
    ]
    return [f"{name}: {line}" for name, each in parts.items() for line in problems_of(each)] + lost


def recounted(contents: Contents, points: int) -> Contents:
    """Return contents whose points Qdrant itself has counted."""
    # Which shard they lie in is not asked: the first stands for all.
    shards = dict.fromkeys(range(int(contents.config["params"].get("shard_number") or 1)), 0)
    return replace(contents, points={**shards, 0: points}, undecided="")
