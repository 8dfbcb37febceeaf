"""Holding collections still: a snapshot of each, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.errors import SourceCorrupt, SourceMissing
from holdfast.model.facts import Facts
from holdfast.ports import Frozen

from ._qdrant_api import Qdrant
from ._qdrant_backup import (
    aliases_document,
    all_described,
    collections_document,
    problems_of,
    snapshot_stream,
)
from ._qdrant_count import Contents
from ._qdrant_facts import facts_of, shards_of
from ._qdrant_reading import Open, Readings
from ._qdrant_taking import Taken, swept, taken

Recount = Callable[[Open, str, Contents, Path], Contents]


@dataclass(frozen=True, slots=True)
class Freezing:
    """What to freeze. ``configured`` says that these collections must be there.

    ``recount`` asks Qdrant itself what a snapshot holds; ``limit`` is how many seconds making one
    may take.
    """

    component: str
    where: str
    collections: Sequence[str]
    aliases: Mapping[str, str]
    configured: bool
    limit: float
    recount: Recount


@contextmanager
def frozen(wanted: Freezing, nodes: Sequence[Qdrant], workspace: Path) -> Iterator[Frozen]:
    """Make the snapshots, and delete them from the server in the end.

    Raises:
        SourceMissing: a collection that is configured went away.

    """
    with ExitStack() as snapshots:
        notes = [line for qdrant in nodes for line in swept(qdrant)]
        instant = datetime.now(UTC)
        shapes: dict[str, dict[str, Any]] = {}
        made: list[Taken] = []
        for name in wanted.collections:
            shape = nodes[0].collection(name)
            each = [
                snapshots.enter_context(taken(node, name, number=number, limit=wanted.limit))
                for number, node in enumerate(nodes)
            ]
            if shape is None or not all(each):
                notes.append(_gone(wanted, name))
                continue
            shapes[name] = shape
            made += [one for one in each if one]
        shards = sum(map(shards_of, shapes.values()))
        if shards > 1:
            seconds = (datetime.now(UTC) - instant).total_seconds()
            notes.append(
                f"{len(shapes)} collections with {shards} shards: each shard is as of one instant, "
                f"all within {seconds:.1f} s"
            )
        aliases = {alias: meant for alias, meant in wanted.aliases.items() if meant in shapes}
        readings = Readings([one.open for one in made], workspace)
        version = nodes[0].version()
        yield Frozen(
            artifacts=[
                *(
                    snapshot_stream(one, partial(readings.opened, number), len(nodes))
                    for number, one in enumerate(made)
                ),
                collections_document(shapes),
                aliases_document(aliases),
            ],
            instant=instant,
            facts=lambda: _facts(wanted, made, readings, aliases, notes, workspace),
            exact=shards <= 1,
            version=version,
            tools={"qdrant": version},
        )


def _gone(wanted: Freezing, name: str) -> str:
    """Return the note on a collection that vanished between the listing and its snapshot."""
    if wanted.configured:
        path = f"{wanted.where}/collections/{name}"
        raise SourceMissing(component=wanted.component, path=path)
    return f"{name} was deleted while the backup began, and is not in it"


def _facts(  # noqa: PLR0913, PLR0917 - what was frozen, in all its parts
    wanted: Freezing,
    made: Sequence[Taken],
    readings: Readings,
    aliases: Mapping[str, str],
    notes: Sequence[str],
    workspace: Path,
) -> Facts:
    parts: dict[str, list[Contents]] = {}
    for one, found in zip(made, readings.contents(), strict=True):
        contents = found
        if found.undecided:
            contents = wanted.recount(one.open, one.snapshot.checksum, found, workspace)
        parts.setdefault(one.collection, []).append(contents)
    for name, each in parts.items():
        if problems := problems_of(each):
            reason = f"the snapshot of {name}: {'; '.join(problems)}"
            raise SourceCorrupt(component=wanted.component, path=wanted.where, reason=reason)
    return facts_of(all_described(parts, aliases), notes)
