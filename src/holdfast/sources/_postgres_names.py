"""Names and marks by which the databases and roles of a restore are told from all others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

LONGEST_NAME = 63  # bytes, of everything that has a name in PostgreSQL


def mark(tag: str, before: str = "") -> str:
    """Return the comment of something that a restore made; ``before`` is the comment it had."""
    return f"holdfast restore {tag}\n{before}"


def unmarked(comment: str, tag: str) -> str | None:
    """Return the comment that there was before; None where it is not marked."""
    begin = mark(tag)
    return comment.removeprefix(begin) if comment.startswith(begin) else None


def name_of(database: str, kind: str, tag: str) -> str:
    """Return the name for a database of a restore, of 63 bytes at most."""
    end = f"_{kind}_{tag}".encode()
    begin = database.encode()
    if len(begin) + len(end) > LONGEST_NAME:
        # Cut short; what is cut off, or the tag, is told apart by a digest.
        digest = hashlib.sha256(begin + end).hexdigest()[:10]
        end = f"_{kind}_{digest}".encode()
        begin = begin[: LONGEST_NAME - len(end)]
    return begin.decode("utf-8", "ignore") + end.decode()


@dataclass(frozen=True, slots=True)
class Place:
    """The three names of one database."""

    live: str
    staged: str
    replaced: str

    @classmethod
    def of(cls, database: str, tag: str) -> Place:
        """Return the names for a restore."""
        return cls(database, name_of(database, "holdfast", tag), name_of(database, "replaced", tag))
