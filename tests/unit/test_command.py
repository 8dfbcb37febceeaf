"""Running programs: streams, ends, secrets, and what becomes of them without us."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from holdfast.sources._command import (
    Environment,
    ProgramFailed,
    ProgramStalled,
    Running,
    answer,
    feed,
)


def test_what_it_prints_is_given() -> None:
    assert answer(["printf", "a b"]) == b"a b"


def test_what_it_reads_is_fed() -> None:
    with Running(["wc", "-c"], fed=True) as program:
        for _turn in range(30):
            assert program.write(b"x" * 100_000)
        program.end_input()
        assert b"".join(program.chunks()).strip() == b"3000000"


def test_the_last_chunk_waits_for_the_end() -> None:
    with Running(["sh", "-c", "head -c 3000000 /dev/zero; exit 3"]) as program:
        got: list[bytes | memoryview] = []
        with pytest.raises(ProgramFailed, match="status 3"):
            got.extend(program.chunks())
    assert len(b"".join(got)) < 3_000_000


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo one >&2; echo two >&2; exit 1", "one; two"),
        ("kill -9 $$", "sh was ended by SIGKILL"),
        ("exit 5", "sh ended with status 5"),
    ],
)
def test_a_bad_end_says_why(script: str, said: str) -> None:
    with pytest.raises(ProgramFailed) as raised:
        answer(["sh", "-c", script])
    assert raised.value.reason == said


def test_only_the_last_lines_are_kept() -> None:
    with pytest.raises(ProgramFailed) as raised:
        answer(["sh", "-c", "seq 100000 >&2; exit 1"])
    assert raised.value.said[-1] == "100000"
    assert len(raised.value.said) < 20


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ProgramFailed, match="no-such-program"):
        answer(["no-such-program"])


def test_one_that_does_nothing_is_ended() -> None:
    with Running(["sleep", "60"], patience=0.1) as program, pytest.raises(ProgramStalled):
        program.read()
    much = b"x" * 10_000_000  # more than any pipe holds
    with Running(["sleep", "60"], fed=True, patience=0.1) as program, pytest.raises(ProgramStalled):
        program.write(much)


def test_what_is_fed_is_read_to_its_end_even_if_it_is_not_wanted() -> None:
    taken = []

    def chunks() -> object:
        for number in range(50):
            taken.append(number)
            yield b"x" * 100_000

    with Running(["head", "-c", "1"], fed=True) as program:
        feed(program, chunks())  # type: ignore[arg-type]
    assert len(taken) == 50


def test_secrets_are_in_memory_only() -> None:
    environment = Environment({"PLAIN": "seen"}, {"SECRET": b"hidden"})
    script = 'cat "$SECRET"; stat -Lc " %a" "$SECRET"; echo $PLAIN; env | grep -c hidden; true'
    assert answer(["sh", "-c", script], environment) == b"hidden 600\nseen\n0\n"
    assert "hidden" not in repr(environment)


def test_leaving_ends_it() -> None:
    with Running(["sh", "-c", "echo $$; exec sleep 60"]) as program:
        pid = int(program.read())
    assert _gone(pid)


def test_it_does_not_outlive_us(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = os.fork()
    if child == 0:
        with Running(["sh", "-c", "echo $$; exec sleep 60"]) as program:
            note.write_bytes(program.read())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert _gone(int(note.read_text()))


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
