"""Leases between real processes, killed and racing."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.errors import StackLocked
from holdfast.runtime.leases import Leases
from tests.runtime_world import SettableClock, child, heard

HOLD = """
import sys, pathlib
from holdfast.runtime.leases import Leases
from tests.runtime_world import SettableClock
leases = Leases(pathlib.Path(sys.argv[1]), SettableClock())
with leases.acquire("brain", "backup", sys.argv[2]) as lease:
    print(lease.token, flush=True)
    sys.stdin.readline()
"""

# Each contender, whenever it holds the stack, reads a number, waits and writes the next one, in a
# file that nothing else protects: two at once would lose a count.
CONTEND = """
import sys, pathlib, time
from holdfast.errors import StackLocked
from holdfast.runtime.leases import Leases
from tests.runtime_world import SettableClock
folder, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
leases, count, tokens = Leases(folder, SettableClock()), folder / "count", []
print("ready", flush=True)
sys.stdin.readline()
while len(tokens) < rounds:
    try:
        with leases.acquire("brain", "backup", "run") as lease:
            found = int(count.read_text())
            time.sleep(0.001)
            lease.check()
            count.write_text(str(found + 1))
            tokens.append(lease.token)
    except StackLocked:
        time.sleep(0.001)
print(*tokens, flush=True)
"""


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_contenders_never_hold_a_stack_at_once(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    with ExitStack() as stack:
        children = [stack.enter_context(child(CONTEND, tmp_path, 50)) for _ in range(2)]
        for process in children:
            assert heard(process) == "ready"
        for process in children:
            go(process)
        tokens = [
            [int(t) for t in process.communicate(timeout=50)[0].split()] for process in children
        ]
    assert (tmp_path / "count").read_text() == "100"
    assert sorted(tokens[0] + tokens[1]) == list(range(1, 101))
    assert tokens == [sorted(own) for own in tokens]


def test_a_holder_under_kill_9_is_taken_over_at_once_every_time(tmp_path: Path) -> None:
    leases = Leases(tmp_path, SettableClock(), pause=never)
    for trial in range(5):
        run = f"killed-{trial}"
        with child(HOLD, tmp_path, run) as process:
            token = int(heard(process))
            with (
                pytest.raises(StackLocked, match=f"backup {run}, process {process.pid} on"),
                leases.acquire("brain", "restore", "mine"),
            ):
                pass
            process.kill()
            process.wait()
        with leases.acquire("brain", "restore", "mine") as lease:
            assert lease.token == token + 1
            assert lease.predecessor is not None
            assert lease.predecessor.run == run


def never(_seconds: float) -> None:
    pytest.fail("a holder of our own kind is never waited for")


def test_killed_at_any_moment_a_contender_leaves_no_lock_behind(tmp_path: Path) -> None:
    leases = Leases(tmp_path, SettableClock(), pause=never)
    last = 0
    for _ in range(10):
        (tmp_path / "count").write_text("0")  # the one before may have died while writing it
        with child(CONTEND, tmp_path, 10_000) as process:
            assert heard(process) == "ready"
            go(process)
            while not leases.holder("brain"):
                pass
            process.kill()
            process.wait()
        with leases.acquire("brain", "restore", "mine") as lease:
            assert lease.token > last
            last = lease.token
