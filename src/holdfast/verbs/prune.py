"""Prune: delete what a retention policy does not keep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from ..model.retention import Candidate, Decision, Keep, choose
from .select import Listed, Listing
from .surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Pruning:
    """What a policy decides for each backup of a listing, oldest first."""

    listing: Listing
    keep: Keep
    timezone: str
    decisions: tuple[Decision, ...]

    @property
    def doomed(self) -> list[Listed]:
        """The backups that go."""
        gone = {decision.id for decision in self.decisions if not decision.kept}
        return [listed for listed in self.listing.backups if listed.manifest.id in gone]

    def only(self, agreed: Pruning) -> Pruning:
        """Return the same, but let go only what an earlier decision let go too."""
        gone = {decision.id for decision in agreed.decisions if not decision.kept}
        decisions = (replace(d, kept=d.kept or d.id not in gone) for d in self.decisions)
        return replace(self, decisions=tuple(decisions))


def plan_pruning(listing: Listing, keep: Keep, timezone: str) -> Pruning:
    """Decide, and delete nothing. Backups whose manifest is damaged are never touched."""
    candidates = [_candidate(listed) for listed in listing.backups]
    decisions = tuple(choose(candidates, keep, ZoneInfo(timezone)))
    return Pruning(listing, keep, timezone, decisions)


def _candidate(listed: Listed) -> Candidate:
    return Candidate(
        id=listed.manifest.id,
        created_at=listed.manifest.created_at,
        sequence=listed.manifest.sequence,
        good=listed.good,
        verified=listed.marks.verified is not None,
        pinned=listed.marks.pinned is not None,
    )


def prune(pruning: Pruning, around: Surroundings) -> list[str]:
    """Delete what was decided to go, oldest first; returns the ids."""
    gone = []
    for listed in pruning.doomed:
        backup_id = listed.manifest.id
        # A pin may have been set since the decision.
        if listed.vault.marks(backup_id).pinned is not None:
            around.warn("pinned in the meantime: kept", backup_id)
            continue
        with around.step("delete", backup_id):
            listed.vault.delete(backup_id)
        gone.append(backup_id)
    return gone
