"""Cutting streams: the same boundaries whatever the pieces, the process, the program."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from hashlib import shake_128
from importlib.machinery import PathFinder

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.artifact import Chunk
from holdfast.vaults.repository import chunks, gear
from holdfast.vaults.repository.chunks import LEAST, MOST, Chunker, permutation

POLYNOMIAL = 0x3DA3358B4DC173
MIB = 1 << 20
STREAM = shake_128(b"a stream").digest(9 * MIB)


compiled_here = pytest.mark.skipif(
    not gear._has_compiled(), reason="the compiled fastcdc is not installed"
)


def cut(data: bytes, polynomial: int = POLYNOMIAL) -> list[bytes]:
    return [bytes(chunk) for chunk in Chunker(polynomial).cut(iter((data,)))]


def in_pieces(data: bytes, sizes: Iterator[int]) -> Iterator[Chunk]:
    at = 0
    while at < len(data):
        size = next(sizes)
        yield memoryview(data)[at : at + size]
        at += size


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    gear.fastest.cache_clear()
    yield
    gear.fastest.cache_clear()


def test_cuts_as_it_always_did() -> None:
    """If this fails, everybody's data is stored once more."""
    assert [len(chunk) for chunk in cut(STREAM)] == GOLDEN


def test_the_permutation_is_as_it_always_was() -> None:
    assert sorted(permutation(POLYNOMIAL)) == list(range(256))
    assert permutation(POLYNOMIAL)[:8].hex() == PERMUTATION


def test_another_secret_cuts_elsewhere() -> None:
    ours, theirs = set(cut(STREAM)), set(cut(STREAM, POLYNOMIAL ^ 0b110))
    assert not ours & theirs


@given(st.integers(0, 2**32))
@settings(max_examples=12, deadline=None)
def test_how_the_stream_came_makes_no_difference(seed: int) -> None:
    seeded = random.Random(seed)
    largest = seeded.choice((3000, 70_000, MIB, 5 * MIB))
    size = seeded.choice((LEAST, LEAST + 1, len(STREAM), seeded.randrange(len(STREAM))))
    sizes = iter(lambda: seeded.randint(0, largest), -1)
    pieces = in_pieces(STREAM[:size], sizes)
    assert list(Chunker(POLYNOMIAL).cut(pieces)) == cut(STREAM[:size])


def test_gives_every_byte_in_chunks_of_bounded_size() -> None:
    given_chunks = cut(STREAM)
    assert b"".join(given_chunks) == STREAM
    assert all(LEAST < len(chunk) <= MOST for chunk in given_chunks[:-1])
    assert 0 < len(given_chunks[-1]) <= MOST


@pytest.mark.parametrize("size", [1, LEAST - 1, LEAST])
def test_a_short_stream_is_one_chunk_and_not_copied(size: int) -> None:
    data = STREAM[:size]
    [only] = Chunker(POLYNOMIAL).cut(iter((data,)))
    assert only is data


def test_an_empty_stream_has_no_chunk() -> None:
    assert cut(b"") == []
    assert list(Chunker(POLYNOMIAL).cut(iter((b"", b"")))) == []


def test_bytes_without_boundaries_are_cut_at_the_most() -> None:
    assert [len(chunk) for chunk in cut(bytes(2 * MOST + 5))] == [MOST, MOST, 5]


def test_what_is_inserted_moves_only_the_boundaries_beside_it() -> None:
    before = set(cut(STREAM))
    after = cut(STREAM[: 4 * MIB] + b"inserted" + STREAM[4 * MIB :])
    assert len([chunk for chunk in after if chunk not in before]) <= 2


def test_reads_no_further_than_it_must() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += MIB
            yield STREAM[:MIB] if read % (3 * MIB) else bytes(MIB)

    given_chunks = Chunker(POLYNOMIAL).cut(endless())
    total = 0
    for _ in range(20):
        total += len(next(given_chunks))
        assert read - total <= MOST + MIB


def windows() -> Iterator[bytes]:
    seeded = random.Random(os.environ.get("SEED", "4"))
    yield from (b"", b"x", bytes(gear.WINDOW), b"\xff" * 70)
    for _ in range(200):
        yield seeded.randbytes(seeded.choice((60, 70, 5000, gear.WINDOW)))
        period = seeded.randbytes(seeded.randrange(1, 60))
        yield (period * gear.WINDOW)[: seeded.randrange(gear.WINDOW)]
        yield bytes(seeded.choices(b"select from where\n", k=seeded.randrange(gear.WINDOW)))


@compiled_here
def test_all_programs_find_the_same() -> None:
    compiled, vectorized = gear.compiled(), gear.vectorized()
    found = 0
    for number, window in enumerate(windows()):
        length = compiled(window)
        assert vectorized(window) == length
        if number % 20 == 0 or length < len(window):
            assert gear.plain(window) == length
        found += length < len(window)
    assert found > 5


@compiled_here
def test_bytes_that_look_like_boundaries_everywhere_are_searched_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gear, "_MOST_TRIED", -1)
    window = shake_128(b"holdfast 28").digest(gear.WINDOW)
    assert gear.vectorized()(window) == gear.compiled()(window) < gear.WINDOW


def test_a_hash_that_the_near_bytes_do_not_settle_is_settled_by_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was rounded off may be carried for ever: from above the hash stops at twice 2**18."""
    monkeypatch.setattr(gear, "GEAR", [1 << 18, gear._TOP >> 1])
    from_above = bytes(64) + b"\1" * 40 + bytes(500)
    assert gear._is_boundary(from_above, len(from_above))
    assert not gear._is_boundary(bytes(600), 600)


def test_the_sample_has_the_boundary_that_is_expected() -> None:
    sample = shake_128(gear._SAMPLE).digest(gear.WINDOW)
    assert gear.plain(sample) == gear._SAMPLE_BOUNDARY


@compiled_here
def test_uses_the_compiled_program_in_silence() -> None:
    assert gear.fastest()[1] == ""
    assert chunks.notice() == ""


def test_says_where_the_compiled_program_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", lambda *_: None)
    assert "`fastcdc` is not installed; NumPy" in chunks.notice()
    assert [len(chunk) for chunk in cut(STREAM)] == GOLDEN
    assert capsys.readouterr().out == ""


@compiled_here
def test_says_where_the_compiled_program_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastcdc.fastcdc_cy", None)
    assert "cannot be loaded" in chunks.notice()


@compiled_here
def test_does_not_use_a_program_that_cuts_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gear, "compiled", lambda: len)
    assert "differently" in chunks.notice()
    assert [len(chunk) for chunk in cut(STREAM)] == GOLDEN


def test_cuts_in_python_alone_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gear, "find_spec", lambda _name: None)
    assert "no NumPy" in chunks.notice()
    assert cut(STREAM[: 3 * MIB])[0] == STREAM[: GOLDEN[0]]


GOLDEN = [2_158_592, 1_962_573, 564_893, 1_256_352, 727_349, 2_321_850, 445_575]
PERMUTATION = "58db9891014cd827"
