"""Retention against a slow and obvious model, and its rules as properties."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.retention import LEAP, Candidate, Keep, Span, choose

ZONES = [
    "UTC",
    "Asia/Seoul",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/St_Johns",
]
# Around changes of the clock, around new year, and far away, as clocks that leap have it.
HOTSPOTS = [
    datetime(2026, 3, 29, 1, tzinfo=UTC),
    datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC),
    datetime(2026, 12, 31, 22, tzinfo=UTC),
    datetime(2025, 2, 27, 12, tzinfo=UTC),
    datetime(2099, 1, 1, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
]

times = st.builds(
    lambda spot, days, minutes: spot + timedelta(days=days, minutes=minutes),
    st.sampled_from(HOTSPOTS),
    st.integers(-40, 40),
    st.integers(-90, 90),
)
spans = st.builds(Span, st.integers(1, 40), st.sampled_from("hdwmy"))
limits = st.one_of(st.none(), st.integers(0, 6), spans)
policies = st.builds(
    Keep,
    last=st.integers(0, 4),
    hourly=limits,
    daily=limits,
    weekly=limits,
    monthly=limits,
    yearly=limits,
    within=st.none() | spans,
    max_count=st.none() | st.integers(1, 8),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Candidate]:
    if draw(st.booleans()):
        moments = draw(st.lists(times, max_size=25))
    else:  # an ordinary clock
        start = draw(times)
        steps = draw(st.lists(st.integers(1, 60 * 24 * 20), max_size=25))
        moments = [start + timedelta(minutes=sum(steps[: n + 1])) for n in range(len(steps))]
    mostly = st.sampled_from([True, True, True, False])
    rarely = st.sampled_from([False, False, False, True])
    return [
        Candidate(f"b{n:02}", moment, n, draw(mostly), draw(rarely), draw(rarely))
        for n, moment in enumerate(moments)
    ]


def kept(history: list[Candidate], keep: Keep, zone: str) -> set[str]:
    return {d.id for d in choose(history, keep, ZoneInfo(zone)) if d.kept}


def with_rule(keep: Keep, rule: str, limit: Span | int | None) -> Keep:
    changes: dict[str, Any] = {rule: limit}
    return replace(keep, **changes)


# --- the slow and obvious model ------------------------------------------------------------------


def age(backup: Candidate, newest: Candidate, history: list[Candidate]) -> timedelta:
    """How much older than the newest, stretches of more than 400 days without a backup left out."""
    marks = sorted(
        {
            other.created_at
            for other in history
            if backup.created_at <= other.created_at <= newest.created_at
        }
    )
    if backup.created_at > newest.created_at:
        return newest.created_at - backup.created_at
    stretches = [later - earlier for earlier, later in pairwise(marks)]
    return sum((stretch for stretch in stretches if stretch <= LEAP), timedelta())


def reach(newest: Candidate, span: Span, zone: ZoneInfo) -> timedelta:
    """How long a span is that ends at the newest backup, found by turning the calendar back."""
    local = newest.created_at.astimezone(zone)
    if span.unit == "h":
        return timedelta(hours=span.count)
    wall = local.replace(tzinfo=None)
    if span.unit in "dw":
        wall -= timedelta(days=span.count * {"d": 1, "w": 7}[span.unit])
    else:
        months = span.count * {"m": 1, "y": 12}[span.unit]
        day = wall.day
        for _ in range(months):
            wall = wall.replace(day=1) - timedelta(days=1)
        wall = wall.replace(day=1)
        while wall.day != day and (wall + timedelta(days=1)).month == wall.month:
            wall += timedelta(days=1)
    earlier = wall.replace(tzinfo=zone, fold=local.fold if span.unit in "my" else 0)
    return newest.created_at - earlier.astimezone(UTC)


def model(history: list[Candidate], keep: Keep, zone: ZoneInfo) -> set[str]:
    good = [b for b in history if b.good]
    if not good:
        return {b.id for b in history}
    newest = good[-1]
    must = {b.id for b in history if b.pinned} | {newest.id}
    must |= {b.id for b in history if b.sequence > newest.sequence}
    must |= {b.id for b in [b for b in good if b.verified][-1:]}
    wanted: set[str] = set()
    shapes = {
        "hourly": "%Y-%m-%d %H %z",
        "daily": "%Y-%m-%d",
        "weekly": "%G-%V",
        "monthly": "%Y-%m",
        "yearly": "%Y",
    }
    rules = {name: getattr(keep, name) for name in shapes if getattr(keep, name)}
    for name, limit in rules.items():
        label = {b.id: b.created_at.astimezone(zone).strftime(shapes[name]) for b in good}
        heads = [
            b
            for b in good
            if not any(label[o.id] == label[b.id] and o.sequence > b.sequence for o in good)
        ]
        if isinstance(limit, int):
            wanted |= {b.id for b in heads[-limit:]}
        else:
            far = reach(newest, limit, zone)
            wanted |= {b.id for b in heads if age(b, newest, history) < far}
    if keep.last:
        wanted |= {b.id for b in good[-keep.last :]}
    if keep.within:
        far = reach(newest, keep.within, zone)
        wanted |= {b.id for b in history if age(b, newest, history) < far}
    if not (rules or keep.last or keep.within):
        wanted = {b.id for b in (history if keep.max_count is None else good)}
    chosen = must | wanted
    while keep.max_count is not None:
        counted = [b for b in good if b.id in chosen]
        droppable = [b for b in counted if b.id not in must]
        if len(counted) <= keep.max_count or not droppable:
            break
        chosen.remove(droppable[0].id)
    return chosen


@settings(max_examples=600, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES))
def test_it_decides_as_the_slow_and_obvious_model_does(
    history: list[Candidate], keep: Keep, zone: str
) -> None:
    assert kept(history, keep, zone) == model(history, keep, ZoneInfo(zone))


# --- properties ----------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES))
def test_newest_good_newest_verified_and_pinned_always_stay(
    history: list[Candidate], keep: Keep, zone: str
) -> None:
    chosen = kept(history, keep, zone)
    good = [b for b in history if b.good]
    assert {b.id for b in good[-1:]} <= chosen
    assert {b.id for b in [b for b in good if b.verified][-1:]} <= chosen
    assert {b.id for b in history if b.pinned} <= chosen


@settings(max_examples=300, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES))
def test_what_is_not_good_goes_only_when_a_newer_good_one_exists(
    history: list[Candidate], keep: Keep, zone: str
) -> None:
    chosen = kept(history, keep, zone)
    for backup in history:
        if not backup.good and backup.id not in chosen:
            assert any(other.good and other.sequence > backup.sequence for other in history)


@settings(max_examples=600, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES))
def test_choosing_again_among_the_kept_removes_nothing_more(
    history: list[Candidate], keep: Keep, zone: str
) -> None:
    chosen = kept(history, keep, zone)
    assert kept([b for b in history if b.id in chosen], keep, zone) == chosen


@settings(max_examples=300, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES), st.data())
def test_asking_for_more_never_keeps_less(
    history: list[Candidate], keep: Keep, zone: str, data: st.DataObject
) -> None:
    keep = replace(keep, max_count=None)
    rule = data.draw(st.sampled_from(["hourly", "daily", "weekly", "monthly", "yearly"]))
    less, more = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted))
    makers: list[Callable[[int], int | Span]] = [int, lambda n: Span(n, "d")]
    make = data.draw(st.sampled_from(makers))
    smaller = with_rule(keep, rule, make(less))
    larger = with_rule(keep, rule, make(more))
    assert kept(history, smaller, zone) <= kept(history, larger, zone)
    # An empty policy keeps everything, so only a policy that asks for something can grow.
    if keep.last or keep.within:
        assert kept(history, with_rule(keep, rule, None), zone) <= kept(history, smaller, zone)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES))
def test_pinning_one_without_a_cap_never_costs_another(
    history: list[Candidate], keep: Keep, zone: str
) -> None:
    keep = replace(keep, max_count=None)
    before = kept(history, keep, zone)
    for backup in history:
        pinned = [replace(b, pinned=True) if b is backup else b for b in history]
        assert kept(pinned, keep, zone) == before | {backup.id}


@settings(max_examples=300, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES))
def test_a_cap_is_exceeded_only_by_what_must_stay(
    history: list[Candidate], keep: Keep, zone: str
) -> None:
    if keep.max_count is None:
        return
    decisions = {d.id: d for d in choose(history, keep, ZoneInfo(zone))}
    good = [b for b in history if b.good and decisions[b.id].kept]
    always = {"pinned", "newest good", "newest verified"}
    if len(good) > keep.max_count:
        assert all(always & set(decisions[b.id].reasons) for b in good)


@settings(max_examples=200, deadline=None, print_blob=True)
@given(st.integers(1, 20), policies, st.sampled_from(ZONES), st.integers(1, 3))
def test_a_leap_of_the_clock_costs_no_more_than_that_many_ordinary_days(
    count: int, keep: Keep, zone: str, leapt: int
) -> None:
    start = datetime(2026, 2, 4, 12, tzinfo=UTC)
    days = [Candidate(f"b{n:02}", start + timedelta(days=n), n, good=True) for n in range(count)]
    new = range(count, count + leapt)
    far = [Candidate(f"b{n:02}", datetime(2099, 5, 1 + n, tzinfo=UTC), n, good=True) for n in new]
    near = [Candidate(f"b{n:02}", start + timedelta(days=n), n, good=True) for n in new]
    # Buckets of weeks, months and years may fall otherwise there; rules by day must not lose any.
    keep = replace(keep, weekly=None, monthly=None, yearly=None)
    assert kept([*days, *far], keep, zone) >= kept([*days, *near], keep, zone)


@settings(max_examples=200, deadline=None, print_blob=True)
@given(histories(), policies, st.sampled_from(ZONES), st.randoms(use_true_random=False))
def test_the_order_they_are_given_in_does_not_matter(
    history: list[Candidate], keep: Keep, zone: str, chance: random.Random
) -> None:
    shuffled = list(history)
    chance.shuffle(shuffled)
    assert choose(shuffled, keep, ZoneInfo(zone)) == choose(history, keep, ZoneInfo(zone))


def test_the_model_itself_is_no_copy_of_the_code() -> None:
    history = [
        Candidate(f"b{n}", datetime(2026, 2, 1 + n, tzinfo=UTC), n, good=True) for n in range(10)
    ]
    assert model(history, Keep(daily=Span(3, "d")), ZoneInfo("UTC")) == {"b7", "b8", "b9"}
    with pytest.raises(AssertionError):
        assert model(history, Keep(last=2), ZoneInfo("UTC")) == {"b7", "b8", "b9"}
