"""Holding back Ctrl-C where something must not be left half-way."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from holdfast.verbs.signals import DEFERRED, uninterrupted


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in DEFERRED]


def test_a_signal_waits_for_the_end() -> None:
    before, done = handlers(), False
    with pytest.raises(KeyboardInterrupt), uninterrupted() as late:  # noqa: PT012 - at its end
        signal.raise_signal(signal.SIGINT)
        assert late == [signal.SIGINT]
        done = True
    assert done
    assert handlers() == before


def test_a_signal_that_was_seen_to_does_not_act() -> None:
    with uninterrupted() as late:
        signal.raise_signal(signal.SIGINT)
        late.clear()


def test_an_error_says_more_than_the_signal_it_came_with() -> None:
    with pytest.raises(ValueError, match="disk"), uninterrupted():  # noqa: PT012 - at its end
        signal.raise_signal(signal.SIGINT)
        raise ValueError("disk")


def test_a_signal_that_comes_while_it_begins_leaves_no_handler_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, change, calls = handlers(), signal.signal, 0

    def interrupted(number: int, handler: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == len(DEFERRED):
            raise KeyboardInterrupt
        return change(number, handler)

    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", interrupted)
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            pytest.fail("it began all the same")
    assert handlers() == before
