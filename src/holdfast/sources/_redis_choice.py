"""Which keys of a Redis server a check is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from holdfast.errors import UsageInvalid


@dataclass(frozen=True, slots=True)
class Choice:
    """The keys of one database that match a pattern."""

    pattern: str = "*"
    database: int = 0

    @classmethod
    def of(cls, component: str, options: Mapping[str, str]) -> Self:
        """Return what options say.

        Raises:
            UsageInvalid: they say something else.

        """
        database = options.get("database", "0")
        if set(options) - {"pattern", "database"} or not database.isdigit():
            problem = "keys of Redis are chosen by `pattern` and the number of a `database`"
            raise UsageInvalid(problem=f"{component}: {problem}")
        return cls(options.get("pattern", "*"), int(database))
