"""Copy: give a sealed backup to another vault, of whatever kind, checking every byte on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ..errors import BackupDiffers, BackupNotFound
from ..model.manifest import Manifest
from ..ports import Source, Vault
from .guide import restore_guide
from .select import Listed
from .surroundings import Surroundings, counted

ARCHIVE = "tar.zst"


def copy(
    listed: Listed, target: Vault, sources: Sequence[Source], around: Surroundings
) -> Manifest | None:
    """Copy one backup under the same id; returns its manifest there, None if it is there already.

    It takes the place among the backups of the target that its time says, but after those that it
    comes after here, whatever their clock said; and is pinned there if it is here. What was proved
    of it is not copied: that was proved of other bytes.

    Raises:
        BackupDamaged: it is not whole.
        BackupDiffers: the target has another backup of this id.

    """
    manifest = listed.manifest
    if _is_there(manifest, target):
        return None
    stored = []
    with (
        around.step("copy", manifest.id, sum(one.content_size for one in manifest.artifacts)),
        target.draft(manifest.id, manifest.created_at, ARCHIVE) as draft,
    ):
        progress = around.progress("copy", manifest.id)
        for one in manifest.artifacts:
            artifact = counted(listed.vault.artifact(manifest, one), progress)
            stored.append(draft.put(one.component, artifact, _nobody))
        copied = replace(
            manifest,
            sequence=_place(listed, target),
            artifacts=tuple(stored),
            notes=(*manifest.notes, *draft.notes()),
        )
        draft.seal(copied, restore_guide(copied, sources, draft))
    if listed.marks.pinned is not None:
        reason = listed.marks.pinned
        target.mark(manifest.id, lambda marks: replace(marks, pinned=reason))
    return copied


def _is_there(manifest: Manifest, target: Vault) -> bool:
    try:
        there = target.manifest(manifest.id)
    except BackupNotFound:
        return False
    if _compared(there) == _compared(manifest):
        return True
    raise BackupDiffers(backup=manifest.id, vault=target.name)


def _compared(manifest: Manifest) -> Manifest:
    """Return what of a manifest is the same in every vault."""
    return replace(manifest, sequence=0, artifacts=(), notes=())


def _place(listed: Listed, target: Vault) -> int:
    """Return the number of the newest backup there that is older: those of one number go by time.

    A number of its own at the end would make an old backup the newest one. Of what comes later by
    the clock, but came first in the vault it is copied from, the clock was wrong: one number more.
    """
    there = [one for one in target.manifests() if isinstance(one, Manifest)]
    later = [one for one in there if _by_clock(one) > _by_clock(listed.manifest)]
    first = _before(listed) if later else frozenset()
    older = [one.sequence for one in there if one not in later]
    passed = [one.sequence + 1 for one in later if one.id in first]
    return max(older + passed, default=0)


def _by_clock(manifest: Manifest) -> tuple[datetime, str]:
    return manifest.created_at, manifest.id


def _before(listed: Listed) -> frozenset[str]:
    """Return the ids of the backups that come before one in its own vault."""
    ids = [one.id for one in listed.vault.manifests() if isinstance(one, Manifest)]
    here = listed.manifest.id
    return frozenset(ids[: ids.index(here)] if here in ids else ())


def _nobody(_done: int) -> None:
    """Tell nobody: reading is what is told."""
