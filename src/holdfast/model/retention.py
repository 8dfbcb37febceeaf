"""Retention: which backups a policy keeps, and for which reason. Pure; no clock is asked.

What protects is stronger than what was asked for: only good backups fill slots, the newest good
one, the newest verified one and every pinned one always stay, and a clock that leapt deletes
nothing. Backups are ordered by their sequence, never by their time.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

from ..i18n import _

LEAP = timedelta(days=400)
"""A stretch longer than this without any backup does not age what lies before it: the clock leapt,
or nothing ran for more than a year, and neither is a reason to delete. No policy that is met by
regular backups, yearly ones included, has such a stretch."""

_LONGEST_DAYS = 400 * 366
_DAYS = {"h": 1 / 24, "d": 1, "w": 7, "m": 31, "y": 366}
_SPAN = re.compile(r"([0-9]{1,9})([hdwmy])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """A length of calendar time, as policies write it: ``24h``, ``30d``, ``12w``, ``1y``."""

    count: int
    unit: str  # one of h d w m y

    def __str__(self) -> str:
        """Return the span as policies write it."""
        return f"{self.count}{self.unit}"


@dataclass(frozen=True, slots=True)
class Keep:
    """A policy. A number keeps that many; a span keeps what is that close to the newest."""

    last: int = 0
    hourly: Span | int | None = None
    daily: Span | int | None = None
    weekly: Span | int | None = None
    monthly: Span | int | None = None
    yearly: Span | int | None = None
    within: Span | None = None
    max_count: int | None = None


class Reason(StrEnum):
    """Why a backup is kept or goes. The words are stable: scripts and the audit trail read them."""

    NEWEST_GOOD = "newest good"
    NEWEST_VERIFIED = "newest verified"
    PINNED = "pinned"
    LAST = "last"
    HOURLY = "hourly"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    YEARLY = "yearly"
    WITHIN = "within"
    NO_RULE = "no rule given"  # an empty policy keeps everything
    NEWER = "newer than newest good"  # not good, but nothing good has taken its place yet
    OVER_COUNT = "over max_count"  # from here on: why one goes
    NOT_GOOD = "not good"
    NOT_CHOSEN = "no rule keeps it"


_ALWAYS = frozenset({Reason.NEWEST_GOOD, Reason.NEWEST_VERIFIED, Reason.PINNED})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sealed backup as retention sees it.

    ``good`` means complete, without components kept as evidence, and not failed in its newest
    verification; ``verified`` counts only where it is good.
    """

    id: str
    created_at: datetime  # with a time zone
    sequence: int
    good: bool
    verified: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a backup is kept, and every reason for it, as words of `Reason`."""

    id: str
    kept: bool
    reasons: tuple[str, ...]


def parse_span(text: str) -> Span:
    """Return the span that a policy wrote. Raises ``ValueError`` if it is none, zero or absurd."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(_("must be a span such as 24h, 30d, 12w, 12m or 1y"))
    span = Span(int(match[1]), match[2])
    if span.count == 0:
        raise ValueError(_("must be at least 1"))
    if span.count * _DAYS[span.unit] > _LONGEST_DAYS:
        raise ValueError(_("must be no longer than 400y"))
    return span


