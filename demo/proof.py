"""Judging a backup made under writing by the writer's own log.

At a recovery point the application held exactly the first so many of its writes. Rows and vectors
each have an instant of their own, a few milliseconds apart; for each of the two this must be true:

- what is there are the first ``n`` writes, without a gap and whole;
- every write that was committed before the instant is among them;
- none that was begun after it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Write:
    """One write of the application, as it logged it. Times are seconds since 1970."""

    kind: str  # document | question
    number: int
    begun: float
    committed: float
    vectors: int

    @property
    def seconds(self) -> float:
        """How long the writer had to wait for it."""
        return self.committed - self.begun


@dataclass(frozen=True, slots=True)
class Judgement:
    """How many of the first writes a store holds, and what is wrong with that."""

    first: int
    problem: str = ""


def read_log(path: Path) -> list[Write]:
    """Return the writes in the order they were committed."""
    lines = path.read_text("utf-8").splitlines()
    return [Write(**json.loads(line)) for line in lines]


def during(writes: Sequence[Write], begin: float, end: float) -> list[Write]:
    """Return the writes that were under way at some time between two instants."""
    return [write for write in writes if write.committed >= begin and write.begun <= end]


def judge_rows(writes: Sequence[Write], report: Mapping[str, Any], instant: float) -> Judgement:
    """Judge the documents and questions of a restored database."""
    documents, questions = set(report["documents"]), report["counts"]["questions"]
    present = [
        write.number in documents if write.kind == "document" else write.number <= questions
        for write in writes
    ]
    strangers = len(documents) + questions - sum(present)
    return _judge(writes, present, strangers, instant)


def judge_vectors(
    writes: Sequence[Write], report: Mapping[str, Any], instant: float, slack: float = 0.0
) -> Judgement:
    """Judge the vectors of a restored collection; those of one document come or stay together.

    ``slack`` is how many seconds after the instant it may really have been: a server that is asked
    for a snapshot takes it when it likes.
    """
    documents = [write for write in writes if write.kind == "document"]
    found: dict[str, int] = report["vectors_of"]
    present = [found.get(str(write.number)) == write.vectors for write in documents]
    return _judge(documents, present, len(found) - sum(present), instant, slack)


def judge_cache(writes: Sequence[Write], report: Mapping[str, Any], instant: float) -> Judgement:
    """Judge the counter of a restored cache; it follows the documents one by one."""
    documents = [write for write in writes if write.kind == "document"]
    present = [write.number <= report["counted"] for write in documents]
    return _judge(documents, present, report["counted"] - sum(present), instant)


def _judge(
    writes: Sequence[Write],
    present: Sequence[bool],
    strangers: int,
    instant: float,
    slack: float = 0.0,
) -> Judgement:
    first = next(_absent(present), len(present))
    if any(present[first:]):
        return Judgement(first, f"write {first + 1} is missing, and later ones are there")
    if strangers:
        return Judgement(
            first, f"{strangers} things are there that were never, or not wholly, written"
        )
    late = [write for write in writes[first:] if write.committed < instant]
    if late:
        early = instant - late[0].committed
        return Judgement(first, f"write {first + 1}, committed {early:.3f} s before, is missing")
    if first and writes[first - 1].begun > instant + slack:
        return Judgement(first, f"write {first} is there, but was begun after the instant")
    return Judgement(first)


def _absent(present: Sequence[bool]) -> Iterator[int]:
    return (index for index, there in enumerate(present) if not there)
