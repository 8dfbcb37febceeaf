"""How values are written that are more than text: durations, spans, schedules, time zones."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from ..i18n import _
from ..model.retention import Span, parse_count_or_span, parse_span

SCHEDULE_WORDS = ("hourly", "daily", "weekly", "monthly")
LONGEST_DURATION = timedelta(days=3660)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"([0-9]{1,9}[smhdw])+", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """Return a duration such as ``90s``, ``15m``, ``6h`` or ``1h30m``. Raises ``ValueError``."""
    text = value.strip() if isinstance(value, str) else ""
    if not _DURATION.fullmatch(text):
        raise ValueError(_("must be a duration such as 90s, 15m, 6h, 1h30m or 1d"))
    parts = re.findall(r"([0-9]+)([smhdw])", text)
    seconds = sum(int(count) * _SECONDS[unit] for count, unit in parts)
    if not 0 < seconds <= LONGEST_DURATION.total_seconds():
        raise ValueError(_("must be longer than nothing and no longer than ten years"))
    return timedelta(seconds=seconds)


def write_duration(duration: timedelta) -> str:
    """Return a duration as the configuration writes it, with the largest units that fit."""
    rest = int(duration.total_seconds())
    text = ""
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _SECONDS[unit])
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def check_schedule(text: str) -> str:
    """Return a schedule that will come: a word, or five cron fields. Raises ``ValueError``."""
    if text in SCHEDULE_WORDS:
        return text
    from cronsim import CronSim, CronSimError

    words = ", ".join(SCHEDULE_WORDS)
    fields = 5
    if len(text.split()) != fields:
        problem = _('must be {words}, or five cron fields such as "0 2 * * *"')
        raise ValueError(problem.format(words=words))
    try:
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        problem = _("is no schedule: {reason}")
        raise ValueError(problem.format(reason=str(error).lower())) from error
    except StopIteration as error:
        raise ValueError(_("is a time that never comes")) from error
    return text


def check_timezone(key: str) -> str:
    """Return the name of a time zone that is known here. Raises ``ValueError`` with the nearest."""
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(key)
    except (KeyError, ValueError, OSError) as error:
        from difflib import get_close_matches

        near = get_close_matches(key, sorted(zoneinfo.available_timezones()), n=1)
        hint = _("; did you mean {name}?").format(name=near[0]) if near else ""
        problem = _("is no time zone that is known here, such as UTC or Asia/Seoul")
        raise ValueError(problem + hint) from error
    return key


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(_("must be a whole number"))  # noqa: TRY004 - pydantic wants ValueError
    return value


def _text_span(value: object) -> Span:
    return parse_span(value if isinstance(value, str) else "")


def _all_or_names(value: object) -> object:
    if value == "all":
        return None
    if not isinstance(value, list):
        raise ValueError(_("must be `all`, or a list of names"))  # noqa: TRY004 - as above
    if not value:
        raise ValueError(_("names nothing; leave it out, or write `all`"))
    return value


def _verification(value: object) -> object:
    if value == "rehearse":
        raise ValueError(_("`rehearse` is not in this version; use checksums or native"))
    return value


def _text(kind: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "format": kind, "examples": list(examples)})


_written = PlainSerializer(str, return_type=str)

Duration = Annotated[
    timedelta,
    PlainValidator(parse_duration),
    PlainSerializer(write_duration, return_type=str),
    _text("duration", "15m", "6h", "1d"),
]
WithinSpan = Annotated[Span, PlainValidator(_text_span), _written, _text("span", "30d")]
CountOrSpan = Annotated[
    Any,
    PlainValidator(parse_count_or_span),
    PlainSerializer(lambda limit: limit if isinstance(limit, int) else str(limit)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "format": "span", "examples": ["24h", "30d", "12w", "12m"]},
            ]
        }
    ),
]
Count = Annotated[int, BeforeValidator(_no_bool)]
Names = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_all_or_names),
    PlainSerializer(lambda names: "all" if names is None else list(names)),
    WithJsonSchema(
        {"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}}]},
    ),
]
Verification = Annotated[Literal["none", "checksums", "native"], BeforeValidator(_verification)]
