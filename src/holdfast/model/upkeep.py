"""Upkeep of a vault that keeps content once: what pruning, checking and repairing found and did."""

from __future__ import annotations

from dataclasses import dataclass, field

TOLERATED = 0.05  # share of a vault that may be bytes which nothing needs: restic's default
MOST_TOLD = 10_000  # problems that are put into words; more are only counted
_DAY = 86_400


@dataclass(slots=True)
class Pruned:
    """What a run found and did, or would do. Sizes are bytes as they lie in packs."""

    snapshots: int = 0
    used_blobs: int = 0
    used: int = 0  # of blobs that snapshots need, each once
    unused_blobs: int = 0
    unused: int = 0  # of blobs that nothing needs, second copies included
    unlisted_packs: int = 0  # that runs left which died
    unlisted: int = 0
    deleted_packs: int = 0  # of which nothing is needed
    deleted: int = 0
    repacked_packs: int = 0
    repacked: int = 0  # bytes that are moved
    freed: int = 0  # in all
    left: int = 0  # bytes not needed that stay
    index_files: int = 0  # that were replaced
    held: list[str] = field(default_factory=list)  # packs that object lock keeps a while


@dataclass(frozen=True, slots=True)
class Share:
    """The packs whose turn it is on a day: those whose id, modulo ``days``, is the day's number.

    The id of a pack is a hash, so that each day's share is one part in ``days``, more or less: of
    n packs it has n/days, with a standard deviation of the root of that. What comes and goes does
    not change the turn of others. A pack that is there throughout is read exactly once in any
    ``days`` consecutive days on each of which a check runs; damage to it is found ``days`` days
    later at the latest, half as many on average. This is certain, not probable. A day without a
    run leaves its packs for ``days`` more: if each day is missed with probability q, whatever
    happens on others, a pack is read within k·days days with probability 1 - q^k. Running more
    often than once a day reads the same packs again.
    """

    day: int  # the day's number; since 1970, for whoever has no other
    days: int

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if self.days < 1:
            bug = f"data cannot be read once in {self.days} days"
            raise ValueError(bug)

    def has(self, pack: bytes) -> bool:
        """Tell whether it is a pack's turn."""
        return int.from_bytes(pack[:16], "big") % self.days == self.day % self.days


EVERYTHING = Share(0, 1)


def share_at(seconds: float, days: int) -> Share:
    """Return the share of the day that an instant is in, in seconds since 1970, UTC."""
    return Share(int(seconds // _DAY), days)


@dataclass(slots=True)
class Checked:
    """What was found. Sound is a repository without ``problems``."""

    problems: list[str] = field(default_factory=list)  # `MOST_TOLD` at most
    more: int = 0  # problems beyond these
    hints: list[str] = field(default_factory=list)  # what is untidy, but harms nobody
    snapshots: int = 0
    packs: int = 0
    blobs: int = 0
    packs_read: int = 0
    bytes_read: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with what was looked at."""
        return not self.problems

    def problem(self, text: object) -> None:
        """Note what is wrong."""
        if len(self.problems) < MOST_TOLD:
            self.problems.append(str(text))
        else:
            self.more += 1


@dataclass(slots=True)
class IndexRepaired:
    """What listing anew found."""

    packs: int = 0
    blobs: int = 0
    damaged_files: list[str] = field(default_factory=list)  # index files, and why
    damaged_packs: list[str] = field(default_factory=list)  # whose header cannot be read, and why
    replaced: int = 0  # index files


@dataclass(slots=True)
class PacksRepaired:
    """What moving sound content out of damaged packs found and did."""

    packs: int = 0  # that were read
    damaged: dict[str, list[str]] = field(default_factory=dict)  # by name: what is wrong
    moved: int = 0  # sound blobs that were in damaged packs
    lost: int = 0  # blobs that were in damaged packs, and are nowhere sound


@dataclass(frozen=True, slots=True)
class Loss:
    """A file or folder of a snapshot that cannot be had any more, or not all of it."""

    snapshot: str
    backup: str  # its id; empty for snapshots that are not ours
    artifact: str  # where the artifact lies that it is, or is in; empty for what is in none
    path: str  # in the snapshot; empty for all of it
    reason: str


@dataclass(slots=True)
class SnapshotsRepaired:
    """What was lost, and what was done about it."""

    snapshots: int = 0  # that were looked at
    losses: list[Loss] = field(default_factory=list)  # a hundred thousand at most
    more: int = 0  # losses beyond these
    hopeless: list[str] = field(default_factory=list)  # snapshots of which nothing is left
    repaired: dict[str, str] = field(default_factory=dict)  # names: of each, its repaired one's
    backups: dict[str, str] = field(default_factory=dict)  # ids: of each, its repaired one's
    forgotten: list[str] = field(default_factory=list)  # names of snapshots that were removed
    pinned: list[str] = field(default_factory=list)  # ids that were not, because they are pinned
