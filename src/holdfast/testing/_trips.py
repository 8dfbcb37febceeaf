"""What the contract suites do with any adapter: back it up, and read back what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ..model.artifact import Artifact, Chunks, Entry, Stream, Tree
from ..model.manifest import Component, Manifest, Status, Stored
from ..ports import Draft, Source, Vault

GUIDE = "# How to restore this backup\n"


def silent(_done: int) -> None:
    """Hear of progress and say nothing."""


def drain(chunks: Chunks) -> bytes:
    """Read chunks to their end and return them as one."""
    return b"".join(bytes(chunk) for chunk in chunks)


def read_stream(stream: Stream) -> bytes:
    """Return the content of a stream."""
    with stream.open() as chunks:
        return drain(chunks)


def read_tree(tree: Tree) -> list[tuple[Entry, bytes]]:
    """Return the entries of a tree with their contents."""
    with tree.open() as items:
        return [(entry, drain(chunks)) for entry, chunks in items]


def read_artifact(artifact: Artifact) -> object:
    """Return the content of an artifact as something that can be compared.

    Of a tree the order is left to the vault, and it need not keep what tells unchanged files.
    """
    if isinstance(artifact, Stream):
        return read_stream(artifact)
    return sorted(
        ((_as_content(entry), data) for entry, data in read_tree(artifact)),
        key=lambda item: item[0].path,
    )


def _as_content(entry: Entry) -> Entry:
    return replace(entry, device=0, inode=0, ctime_ns=0, links=0)


def stored_artifacts(vault: Vault, manifest: Manifest, component: str) -> list[Artifact]:
    """Return the artifacts of a component as its vault gives them."""
    return [vault.artifact(manifest, stored) for stored in manifest.of(component)]


def back_up(sources: Iterable[Source], vault: Vault, workspace: Path) -> Manifest:
    """Back up sources one after the other into one sealed backup, as the verb does."""
    instant = datetime.now(UTC)
    backup_id = vault.backup_id("stack", instant)
    with vault.draft(backup_id, instant, "tar.gz") as draft:
        kept = [_freeze(source, draft, workspace / source.name) for source in sources]
        manifest = make_manifest(
            backup_id,
            instant,
            vault.next_sequence(),
            components=[component for component, _stored in kept],
            artifacts=[stored for _component, many in kept for stored in many],
        )
        draft.seal(manifest, GUIDE)
    return manifest


def _freeze(source: Source, draft: Draft, workspace: Path) -> tuple[Component, list[Stored]]:
    workspace.mkdir(parents=True, exist_ok=True)
    with source.freeze(workspace) as frozen:
        stored = [draft.put(source.name, artifact, silent) for artifact in frozen.artifacts]
        facts = frozen.facts()
    component = Component(source.name, source.kind, "completed", frozen.instant, facts=facts)
    return component, stored


def make_manifest(
    backup_id: str,
    instant: datetime,
    sequence: int,
    *,
    components: Sequence[Component],
    artifacts: Sequence[Stored],
) -> Manifest:
    """Return the manifest of a whole backup."""
    return Manifest(
        id=backup_id,
        stack="stack",
        created_at=instant,
        sequence=sequence,
        status=Status.COMPLETED,
        components=tuple(components),
        artifacts=tuple(artifacts),
        holdfast="test",
    )
