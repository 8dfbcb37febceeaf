"""The demonstration's judges, given backups that are wrong: each fault must be seen."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from demo.corpus import CHUNK, SCRAP, gather, passages
from demo.embedding import embed
from demo.proof import Write, during, judge_rows, judge_vectors
from demo.screen import Screen
from demo.story import _different

# One write a second: begun at its number, committed half a second later.
WRITES = [
    *(Write("document", n, float(n), n + 0.5, vectors=3) for n in (1, 2, 3)),
    Write("question", 1, 4.0, 4.5, vectors=0),
    Write("document", 4, 5.0, 5.5, vectors=3),
]


def rows(documents: Collection[int], questions: int = 0) -> dict[str, Any]:
    return {"documents": list(documents), "counts": {"questions": questions}}


def vectors(**of: int) -> dict[str, Any]:
    return {"vectors_of": {name.removeprefix("d"): count for name, count in of.items()}}


def test_the_first_writes_up_to_the_instant_are_a_recovery_point() -> None:
    judged = judge_rows(WRITES, rows([1, 2, 3], questions=1), instant=4.7)
    assert (judged.first, judged.problem) == (4, "")


@pytest.mark.parametrize("documents", [[1, 2], [1, 2, 3]])
def test_a_write_under_way_at_the_instant_may_be_there_or_not(documents: list[int]) -> None:
    assert judge_rows(WRITES, rows(documents), instant=3.2).problem == ""


def test_a_gap_is_seen() -> None:
    judged = judge_rows(WRITES, rows([1, 3]), instant=3.7)
    assert judged.problem == "write 2 is missing, and later ones are there"


def test_a_write_that_was_committed_before_the_instant_and_is_missing_is_seen() -> None:
    judged = judge_rows(WRITES, rows([1, 2]), instant=3.7)
    assert judged.problem == "write 3, committed 0.200 s before, is missing"


def test_a_write_that_was_begun_after_the_instant_is_seen() -> None:
    judged = judge_rows(WRITES, rows([1, 2, 3]), instant=2.7)
    assert judged.problem == "write 3 is there, but was begun after the instant"


def test_what_was_never_written_is_seen() -> None:
    assert "1 things" in judge_rows(WRITES, rows([1, 2, 3, 9]), instant=3.7).problem
    assert "1 things" in judge_rows(WRITES, rows([1, 2, 3], questions=2), instant=4.7).problem


def test_vectors_of_a_document_that_are_not_all_there_are_seen() -> None:
    assert judge_vectors(WRITES, vectors(d1=3, d2=3), instant=2.7).problem == ""
    assert judge_vectors(WRITES, vectors(d1=3, d2=2), instant=2.7).problem


def test_an_empty_copy_is_a_fault_where_something_was_committed() -> None:
    assert judge_vectors(WRITES, vectors(), instant=1.7).problem
    assert judge_vectors(WRITES, vectors(), instant=0.5).first == 0


def test_writes_are_during_a_backup_when_any_part_of_them_is() -> None:
    assert [write.number for write in during(WRITES, 2.4, 3.1)] == [2, 3]


@pytest.mark.parametrize("store", ["rows", "vectors", "uploads", "settings"])
def test_each_store_that_differs_is_named(store: str) -> None:
    one = {"digests": dict.fromkeys(("rows", "vectors", "uploads", "settings"), "a")}
    other = {"digests": one["digests"] | {store: "b"}}
    assert _different(one, one) == []
    assert _different(one, other) == [store]


def test_an_application_that_does_not_start_equals_nothing() -> None:
    broken = {"problem": "no such table"}
    assert _different(broken, broken) == ["the application does not start"]


def test_a_claim_that_does_not_hold_is_shown_and_fails_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen()
    screen.claim("water is wet", holds=True)
    screen.claim("pigs fly", holds=False, otherwise="they walk")

    assert screen.verdict(1.0) == 1
    assert capsys.readouterr().out.splitlines() == [
        "  ✓ water is wet",
        "  ✗ NOT TRUE: pigs fly",
        "    they walk",
        "1 of 2 claims did NOT hold",
    ]


def test_texts_are_found_always_the_same_and_no_paragraph_twice() -> None:
    texts = gather(100)
    paragraphs = [part for text in texts for part in text.content.split("\n\n")]

    assert len(texts) == 100
    assert texts == gather(100)
    assert len({" ".join(part.lower().split()) for part in paragraphs}) == len(paragraphs)


def test_passages_hold_every_word_of_a_text() -> None:
    for text in gather(20):
        found = passages(text.content)
        assert "".join("".join(found).split()) == "".join(text.content.split())
        assert max(map(len, found)) <= CHUNK + SCRAP


def test_texts_that_share_words_have_vectors_that_are_close() -> None:
    asked = embed("warranty for the program")
    near, far = embed("there is no warranty, the program comes as is"), embed("dates, time zones")

    assert float(asked @ near) > 0.3 > float(asked @ far)
    assert float(asked @ asked) == pytest.approx(1.0)
