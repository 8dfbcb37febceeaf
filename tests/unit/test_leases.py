"""Leases: who may change a stack, judged without trusting a clock."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.errors import LeaseLost, NoSpace, StackLocked, StateUnwritable, UnsafeName
from holdfast.model.runs import Process
from holdfast.runtime import leases as leases_module
from holdfast.runtime.leases import EXPIRY, Holding, Leases
from holdfast.runtime.processes import Liveness, ended, liveness, this_process
from tests.runtime_world import SettableClock, child, heard

FOREIGN = replace(this_process(), host="elsewhere", boot="another boot", pid=1)


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def leases(tmp_path: Path, clock: SettableClock) -> Leases:
    return Leases(tmp_path, clock, pause=clock.pass_by)


def held(folder: Path) -> Path:
    return folder / "leases" / "brain.held"


def plant(folder: Path, **changes: object) -> Holding:
    """Leave a lease behind as another run would."""
    holding = Holding("brain", 7, "backup", "their-run", FOREIGN, "2026-11-20T10:15:00+00:00")
    holding = replace(holding, **changes)  # type: ignore[arg-type]
    (folder / "leases").mkdir(exist_ok=True)
    held(folder).write_text(json.dumps(asdict(holding)))
    return holding


def test_a_lease_excludes_others_until_it_is_given_back(leases: Leases) -> None:
    with leases.acquire("brain", "backup", "run-1") as lease:
        lease.check()
        holder = leases.holder("brain")
        assert holder is not None
        assert (holder.verb, holder.run, holder.process) == ("backup", "run-1", this_process())
        with (
            pytest.raises(StackLocked, match=r"backup run-1, process \d+ on .* since 2026-11-20"),
            leases.acquire("brain", "restore", "run-2"),
        ):
            pass
        with leases.acquire("heart", "backup", "run-3"):
            pass
    assert leases.holder("brain") is None


def test_tokens_grow_with_every_holder_of_a_stack(leases: Leases) -> None:
    tokens = []
    for number in range(3):
        with leases.acquire("brain", "backup", str(number)) as lease:
            tokens.append(lease.token)
    assert tokens == [1, 2, 3]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_lease_is_given_back_when_its_run_fails(
    leases: Leases, failure: type[BaseException]
) -> None:
    with pytest.raises(failure), leases.acquire("brain", "backup", "run-1"):
        raise failure
    assert leases.holder("brain") is None
    assert [thread for thread in threading.enumerate() if thread.name.startswith("lease")] == []
    with leases.acquire("brain", "backup", "run-2") as lease:
        assert lease.predecessor is None


def test_a_dead_holder_is_taken_over_at_once(
    leases: Leases, tmp_path: Path, clock: SettableClock
) -> None:
    with child("print('up', flush=True); input()") as process:
        assert heard(process) == "up"
        theirs = process_of(process.pid)
        plant(tmp_path, process=theirs)
        with pytest.raises(StackLocked), leases.acquire("brain", "backup", "mine"):
            pass
        process.kill()
        process.wait()
        before = clock.monotonic()
        with leases.acquire("brain", "backup", "mine") as lease:
            assert (lease.token, clock.monotonic()) == (8, before)
            assert lease.predecessor is not None
            assert lease.predecessor.run == "their-run"


def test_a_killed_holder_that_nobody_reaped_is_dead(leases: Leases, tmp_path: Path) -> None:
    with child("print('up', flush=True); input()") as process:
        assert heard(process) == "up"
        theirs = process_of(process.pid)
        process.kill()
        while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "Z":
            pass
        assert liveness(theirs) is Liveness.DEAD
        plant(tmp_path, process=theirs)
        with leases.acquire("brain", "backup", "mine"):
            pass


def process_of(pid: int) -> Process:
    text = Path(f"/proc/{pid}/stat").read_text()
    started = int(text.rpartition(")")[2].split()[19])
    return replace(this_process(), pid=pid, started=started)


def test_a_number_that_was_given_to_another_process_does_not_hold(
    leases: Leases, tmp_path: Path
) -> None:
    ours = this_process()
    plant(tmp_path, process=replace(ours, started=ours.started - 1))
    assert leases.holder("brain") is None
    with leases.acquire("brain", "backup", "mine") as lease:
        assert lease.token == 8


def test_a_process_behind_hidden_numbers_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("holdfast.runtime.processes._stat", lambda _pid: None)
    assert liveness(replace(this_process(), pid=1, started=1)) is Liveness.UNKNOWN
    assert liveness(replace(this_process(), pid=2**22 + 1, started=1)) is Liveness.DEAD


def test_processes_elsewhere_are_never_judged_by_their_number() -> None:
    ours = this_process()
    assert liveness(ours) is Liveness.ALIVE
    for other in ({"boot": "b"}, {"space": "s"}, {"boot": ""}, {"started": -1}):
        assert liveness(replace(ours, pid=2**22 + 1, **other)) is Liveness.UNKNOWN
    assert ended(replace(ours, boot="an earlier boot of this machine"))
    assert not ended(replace(ours, boot="a boot of another machine", host="elsewhere"))


def test_a_silent_holder_elsewhere_is_taken_over_after_the_expiry(
    leases: Leases, tmp_path: Path, clock: SettableClock
) -> None:
    plant(tmp_path)
    before = clock.monotonic()
    with leases.acquire("brain", "backup", "mine") as lease:
        assert EXPIRY <= clock.monotonic() - before < EXPIRY + 1
        assert (lease.token, lease.predecessor and lease.predecessor.run) == (8, "their-run")


def test_a_holder_elsewhere_that_gives_a_sign_of_life_keeps_it(
    tmp_path: Path, clock: SettableClock
) -> None:
    plant(tmp_path)
    began = clock.monotonic()

    def pause(seconds: float) -> None:
        clock.pass_by(seconds)
        if clock.monotonic() - began > 59:
            os.utime(held(tmp_path), (0, 0))  # a holder whose clock is far behind

    with (
        pytest.raises(StackLocked, match="their-run, process 1 on elsewhere"),
        Leases(tmp_path, clock, pause=pause).acquire("brain", "backup", "mine"),
    ):
        pass
    assert clock.monotonic() - began < EXPIRY


@pytest.mark.parametrize("jump", [timedelta(days=-4000), timedelta(days=4000)])
def test_a_jumping_clock_neither_expires_a_lease_nor_keeps_it(
    tmp_path: Path, clock: SettableClock, jump: timedelta
) -> None:
    waited = []

    def pause(seconds: float) -> None:
        clock.pass_by(seconds)
        clock.wall += jump / 1000
        waited.append(seconds)

    leases = Leases(tmp_path, clock, pause=pause)
    with leases.acquire("brain", "backup", "alive") as lease:
        clock.wall += jump
        with pytest.raises(StackLocked), leases.acquire("brain", "backup", "mine"):
            pass
        lease.check()
        assert waited == []
    plant(tmp_path)
    with leases.acquire("brain", "backup", "mine"):
        assert EXPIRY <= sum(waited) < EXPIRY + 1


def test_a_holder_who_was_taken_over_is_told(leases: Leases, tmp_path: Path) -> None:
    with leases.acquire("brain", "backup", "run-1") as lease:
        other = plant(tmp_path, token=9, process=FOREIGN)
        with pytest.raises(LeaseLost, match="brain: process 1 on elsewhere"):
            lease.check()
    assert json.loads(held(tmp_path).read_text())["token"] == other.token  # not ours to give back


def test_a_lease_that_was_removed_is_lost(leases: Leases, tmp_path: Path) -> None:
    with leases.acquire("brain", "backup", "run-1") as lease:
        held(tmp_path).unlink()
        with pytest.raises(LeaseLost, match="its lease is gone"):
            lease.check()


def test_a_holder_gives_signs_of_life_whatever_the_clock_says(
    tmp_path: Path, clock: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1)  # a clock that stands still, long ago
    seen: set[int] = set()
    with Leases(tmp_path, clock, heartbeat=0.01).acquire("brain", "backup", "run-1") as lease:
        while len(seen) < 4:
            seen.add(held(tmp_path).stat().st_mtime_ns)
        lease.check()


def test_a_heartbeat_that_fails_is_logged_and_tried_again(
    tmp_path: Path,
    clock: SettableClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real: Callable[[Path], None] = leases_module._touch
    calls = threading.Semaphore(0)
    failures = iter([OSError(5, "broken disk")])

    def touch(path: Path) -> None:
        calls.release()
        for failure in failures:
            raise failure
        real(path)

    monkeypatch.setattr(leases_module, "_touch", touch)
    with Leases(tmp_path, clock, heartbeat=0.01).acquire("brain", "backup", "run-1"):
        assert all(calls.acquire(timeout=10) for _ in range(3))
    assert "broken disk" in caplog.text


def test_an_unreadable_lease_is_watched_and_its_token_skipped(
    leases: Leases, tmp_path: Path, clock: SettableClock
) -> None:
    with leases.acquire("brain", "backup", "run-1") as first:
        pass
    held(tmp_path).write_text("{rotten")  # the lease with token 2
    before = clock.monotonic()
    with leases.acquire("brain", "backup", "run-3") as lease:
        assert lease.token == first.token + 2
        assert clock.monotonic() - before >= EXPIRY


def test_a_lease_whose_run_failed_and_cannot_be_given_back_says_both(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise StateUnwritable(path="leases", reason="read-only")

    def run() -> None:
        monkeypatch.setattr(Leases, "_give_back", broken)
        raise ValueError("the run failed")

    with pytest.raises(ValueError, match="the run") as caught, leases.acquire("brain", "b", "r"):
        run()
    assert "read-only" in caught.value.__notes__[0]


def test_on_a_full_disk_a_stack_that_was_held_before_can_be_held_again(
    leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _data: bytes) -> None:
        raise NoSpace(path=path)

    with leases.acquire("brain", "backup", "a run with a name that is longer than the next"):
        pass
    monkeypatch.setattr(leases_module, "replace_file", full)
    for token in (2, 3):
        with leases.acquire("brain", "prune", "run-2") as lease:
            lease.check()
            assert lease.token == token
            with pytest.raises(StackLocked), leases.acquire("brain", "prune", "run-3"):
                pass
    with pytest.raises(NoSpace), leases.acquire("heart", "prune", "run-2"):
        pass
    assert leases.holder("heart") is None


def test_a_stack_s_name_never_leads_out_of_the_folder(leases: Leases) -> None:
    with pytest.raises(UnsafeName), leases.acquire("../brain", "backup", "run-1"):
        pass
