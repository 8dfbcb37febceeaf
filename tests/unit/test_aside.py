"""Work in a thread beside: in order, bounded, each piece called once, and nothing hangs."""

from __future__ import annotations

import threading

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
