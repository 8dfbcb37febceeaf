from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from holdfast.model.retention import (
    Candidate,
    Decision,
    Keep,
    Reason,
    Span,
    choose,
    parse_count_or_span,
    parse_span,
)

START = datetime(2026, 2, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def wall(text: str) -> datetime:
    """Return a time on the wall, to which a zone is still to be given."""
    return datetime.fromisoformat(text)


def every(step: timedelta, count: int, *, start: datetime = START) -> list[Candidate]:
    return [
        Candidate(f"b{number:04}", start + step * number, number, good=True)
        for number in range(count)
    ]


def replaced(backups: list[Candidate], number: int, **changes: bool) -> None:
    old = backups[number]
    values = {"good": old.good, "verified": old.verified, "pinned": old.pinned, **changes}
    backups[number] = Candidate(old.id, old.created_at, old.sequence, **values)


def kept(decisions: Iterable[Decision]) -> list[str]:
    return [decision.id for decision in decisions if decision.kept]


def why(decisions: Iterable[Decision], name: str) -> tuple[str, ...]:
    return next(decision.reasons for decision in decisions if decision.id == name)


def ids(backups: Sequence[Candidate]) -> list[str]:
    return [backup.id for backup in backups]


# --- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["24h", "30d", "12w", "12m", "1y", "400y"])
def test_a_span_is_read_and_written_alike(text: str) -> None:
    assert str(parse_span(text)) == text


@pytest.mark.parametrize(
    "text", ["", "d", "30", "30 d", "-3d", "3.5d", "30D", "1h30m", "٣d", "30d\n30d", "d30", "1s"]
)
def test_what_is_no_span_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="must be a span such as 24h, 30d, 12w, 12m or 1y"):
        parse_span(text)


def test_a_span_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        parse_span("0d")


@pytest.mark.parametrize("text", ["401y", "999999999d", "999999999w", "999999999m"])
def test_a_span_longer_than_any_calendar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no longer than 400y"):
        parse_span(text)


def test_a_rule_is_a_count_or_a_span() -> None:
    assert parse_count_or_span(7) == 7
    assert parse_count_or_span("7") == 7
    assert parse_count_or_span(" 30d ") == Span(30, "d")


@pytest.mark.parametrize("value", [True, -1, 1.5, None, [], {}])
def test_a_rule_that_is_neither_count_nor_span_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a count such as 7, or a span such as"):
        parse_count_or_span(value)


# --- rules ---------------------------------------------------------------------------------------


def test_an_empty_policy_keeps_everything_even_what_is_not_good() -> None:
    backups = every(DAY, 5)
    replaced(backups, 1, good=False)
    decisions = choose(backups, Keep(), UTC)
    assert kept(decisions) == ids(backups)
    assert why(decisions, "b0001") == ("no rule given",)


def test_counts_of_zero_are_an_empty_policy_too() -> None:
    assert kept(choose(every(DAY, 3), Keep(last=0, daily=0), UTC)) == ["b0000", "b0001", "b0002"]


def test_last_keeps_that_many_good_ones() -> None:
    backups = every(DAY, 6)
    replaced(backups, 4, good=False)
    decisions = choose(backups, Keep(last=3), UTC)
    assert kept(decisions) == ["b0002", "b0003", "b0005"]
    assert why(decisions, "b0005") == ("newest good", "last")
    assert why(decisions, "b0004") == ("not good",)
    assert why(decisions, "b0001") == ("no rule keeps it",)


def test_decisions_come_oldest_first_by_sequence_whatever_order_they_are_given_in() -> None:
    backups = every(DAY, 9)
    shuffled = random.Random(20260204).sample(backups, len(backups))
    assert [d.id for d in choose(shuffled, Keep(last=2), UTC)] == ids(backups)


def test_a_span_of_days_keeps_the_newest_of_each_of_that_many_days() -> None:
    backups = every(timedelta(hours=6), 40 * 4, start=datetime(2026, 2, 1, 5, tzinfo=UTC))
    decisions = choose(backups, Keep(daily=Span(30, "d")), UTC)
    # Four a day at 05, 11, 17 and 23 o'clock: the one of 23 o'clock stays, for 30 days.
    assert kept(decisions) == [b.id for b in backups if b.created_at.hour == 23][-30:]


