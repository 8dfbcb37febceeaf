"""What is said of collections, alike whether a server or a snapshot was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.model.facts import Facts, Json

OVERHEAD = 1 << 20  # bytes that a collection takes beside its vectors, roughly
BYTES_PER_NUMBER = 6  # of a vector, with its share of the index
STAGED = "__holdfast_"  # in the names of collections that are ours for a while
LONGEST_NAME = 255  # of a collection


@dataclass(frozen=True, slots=True)
class Names:
    """How the names of collections and aliases are called on the server.

    Qdrant has no databases: what is not live yet lies beside the live collections, under their
    names with a ``suffix``.
    """

    suffix: str = ""

    def there(self, name: str) -> str:
        """Return what a name is called on the server."""
        return name + self.suffix

    def ours(self, names: Sequence[str]) -> list[str]:
        """Return those of the names on the server that belong here, as they are called here."""
        found = [name.removesuffix(self.suffix) for name in names if name.endswith(self.suffix)]
        return [name for name in found if STAGED not in name]

    def beside(self, tag: str) -> Names:
        """Return the names of what is staged under a tag."""
        return Names(f"{self.suffix}{STAGED}{tag}")


@dataclass(frozen=True, slots=True)
class Described:
    """One collection. ``config`` and ``indexes`` are in the form of a snapshot."""

    points: int
    config: Mapping[str, Any]
    indexes: Mapping[str, Any]
    aliases: Sequence[str]


def facts_of(collections: Mapping[str, Described], notes: Sequence[str] = ()) -> Facts:
    """Return the facts of collections by their names."""
    if not collections:
        return Facts(notes=tuple(notes))
    counts = {f"points/{name}": one.points for name, one in collections.items()}
    details: dict[str, Json] = {name: _details(one) for name, one in collections.items()}
    return Facts(
        {"collections": len(collections), **counts}, {"collections": details}, tuple(notes)
    )


def _details(one: Described) -> dict[str, Json]:
    params = one.config.get("params", {})
    vectors = params.get("vectors") or {}
    named = {"": vectors} if "size" in vectors else vectors
    return {
        "vectors": {
            name: {"dimension": vector["size"], "distance": vector["distance"]}
            for name, vector in named.items()
        },
        "sparse_vectors": sorted(params.get("sparse_vectors") or {}),
        "shards": params.get("shard_number"),
        "indexes": {name: kind_of(schema) for name, schema in sorted(one.indexes.items())},
        "aliases": sorted(one.aliases),
    }


def kind_of(schema: Any) -> str:
    """Return the kind of a payload index, whichever way its schema is written."""
    while isinstance(schema, dict):
        schema = schema.get("data_type") or schema.get("type")
    return str(schema)


def shape_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a collection that the server describes is configured: what a recovery keeps."""
    schemas = described.get("payload_schema", {})
    indexes = {name: {**schema, "points": 0} for name, schema in schemas.items()}
    return {"config": described.get("config"), "indexes": indexes}


def size_of(described: Mapping[str, Any] | None) -> int:
    """Return about how many bytes a collection takes."""
    if described is None:
        return 0
    vectors = described["config"]["params"].get("vectors") or {}
    named = [vectors] if "size" in vectors else vectors.values()
    numbers = sum(int(one["size"]) for one in named)
    return OVERHEAD + int(described.get("points_count") or 0) * numbers * BYTES_PER_NUMBER


def shards_of(described: Mapping[str, Any]) -> int:
    """Return how many shards a collection has: each is as of an instant of its own."""
    return int(described["config"]["params"].get("shard_number") or 1)
