"""The journal of restores that are killed, and recoveries that race."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.model.recovery import RestoreState, Stage
from holdfast.runtime.journal import open_journals, reopen
from tests.runtime_world import child, heard

# Does a restore's steps for as many components as are asked for, telling each record once it is
# written, and standing still where it is told to; the acts are files, made and renamed.
RESTORE = """
import sys, pathlib
from holdfast.runtime.journal import begin
folder, run, until, names = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]

def say(text):
    print(text, flush=True)
    if text == until:
        sys.stdin.readline()

with begin(folder, run, "brain", "b1", "local", names, {}) as journal:
    say("begun")
    for name in names:
        journal.prepare(name, "files", {"path": name})
        (folder / f"{run}.{name}.staged").touch()
        journal.filled(name)
        say(f"filled {name}")
    for name in names:
        journal.activate(name)
        (folder / f"{run}.{name}.staged").rename(folder / f"{run}.{name}.live")
        journal.activated(name)
        say(f"activated {name}")
    journal.settle()
    say("settle")
    for name in names:
        (folder / f"{run}.{name}.old").touch()
        journal.settled(name)
    journal.end("completed")
    say("end")
"""

RECOVER = """
import sys, pathlib
from holdfast.errors import StackLocked, UnknownName
from holdfast.runtime.journal import reopen
folder, run = pathlib.Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
try:
    with reopen(folder, run) as journal:
        for involved in journal.state.to_revert:
            with (folder / "reverted").open("a") as log:
                log.write(involved.name + " ")
            journal.reverted(involved.name)
            print("reverted", flush=True)
            if len(sys.argv) > 3:
                sys.stdin.readline()
        journal.end("rolled_back")
    print("recovered", flush=True)
except (StackLocked, UnknownName) as error:
    print(error.code, flush=True)
"""

NAMES = ("one", "two", "three")


@pytest.mark.parametrize("lines", range(9))
def test_killed_at_any_moment_a_restore_says_what_it_touched(tmp_path: Path, lines: int) -> None:
    for trial in range(3):
        run = f"r{trial}"
        with child(RESTORE, tmp_path, run, "", *NAMES) as process:
            for _ in range(lines):
                heard(process)
            process.kill()
            process.wait()
        agree_with_what_was_done(tmp_path, run)


def agree_with_what_was_done(folder: Path, run: str) -> None:
    """Compare what the journal says with what lies in the folder: nothing was done unannounced."""
    done = {path.name for path in folder.glob(f"{run}.*")}
    unfinished = {one.run: one for one in open_journals(folder)}
    if run not in unfinished:
        complete = (folder / "journal" / "done" / f"{run}.jsonl").exists()
        assert len(done) == (6 if complete else 0)
        return
    state = unfinished[run].state
    assert state is not None
    assert {name.split(".")[1] for name in done} <= set(state.components)
    for name, involved in state.components.items():
        staged, live, old = (f"{run}.{name}.{what}" in done for what in ("staged", "live", "old"))
        allowed = {
            Stage.PREPARED: {(False, False), (True, False)},
            Stage.FILLED: {(True, False)},
            Stage.ACTIVATING: {(True, False), (False, True)},
            Stage.ACTIVATED: {(False, True)},
            Stage.SETTLED: {(False, True)},
        }
        assert (staged, live) in allowed[involved.stage]
        assert state.decided or not old
    with reopen(folder, run) as journal:
        for involved in journal.state.to_revert:
            journal.reverted(involved.name)
        for involved in journal.state.to_settle:
            journal.settled(involved.name)
        journal.end("completed" if state.decided else "rolled_back")
    assert open_journals(folder) == []


def killed_at(folder: Path, moment: str) -> RestoreState:
    """Kill a restore at a moment; returns what its journal says."""
    with child(RESTORE, folder, "r", moment, *NAMES) as process:
        while heard(process) != moment:
            pass
        process.kill()
        process.wait()
    state = open_journals(folder)[0].state
    assert state is not None
    return state


def test_of_several_recoveries_one_does_the_work(tmp_path: Path) -> None:
    state = killed_at(tmp_path, "activated one")
    with ExitStack() as stack:
        children = [stack.enter_context(child(RECOVER, tmp_path, "r")) for _ in range(4)]
        for process in children:
            assert heard(process) == "ready"
        for process in children:
            go(process)
        told = [process.communicate(timeout=30)[0].split() for process in children]
    assert sorted(lines[-1] == "recovered" for lines in told) == [False, False, False, True]
    assert {lines[-1] for lines in told} <= {"recovered", "stack-locked", "unknown-name"}
    names = [involved.name for involved in state.to_revert]
    assert names == ["three", "two", "one"]
    assert (tmp_path / "reverted").read_text().split() == names


def test_a_recovery_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    killed_at(tmp_path, "activated three")
    for _ in range(3):
        with child(RECOVER, tmp_path, "r", "stand still") as process:
            go(process)
            assert [heard(process), heard(process)] == ["ready", "reverted"]
            process.kill()
            process.wait()
    assert (tmp_path / "reverted").read_text().split() == ["three", "two", "one"]
    state = open_journals(tmp_path)[0].state
    assert state is not None
    assert state.to_revert == []
    with child(RECOVER, tmp_path, "r") as process:
        go(process)
        assert [heard(process), heard(process)] == ["ready", "recovered"]
    assert open_journals(tmp_path) == []


def test_killed_after_the_decision_it_is_finished_not_undone(tmp_path: Path) -> None:
    state = killed_at(tmp_path, "settle")
    assert state.decided
    assert state.to_revert == []
    assert [involved.name for involved in state.to_settle] == list(NAMES)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