def test_a_count_of_days_passes_over_days_without_a_backup() -> None:
    backups = every(3 * DAY, 20)
    assert len(kept(choose(backups, Keep(daily=7), UTC))) == 7
    assert len(kept(choose(backups, Keep(daily=Span(7, "d")), UTC))) == 3


def test_hours_weeks_months_and_years_each_keep_their_newest() -> None:
    backups = every(timedelta(minutes=20), 24 * 3 * 4)
    assert len(kept(choose(backups, Keep(hourly=Span(24, "h")), UTC))) == 24
    backups = every(DAY, 800, start=datetime(2024, 1, 1, 12, tzinfo=UTC))
    weekly = set(kept(choose(backups, Keep(weekly=5), UTC)))
    assert [b.created_at.isoweekday() for b in backups if b.id in weekly][:-1] == [7, 7, 7, 7]
    monthly = set(kept(choose(backups, Keep(monthly=Span(12, "m")), UTC)))
    days = [b.created_at.date() for b in backups if b.id in monthly]
    assert len(days) == 13  # 10 March reaches back to 10 March, and so to the 31st
    assert all((day + DAY).day == 1 for day in days[:-1])
    yearly = set(kept(choose(backups, Keep(yearly=3), UTC)))
    assert [str(b.created_at.date()) for b in backups if b.id in yearly] == [
        "2024-12-31",
        "2025-12-31",
        "2026-03-10",
    ]


def test_iso_weeks_do_not_break_at_new_year() -> None:
    backups = every(DAY, 7, start=datetime(2025, 12, 29, 12, tzinfo=UTC))  # Monday of 2026-W01
    assert kept(choose(backups, Keep(weekly=9), UTC)) == ["b0006"]


def test_within_keeps_everything_of_that_time_good_or_not() -> None:
    backups = every(DAY, 10)
    replaced(backups, 8, good=False)
    replaced(backups, 2, good=False)
    decisions = choose(backups, Keep(within=Span(3, "d")), UTC)
    assert kept(decisions) == ["b0007", "b0008", "b0009"]
    assert why(decisions, "b0008") == ("within",)


def test_a_month_before_the_31st_is_the_last_day_of_february() -> None:
    times = [wall("2026-02-27T13:00"), wall("2026-02-28T13:00"), wall("2026-03-31T12:00")]
    backups = [
        Candidate(f"b{n}", time.replace(tzinfo=UTC), n, good=True) for n, time in enumerate(times)
    ]
    assert kept(choose(backups, Keep(within=Span(1, "m")), UTC)) == ["b1", "b2"]


def test_a_month_before_31_may_is_30_april() -> None:
    times = [wall("2026-04-29T12:00"), wall("2026-04-30T13:00"), wall("2026-05-31T12:00")]
    backups = [
        Candidate(f"b{n}", time.replace(tzinfo=UTC), n, good=True) for n, time in enumerate(times)
    ]
    assert kept(choose(backups, Keep(within=Span(1, "m")), UTC)) == ["b1", "b2"]


def test_a_cap_drops_the_oldest_first() -> None:
    decisions = choose(every(DAY, 20), Keep(daily=Span(30, "d"), max_count=10), UTC)
    assert kept(decisions) == [f"b{n:04}" for n in range(10, 20)]
    assert why(decisions, "b0009") == ("over max_count",)


def test_pinned_and_newest_verified_count_in_a_cap_but_never_fall_to_it() -> None:
    backups = every(DAY, 10)
    replaced(backups, 0, pinned=True)
    replaced(backups, 3, verified=True)
    decisions = choose(backups, Keep(last=10, max_count=4), UTC)
    assert kept(decisions) == ["b0000", "b0003", "b0008", "b0009"]
    assert kept(choose(backups, Keep(last=10, max_count=1), UTC)) == ["b0000", "b0003", "b0009"]


def test_a_cap_alone_keeps_the_newest_and_lets_old_partial_ones_go() -> None:
    backups = every(DAY, 6)
    replaced(backups, 1, good=False)
    assert kept(choose(backups, Keep(max_count=3), UTC)) == ["b0003", "b0004", "b0005"]
    assert kept(choose(backups, Keep(max_count=50), UTC)) == [
        "b0000",
        "b0002",
        "b0003",
        "b0004",
        "b0005",
    ]


