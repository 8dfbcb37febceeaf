"""Finding backups by the names people give them: an id, `latest`, `latest-verified`, a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ..errors import BackupDamaged, BackupNotFound
from ..model.manifest import Manifest
from ..model.marks import Marks
from ..model.names import LATEST, LATEST_VERIFIED, safe_backup_id
from ..ports import Damaged, Vault


@dataclass(frozen=True, slots=True)
class Listed:
    """A sealed backup together with what was learned of it since."""

    vault: Vault
    manifest: Manifest
    marks: Marks

    @property
    def good(self) -> bool:
        """Whole, not evidence of damage, and not found damaged since."""
        return self.manifest.good and not self.marks.failed


@dataclass(frozen=True, slots=True)
class Listing:
    """The backups of a stack in one vault, oldest first, and those that cannot be read."""

    vault: Vault
    backups: tuple[Listed, ...]
    damaged: tuple[Damaged, ...]

    @property
    def found_any(self) -> bool:
        """Whether there is anything at all, readable or not."""
        return bool(self.backups or self.damaged)


def list_backups(vault: Vault, stack: str) -> Listing:
    """Return every backup of one stack that a vault holds."""
    ours: list[Manifest] = []
    damaged: list[Damaged] = []
    for found in vault.manifests():
        if isinstance(found, Damaged):
            damaged.append(found)
        elif found.stack == stack:
            ours.append(found)
    marks = vault.marks_of([one.id for one in ours])
    backups = tuple(Listed(vault, one, marks[one.id]) for one in ours)
    return Listing(vault, backups, tuple(damaged))


def find(vaults: list[Vault], stack: str, wanted: str, *, at: datetime | None = None) -> Listed:
    """Return the backup that `wanted` names, from the first vault that has it.

    ``at`` chooses the newest good backup that is not later, and goes with ``latest`` only.

    Raises:
        BackupNotFound: no vault has it, or none that qualifies.
        BackupDamaged: it is there, but its manifest cannot be trusted.
        UnsafeName: the id could never name a backup.

    """
    if wanted in {LATEST, LATEST_VERIFIED}:
        return _newest(vaults, stack, wanted, at)
    safe_backup_id(wanted)
    return _exactly(vaults, stack, wanted)


def _newest(vaults: list[Vault], stack: str, wanted: str, at: datetime | None) -> Listed:
    found = [listed for vault in vaults for listed in _qualified(vault, stack, wanted, at)]
    if not found:
        name = wanted if at is None else f"{wanted} at {at.isoformat(timespec='seconds')}"
        raise BackupNotFound(backup=name, where=_names(vaults))
    # Within a vault the sequence decides, so a clock that jumped cannot hide the newest backup;
    # between vaults only the time can be compared. The first vault named wins a tie.
    return max(found, key=lambda listed: listed.manifest.created_at)


def _qualified(vault: Vault, stack: str, wanted: str, at: datetime | None) -> Iterator[Listed]:
    for listed in reversed(list_backups(vault, stack).backups):
        if not listed.good or (wanted == LATEST_VERIFIED and listed.marks.verified is None):
            continue
        if at is None or listed.manifest.created_at <= at:
            yield listed
            return


def _exactly(vaults: list[Vault], stack: str, wanted: str) -> Listed:
    damage: BackupDamaged | None = None
    for vault in vaults:
        try:
            manifest = vault.manifest(wanted)
        except BackupNotFound:
            continue
        except BackupDamaged as error:
            damage = error  # another vault may hold a sound copy
            continue
        if manifest.stack == stack:
            return Listed(vault, manifest, vault.marks(wanted))
    if damage is not None:
        raise damage
    raise BackupNotFound(backup=wanted, where=_names(vaults))


def _names(vaults: list[Vault]) -> str:
    return ", ".join(vault.name for vault in vaults)
