"""Checks: assertions on the data of one component, and references between two."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigInvalid, HoldfastError
from ..model.stack import Check, Selector
from ..ports import Keyed, Queryable, Source
from .surroundings import Surroundings

SHOWN = 5  # examples of a violation that are kept


@dataclass(frozen=True, slots=True)
class Violation:
    """A check that does not hold: how many cases there are, and a few of them."""

    check: str
    count: int
    examples: tuple[str, ...]
    problem: str = ""  # "missing in vectors", or an error

    def __str__(self) -> str:
        """Return one line."""
        what = f" {self.problem}" if self.problem else ""
        shown = ", ".join(self.examples)
        more = ", …" if self.count > len(self.examples) else ""
        cases = f": {self.count}{what}" if self.count else f":{what}"
        return f"{self.check}{cases}{f' ({shown}{more})' if shown else ''}"


def run_checks(checks: Sequence[Check], sources: Mapping[str, Source]) -> list[Violation]:
    """Run every check whose components are among ``sources``; returns what does not hold."""
    violations: list[Violation] = []
    for check in checks:
        if all(name in sources for name in components_of(check)):
            violations += _run(check, sources)
    return violations


def components_of(check: Check) -> list[str]:
    """Return the names of the components that a check looks at."""
    if check.left and check.right:
        return [check.left.component, check.right.component]
    return [check.component]


def _run(check: Check, sources: Mapping[str, Source]) -> list[Violation]:
    try:
        if check.left and check.right:
            return list(_compare(check, check.left, check.right, sources))
        return _assert_none(check, sources[check.component])
    except HoldfastError as error:
        return [Violation(check.name, 0, (), str(error))]


def _assert_none(check: Check, source: Source) -> list[Violation]:
    if not isinstance(source, Queryable):
        raise _unfit(check, source, "answers no SQL")
    count = 0
    examples: list[str] = []
    with source.query(check.sql) as rows:
        for row in rows:
            count += 1
            if len(examples) < SHOWN:
                examples.append(" ".join(str(value) for value in row))
    return [Violation(check.name, count, tuple(examples))] if count else []


def _compare(
    check: Check, left: Selector, right: Selector, sources: Mapping[str, Source]
) -> Iterator[Violation]:
    # Millions of keys are compared by SQLite in a temporary file, not in memory.
    with _scratch() as database:
        _load(database, "l", check, left, sources)
        _load(database, "r", check, right, sources)
        yield from _lost(database, check, "l", "r", f"missing in {right.component}")
        if not check.one_way:
            yield from _lost(database, check, "r", "l", f"not referred to by {left.component}")


@contextmanager
def _scratch() -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory(prefix="holdfast-check-") as folder:
        database = sqlite3.connect(Path(folder) / "keys.db", isolation_level=None)
        with closing(database):
            database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
                "CREATE TABLE l (key TEXT PRIMARY KEY) WITHOUT ROWID;"
                "CREATE TABLE r (key TEXT PRIMARY KEY) WITHOUT ROWID;"
            )
            yield database


def _load(
    database: sqlite3.Connection,
    table: str,
    check: Check,
    selector: Selector,
    sources: Mapping[str, Source],
) -> None:
    source = sources[selector.component]
    if not isinstance(source, Keyed):
        raise _unfit(check, source, "has no keys to compare")
    insert = f"INSERT OR IGNORE INTO {table} VALUES (?)"  # noqa: S608 - our own two names
    with source.keys(selector.options) as keys:
        database.execute("BEGIN")
        database.executemany(insert, ((key,) for key in keys))
        database.execute("COMMIT")


def _lost(
    database: sqlite3.Connection, check: Check, table: str, other: str, problem: str
) -> Iterator[Violation]:
    select = f"SELECT key FROM {table} EXCEPT SELECT key FROM {other}"  # noqa: S608 - our own names
    count = int(database.execute(f"SELECT count(*) FROM ({select})").fetchone()[0])  # noqa: S608
    if count:
        rows = database.execute(f"{select} ORDER BY key LIMIT {SHOWN}")
        yield Violation(check.name, count, tuple(row[0] for row in rows), problem)


def _unfit(check: Check, source: Source, problem: str) -> ConfigInvalid:
    return ConfigInvalid(
        place=f"check {check.name!r}",
        problem=f"component {source.name} of kind {source.kind} {problem}",
        advice="choose another component for this check",
    )


def check_integrity(source: Source, around: Surroundings) -> list[str]:
    """Read a live store's content as of one instant with the store's own means; returns problems.

    A copy is made and thrown away: the live store is never opened in a way that changes it.
    """
    try:
        with (
            around.step("check", source.name),
            tempfile.TemporaryDirectory(prefix="check-", dir=around.scratch) as folder,
        ):
            held, read = Path(folder, "held"), Path(folder, "read")
            held.mkdir()
            read.mkdir()
            with source.freeze(held) as frozen:
                inspection = source.inspect(frozen.artifacts, read)
                frozen.facts()
    except HoldfastError as error:
        return [str(error)]
    return [f"{source.name}: {problem}" for problem in inspection.problems]