def test_without_any_good_backup_nothing_goes() -> None:
    backups = every(DAY, 4)
    for number in range(4):
        replaced(backups, number, good=False)
    decisions = choose(backups, Keep(last=1, max_count=1), UTC)
    assert kept(decisions) == ids(backups)
    assert why(decisions, "b0000") == ("newer than newest good",)


def test_a_partial_backup_stays_until_a_newer_good_one_exists() -> None:
    backups = every(DAY, 3)
    replaced(backups, 2, good=False)
    assert kept(choose(backups, Keep(last=1), UTC)) == ["b0001", "b0002"]
    backups.append(Candidate("b0003", START + 3 * DAY, 3, good=True))
    assert kept(choose(backups, Keep(last=1), UTC)) == ["b0003"]


def test_weeks_of_partial_backups_do_not_age_the_good_ones_away() -> None:
    backups = every(DAY, 60)
    for number in range(5, 60):
        replaced(backups, number, good=False)
    assert kept(choose(backups, Keep(within=Span(7, "d")), UTC)) == ids(backups)


def test_verified_counts_only_where_the_backup_is_good() -> None:
    backups = every(DAY, 4)
    replaced(backups, 0, verified=True)
    replaced(backups, 1, good=False, verified=True)
    decisions = choose(backups, Keep(last=1), UTC)
    assert kept(decisions) == ["b0000", "b0003"]
    assert why(decisions, "b0000") == ("newest verified",)


def test_a_pinned_backup_stays_even_if_it_is_not_good() -> None:
    backups = every(DAY, 4)
    replaced(backups, 0, good=False, pinned=True)
    decisions = choose(backups, Keep(last=1, max_count=1), UTC)
    assert kept(decisions) == ["b0000", "b0003"]
    assert why(decisions, "b0000") == ("pinned",)


# --- clocks --------------------------------------------------------------------------------------

TYPICAL = Keep(hourly=Span(24, "h"), daily=Span(30, "d"), monthly=Span(12, "m"))


def test_a_clock_that_leapt_to_2099_deletes_nothing_more_than_an_ordinary_day() -> None:
    before = every(DAY, 20)
    leapt = [
        *before,
        *(
            Candidate(f"z{n}", datetime(2099, 1, 1 + n, tzinfo=UTC), 20 + n, good=True)
            for n in range(3)
        ),
    ]
    assert kept(choose(leapt, TYPICAL, UTC)) == ids(leapt)
    assert kept(choose(leapt, Keep(within=Span(30, "d")), UTC)) == ids(leapt)


def test_when_the_clock_is_right_again_ageing_goes_on_as_before() -> None:
    backups = every(DAY, 60)
    odd = Candidate("z", datetime(2099, 1, 1, tzinfo=UTC), 30, good=True)
    later = [
        Candidate(b.id, b.created_at, b.sequence + (b.sequence >= 30), good=True) for b in backups
    ]
    with_odd = kept(choose([*later, odd], TYPICAL, UTC))
    assert set(with_odd) - {"z"} == set(kept(choose(backups, TYPICAL, UTC)))


def test_a_clock_that_fell_back_to_1970_deletes_nothing() -> None:
    backups = every(DAY, 20)
    backups.append(Candidate("z", datetime(1970, 1, 1, tzinfo=UTC), 20, good=True))
    assert kept(choose(backups, TYPICAL, UTC)) == ids(backups)


def test_a_pause_of_a_month_does_age_what_lies_before_it() -> None:
    backups = [*every(DAY, 5), Candidate("late", START + 45 * DAY, 5, good=True)]
    assert kept(choose(backups, Keep(daily=Span(30, "d")), UTC)) == ["late"]


def test_yearly_backups_are_no_leap() -> None:
    backups = [
        Candidate(f"b{year}", datetime(year, 6, 1, tzinfo=UTC), year, good=True)
        for year in range(2000, 2027)
    ]
    decisions = choose(backups, Keep(yearly=Span(10, "y")), UTC)
    assert kept(decisions) == [f"b{year}" for year in range(2017, 2027)]


