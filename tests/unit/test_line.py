"""Lines between threads: bounded, ended, and stopped by an error wherever somebody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from holdfast.vaults.repository.line import Line, Outcome

pytestmark = pytest.mark.timeout(20)


class Waiting:
    """Something done in a thread that is known to wait for a line before the test goes on."""

    def __init__(self, condition: threading.Condition, work: Callable[[], object]) -> None:
        self._waits = threading.Event()
        self._wait = condition.wait
        self._results: list[object] = []
        setattr(condition, "wait", self._noted)  # noqa: B010 - an instance's method is replaced
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()
        self._waits.wait()

    def _noted(self) -> None:
        self._waits.set()
        self._wait()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            self._results.append(work())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self._results.append(error)

    def result(self) -> object:
        self._thread.join()
        return self._results[0]


@pytest.fixture
def outcome() -> Outcome:
    return Outcome()


@pytest.fixture
def line(outcome: Outcome) -> Iterator[Line[str]]:
    yield Line(outcome, 10)
    outcome.fail(TimeoutError("the test is over"))


def test_gives_items_in_order_and_then_none(line: Line[str]) -> None:
    line.put("one", 3)
    line.put("two", 3)
    line.end()
    assert [line.take(), line.take(), line.take(), line.take()] == ["one", "two", None, None]


def test_an_item_has_its_weight_until_it_is_done(line: Line[str]) -> None:
    line.put("one", 6)
    assert line.take() == "one"
    putting = Waiting(line._goes, lambda: line.put("two", 6))
    line.done(6)
    assert putting.result() is None
    assert line.take() == "two"


def test_what_is_too_heavy_travels_alone(line: Line[str]) -> None:
    line.put("heavy", 100)
    putting = Waiting(line._goes, lambda: line.put("light", 1))
    assert line.take() == "heavy"
    line.done(100)
    assert putting.result() is None


def test_who_waits_for_an_item_gets_the_next(line: Line[str]) -> None:
    taking = Waiting(line._comes, line.take)
    line.put("one", 1)
    assert taking.result() == "one"


def test_the_end_wakes_who_waits_for_an_item(line: Line[str]) -> None:
    taking = Waiting(line._comes, line.take)
    line.end()
    assert taking.result() is None


def test_an_error_wakes_everybody_at_every_line(outcome: Outcome, line: Line[str]) -> None:
    other: Line[str] = Line(outcome, 10)
    line.put("one", 10)
    error = ValueError("the first")
    putting = Waiting(line._goes, lambda: line.put("two", 1))
    taking = Waiting(other._comes, other.take)
    outcome.fail(error)
    outcome.fail(ValueError("the second"))
    assert putting.result() is error
    assert taking.result() is None
    assert line.take() is None  # what waits is not worth doing
    with pytest.raises(ValueError, match="the first"):
        other.put("three", 1)
