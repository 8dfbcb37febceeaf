"""Work in a thread beside: in order, bounded, each piece called once, and nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from holdfast.sources._aside import Aside, Work

pytestmark = pytest.mark.timeout(20)


def waits_for(event: threading.Event) -> Work:
    def work() -> None:
        event.wait()

    return work


def test_everything_is_done_in_order() -> None:
    threads = threading.active_count()
    done: list[int] = []
    aside = Aside(3)
    for number in range(50):
        aside.give(lambda number=number: done.append(number))  # type: ignore[misc]
    aside.finish()
    assert done == list(range(50))
    aside.close()
    assert threading.active_count() == threads


def test_no_more_than_a_few_wait() -> None:
    aside, go, given = Aside(2), threading.Event(), threading.Event()
    for _ in range(3):  # one is being done, two wait
        aside.give(waits_for(go))

    def one_more() -> None:
        aside.give(waits_for(go))
        given.set()

    another = threading.Thread(target=one_more)
    another.start()
    assert not given.wait(0.1)
    go.set()
    assert given.wait(10)
    another.join()
    aside.finish()
    aside.close()


def test_the_first_error_is_raised_and_what_waits_is_told() -> None:
    aside, go = Aside(5), threading.Event()
    told: list[bool] = []

    def fail() -> None:
        go.wait()
        raise OSError("broken")

    aside.give(fail)
    aside.give(lambda: told.append(aside.over))
    go.set()
    with pytest.raises(OSError, match="broken"):
        aside.finish()
    with pytest.raises(OSError, match="broken"):
        aside.give(lambda: told.append(aside.over))
    with pytest.raises(OSError, match="broken"):
        aside.check()
    aside.close()
    assert told == [True]


def test_whoever_waits_for_room_hears_of_an_error() -> None:
    aside, go = Aside(1), threading.Event()

    def fail() -> None:
        go.wait()
        raise OSError("broken")

    aside.give(fail)
    aside.give(lambda: None)
    threading.Timer(0.05, go.set).start()
    with pytest.raises(OSError, match="broken"):
        aside.give(lambda: None)
    aside.close()


def test_closing_ends_what_is_under_way() -> None:
    threads = threading.active_count()
    aside, begun = Aside(5), threading.Event()
    over: list[bool] = []

    def work() -> None:
        begun.set()
        while not aside.over:
            pass
        over.append(True)

    aside.give(work)
    aside.give(lambda: over.append(aside.over))
    begun.wait()
    aside.close()
    assert over == [True, True]
    assert threading.active_count() == threads


# Pieces of one job --------------------------------------------------------------------------------


def test_all_threads_take_pieces_and_the_end_comes_once_after_the_last() -> None:
    """Four pieces wait for each other: fewer than four threads would hang."""
    threads = threading.active_count()
    aside = Aside(3, threads=4)
    together = threading.Barrier(4)
    done: list[str] = []

    def piece() -> None:
        together.wait(10)
        done.append("piece")

    for job in range(3):
        aside.share(iter([piece] * 8), lambda job=job: done.append(f"end {job}"))  # type: ignore[misc]
    aside.finish()
    assert sorted(done) == ["end 0", "end 1", "end 2"] + ["piece"] * 24
    assert done.index("end 0") >= 8
    aside.close()
    assert threading.active_count() == threads


def test_pieces_are_asked_for_when_a_thread_has_time() -> None:
    aside, go = Aside(2, threads=2), threading.Event()
    asked: list[int] = []

    def pieces() -> Iterator[Work]:
        for number in range(10):
            asked.append(number)
            yield waits_for(go)

    aside.share(pieces(), lambda: None)
    assert not go.wait(0.1)
    assert asked == [0, 1]
    go.set()
    aside.finish()
    aside.close()
    assert asked == [*range(10)]


def test_an_error_in_a_piece_ends_the_job_and_its_end_is_told() -> None:
    aside, go = Aside(5, threads=3), threading.Event()
    ends: list[bool] = []
    begun: list[int] = []

    def fail() -> None:
        go.wait()
        raise OSError("broken")

    def pieces() -> Iterator[Work]:
        yield fail
        for number in range(1000):
            begun.append(number)
            yield waits_for(go)

    aside.share(pieces(), lambda: ends.append(aside.over))
    aside.share(iter([waits_for(go)]), lambda: ends.append(aside.over))
    go.set()
    with pytest.raises(OSError, match="broken"):
        aside.finish()
    aside.close()
    assert ends == [True, True]
    assert len(begun) < 1000


def test_an_error_in_asking_for_a_piece_is_one_of_the_job() -> None:
    aside = Aside(1, threads=2)
    ends: list[bool] = []

    def pieces() -> Iterator[Work]:
        yield lambda: None
        raise OSError("unknown")

    aside.share(pieces(), lambda: ends.append(aside.over))
    with pytest.raises(OSError, match="unknown"):
        aside.finish()
    aside.close()
    assert ends == [True]


def test_whether_it_is_busy() -> None:
    aside, go = Aside(1), threading.Event()
    before = aside.busy
    aside.give(waits_for(go))
    meanwhile = aside.busy
    go.set()
    aside.finish()
    assert (before, meanwhile, aside.busy) == (False, True, False)
    aside.close()