def parse_count_or_span(value: object) -> Span | int:
    """Return how many buckets, or which span, a policy wrote. Raises ``ValueError`` otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch("[0-9]{1,9}", text, re.ASCII) else parse_span(text)
    raise ValueError(_("must be a count such as 7, or a span such as 24h, 30d, 12w, 12m or 1y"))


def choose(candidates: Iterable[Candidate], keep: Keep, zone: tzinfo) -> list[Decision]:
    """Decide for each backup whether the policy keeps it; oldest first, by sequence.

    ``zone`` is where hours, days, weeks (ISO), months and years begin. In each of them the newest
    good backup is kept. Spans reach back from the newest good backup's own time.
    """
    oldest_first = sorted(candidates, key=lambda c: (c.sequence, c.created_at, c.id))
    good = [candidate for candidate in reversed(oldest_first) if candidate.good]
    reasons: dict[str, set[Reason]] = {candidate.id: set() for candidate in oldest_first}
    _protect(oldest_first, good, reasons)
    if good:
        timeline = _Timeline(oldest_first, good[0], zone)
        _apply_rules(oldest_first, good, keep, timeline, reasons)
        over = _over_count(good, keep, reasons)
    else:
        over = frozenset[str]()
    return [_decision(candidate, reasons[candidate.id], over) for candidate in oldest_first]


def _protect(
    oldest_first: Sequence[Candidate], good: Sequence[Candidate], reasons: dict[str, set[Reason]]
) -> None:
    """Give their reasons to those that stay whatever the policy says."""
    for candidate in oldest_first:
        if candidate.pinned:
            reasons[candidate.id].add(Reason.PINNED)
    for candidate in reversed(oldest_first):
        if candidate.good:
            break
        reasons[candidate.id].add(Reason.NEWER)
    if good:
        reasons[good[0].id].add(Reason.NEWEST_GOOD)
    for candidate in good:
        if candidate.verified:
            reasons[candidate.id].add(Reason.NEWEST_VERIFIED)
            break


def _apply_rules(
    oldest_first: Sequence[Candidate],
    good: Sequence[Candidate],
    keep: Keep,
    timeline: _Timeline,
    reasons: dict[str, set[Reason]],
) -> None:
    if _is_empty(keep):
        # With a cap alone, what is not good still makes room: it is no backup to fall back on.
        for candidate in oldest_first if keep.max_count is None else good:
            reasons[candidate.id].add(Reason.NO_RULE)
        return
    for candidate in good[: keep.last]:
        reasons[candidate.id].add(Reason.LAST)
    for rule, limit, bucket in _buckets(keep):
        for candidate in _newest_of_each(good, limit, bucket, timeline):
            reasons[candidate.id].add(rule)
    if keep.within:
        for candidate in timeline.reached(oldest_first, keep.within):
            reasons[candidate.id].add(Reason.WITHIN)


def _is_empty(keep: Keep) -> bool:
    """Tell whether no rule asks for anything: then everything stays, rather than nothing."""
    return not (keep.last or keep.within or list(_buckets(keep)))


Bucket = Callable[[datetime], Hashable]


def _buckets(keep: Keep) -> Iterable[tuple[Reason, Span | int, Bucket]]:
    """Give the bucket rules that are in force: the reason, the limit, the bucket of a time."""
    rules: tuple[tuple[Reason, Span | int | None, Bucket], ...] = (
        # An hour that the clock shows twice in autumn is two hours; the offset tells them apart.
        (Reason.HOURLY, keep.hourly, lambda t: (t.date(), t.hour, t.utcoffset())),
        (Reason.DAILY, keep.daily, lambda t: t.date()),
        (Reason.WEEKLY, keep.weekly, lambda t: t.isocalendar()[:2]),
        (Reason.MONTHLY, keep.monthly, lambda t: (t.year, t.month)),
        (Reason.YEARLY, keep.yearly, lambda t: t.year),
    )
    return ((rule, limit, bucket) for rule, limit, bucket in rules if limit)


def _newest_of_each(
    good: Sequence[Candidate], limit: Span | int, bucket: Bucket, timeline: _Timeline
) -> list[Candidate]:
    newest: dict[Hashable, Candidate] = {}
    for candidate in good:
        newest.setdefault(bucket(timeline.local(candidate)), candidate)
    if isinstance(limit, Span):
        return timeline.reached(newest.values(), limit)
    return list(newest.values())[:limit]


def _over_count(
    good: Sequence[Candidate], keep: Keep, reasons: dict[str, set[Reason]]
) -> frozenset[str]:
    """Return the good backups that a cap lets go: the oldest first, never a protected one."""
    kept = [candidate.id for candidate in good if reasons[candidate.id]]
    if keep.max_count is None or len(kept) <= keep.max_count:
        return frozenset()
    may_go = [name for name in reversed(kept) if not reasons[name] & _ALWAYS]
    return frozenset(may_go[: len(kept) - keep.max_count])


def _decision(candidate: Candidate, reasons: set[Reason], over: frozenset[str]) -> Decision:
    if reasons and candidate.id not in over:
        return Decision(candidate.id, kept=True, reasons=tuple(r for r in Reason if r in reasons))
    if candidate.id in over:
        why = Reason.OVER_COUNT
    else:
        why = Reason.NOT_CHOSEN if candidate.good else Reason.NOT_GOOD
    return Decision(candidate.id, kept=False, reasons=(why,))


class _Timeline:
    """The times of all backups, seen from the newest good one, without the leaps of the clock."""

    def __init__(self, everyone: Sequence[Candidate], newest: Candidate, zone: tzinfo) -> None:
        self._zone = zone
        self._newest = _in_utc(newest.created_at)
        # Leaps are found on the axis of time, not from neighbour to neighbour: so a backup that
        # is deleted can only make the others look younger, and never brings about a next deletion.
        self._leaps: list[tuple[datetime, timedelta]] = []
        later = self._newest
        for time in sorted({_in_utc(c.created_at) for c in everyone}, reverse=True):
            if time < later:
                if later - time > LEAP:
                    self._leaps.append((time, later - time))
                later = time

    def local(self, candidate: Candidate) -> datetime:
        """Return the time that a clock on the wall showed."""
        return _in_zone(candidate.created_at, self._zone)

    def reached(self, candidates: Iterable[Candidate], span: Span) -> list[Candidate]:
        """Return those that a span reaches, back from the newest good one, which is included."""
        edge = _before(_in_zone(self._newest, self._zone), span)
        if edge is None:
            return list(candidates)
        return [c for c in candidates if self._seen(_in_utc(c.created_at)) > edge]

    def _seen(self, time: datetime) -> datetime:
        leapt = (stretch for before, stretch in self._leaps if time <= before)
        return time + sum(leapt, timedelta())


def _in_utc(time: datetime) -> datetime:
    """Return the time in UTC, where comparing and subtracting know no summer time."""
    return _in_zone(time, UTC)


def _in_zone(time: datetime, zone: tzinfo) -> datetime:
    try:
        return time.astimezone(zone)
    except OverflowError:  # in the first or last hours of the calendar: hours off, but it sorts
        return time.replace(tzinfo=zone)


def _before(local: datetime, span: Span) -> datetime | None:
    """Return the instant a span before a local time; None: before the calendar begins.

    Hours are real hours; the other units follow the calendar, so that a day with 23 or 25 hours is
    one day, and a month before 31 March is 28 or 29 February.
    """
    try:
        if span.unit == "h":
            return local.astimezone(UTC) - timedelta(hours=span.count)
        if span.unit in "dw":
            days = span.count * (7 if span.unit == "w" else 1)
            return (local - timedelta(days=days)).astimezone(UTC)
        months = span.count * (12 if span.unit == "y" else 1)
        year, month = divmod(local.year * 12 + local.month - 1 - months, 12)
        day = min(local.day, monthrange(year, month + 1)[1])
        return local.replace(year=year, month=month + 1, day=day).astimezone(UTC)
    except (OverflowError, ValueError):
        return None