def test_times_at_the_ends_of_the_calendar_are_survived() -> None:
    backups = [
        Candidate("first", datetime.min.replace(tzinfo=ZoneInfo("Asia/Seoul")), 1, good=True),
        Candidate("last", datetime.max.replace(tzinfo=ZoneInfo("America/New_York")), 2, good=True),
    ]
    for zone in ("Asia/Seoul", "America/New_York", "UTC"):
        rules = Keep(hourly=2, daily=Span(400, "y"), weekly=Span(1, "w"), monthly=3, yearly=1)
        assert kept(choose(backups, rules, ZoneInfo(zone))) == ["first", "last"]
    assert kept(choose(backups[:1], Keep(within=Span(400, "y")), UTC)) == ["first"]


@pytest.mark.parametrize(
    ("zone", "autumn", "spring"),
    [
        ("Europe/Berlin", wall("2026-10-25"), wall("2026-03-29")),
        ("America/New_York", wall("2026-11-01"), wall("2026-03-08")),
        ("Australia/Lord_Howe", wall("2026-04-05"), wall("2026-10-04")),
        ("America/St_Johns", wall("2026-11-01"), wall("2026-03-08")),
    ],
)
def test_a_day_on_which_the_clock_changes_is_one_day(
    zone: str, autumn: datetime, spring: datetime
) -> None:
    local = ZoneInfo(zone)
    for changing in (autumn, spring):
        noon = changing.replace(hour=12, tzinfo=local).astimezone(UTC)
        backups = every(timedelta(minutes=30), 48 * 6, start=noon - 3 * DAY)
        names = set(kept(choose(backups, Keep(daily=9), local)))
        chosen = [b.created_at.astimezone(local) for b in backups if b.id in names]
        days = [time.date() for time in chosen]
        assert days == sorted(set(days))
        assert changing.date() in days
        assert all(time.hour == 23 for time in chosen[:-1])


@pytest.mark.parametrize(
    ("zone", "changing", "hours"),
    [
        ("Europe/Berlin", wall("2026-10-25"), 25),
        ("Europe/Berlin", wall("2026-03-29"), 23),
        ("Asia/Seoul", wall("2026-03-29"), 24),
    ],
)
def test_an_hour_that_comes_twice_is_kept_twice(zone: str, changing: datetime, hours: int) -> None:
    local = ZoneInfo(zone)
    midnight = changing.replace(tzinfo=local).astimezone(UTC)
    end = (changing + DAY).replace(tzinfo=local).astimezone(UTC)
    backups = every(timedelta(minutes=20), int((end - midnight) / timedelta(minutes=20)))
    backups = every(timedelta(minutes=20), len(backups), start=midnight)
    assert len(kept(choose(backups, Keep(hourly=100), local))) == hours


def test_the_day_begins_where_the_plan_says() -> None:
    late = datetime(2026, 2, 4, 14, 59, tzinfo=UTC)  # 23:59 in Seoul
    backups = every(timedelta(minutes=2), 2, start=late)
    assert kept(choose(backups, Keep(daily=9), UTC)) == ["b0001"]
    assert kept(choose(backups, Keep(daily=9), ZoneInfo("Asia/Seoul"))) == ["b0000", "b0001"]


def test_thirty_days_are_thirty_nightly_backups_also_over_a_clock_change() -> None:
    local = ZoneInfo("Europe/Berlin")
    for newest in (wall("2026-04-10T02:30"), wall("2026-11-10T02:30")):
        backups = [
            Candidate(f"b{n:02}", (newest - n * DAY).replace(tzinfo=local), 60 - n, good=True)
            for n in range(60)
        ]
        assert len(kept(choose(backups, Keep(daily=Span(30, "d")), local))) == 30


def test_every_reason_is_a_plain_word_that_scripts_may_rely_upon() -> None:
    assert [str(reason) for reason in Reason] == [
        "newest good",
        "newest verified",
        "pinned",
        "last",
        "hourly",
        "daily",
        "weekly",
        "monthly",
        "yearly",
        "within",
        "no rule given",
        "newer than newest good",
        "over max_count",
        "not good",
        "no rule keeps it",
    ]
