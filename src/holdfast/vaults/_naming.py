"""What backups are called: a template with the time in it, and a number where two would meet."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import UnsafeName
from ..model.names import check_template, fill, safe_backup_id, safe_name, timestamp

DEFAULT_NAME = "backup_{timestamp}"
NAME_FIELDS = ("stack", "timestamp")


@dataclass(frozen=True, slots=True)
class Naming:
    """The template of a vault's ids, and the time zone of the timestamps in them.

    Raises:
        ValueError: the template would make unsafe ids, or there is no such time zone.

    """

    name: str = DEFAULT_NAME
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        _check_timezone(self.timezone)
        check_template(self.name, NAME_FIELDS, needs=("timestamp",))
        safe_or_value_error(fill(self.name, {"stack": "stack", "timestamp": "20260204_120000"}))

    def timestamp(self, instant: datetime) -> str:
        """Return an instant as ids have it."""
        return timestamp(instant.astimezone(ZoneInfo(self.timezone)))

    def backup_id(self, stack: str, instant: datetime, taken: Callable[[str], bool]) -> str:
        """Return the first id for this instant that is not taken: a second one ends in ``_2``."""
        stamp = self.timestamp(instant)
        for number in itertools.count(1):
            numbered = stamp if number == 1 else f"{stamp}_{number}"
            filled = fill(self.name, {"stack": cleaned(stack), "timestamp": numbered})
            backup_id = safe_backup_id(filled)
            if not taken(backup_id):
                return backup_id
        raise AssertionError  # pragma: no cover - counting does not end


def cleaned(value: str) -> str:
    """Return a value without what has no place in one part of a path; ``_`` stands for it."""
    return "".join(c if c.isprintable() and c not in "/\\ " else "_" for c in value)


def safe_or_value_error(part: str) -> str:
    """Return a part of a path if it is safe; raises ``ValueError`` as validators want it."""
    try:
        return safe_name(part, "path")
    except UnsafeName as error:
        raise ValueError(str(error)) from error


def _check_timezone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        problem = f"unknown time zone {name}"
        raise ValueError(problem) from error
