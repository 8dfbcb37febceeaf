"""Reading ahead: the same chunks, the same errors, and nobody left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from holdfast.sources._ahead import DEPTH, ahead


def counted(seen: list[int], count: int) -> Iterator[bytes]:
    for number in range(count):
        seen.append(number)
        yield bytes([number % 256])


def test_the_chunks_come_in_order() -> None:
    seen: list[int] = []
    with ahead(counted(seen, 100)) as chunks:
        assert list(chunks) == [bytes([number]) for number in range(100)]


def test_no_more_than_a_few_wait() -> None:
    threads = threading.active_count()
    seen: list[int] = []
    with ahead(counted(seen, 1000)) as chunks:
        for number, _chunk in zip(range(50), chunks, strict=False):
            assert len(seen) <= number + DEPTH + 3
    assert threading.active_count() == threads


def test_what_reading_raises_comes_after_what_was_read() -> None:
    def failing() -> Iterator[bytes]:
        yield b"1"
        raise OSError("broken")

    with ahead(failing()) as chunks:
        assert next(chunks) == b"1"
        with pytest.raises(OSError, match="broken"):
            next(chunks)


def test_whoever_leaves_early_waits_for_the_thread() -> None:
    threads = threading.active_count()
    seen: list[int] = []
    with ahead(counted(seen, 10_000)) as chunks:
        next(chunks)
    assert len(seen) < 100
    assert threading.active_count() == threads
