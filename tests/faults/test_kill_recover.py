"""A recovery that is itself killed is taken up again, as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.runtime.journal import open_journals
from tests.crash_world import Commands, World, copy_world
from tests.faults.test_kill_restore import Trial, recover, services_run, trial_of

SPREAD = 9  # every step is tried, but each from another state that a killed restore leaves


def signature(world: World) -> str:
    """Return how far the journal of a killed restore had come; empty where there is none open."""
    found = open_journals(world.folder / ".holdfast")
    if not found:
        return ""
    state = found[0].state
    assert state is not None
    stages = " ".join(f"{name}:{one.stage.name}" for name, one in state.components.items())
    return f"{stages} stopped={state.stopped} decided={state.decided}"


def interrupted(trial: Trial, stride: int) -> Iterator[tuple[str, Path]]:
    """Give a copy of the world for each state that a killed restore can leave."""
    seen = {""}
    step = 20
    while True:
        world = trial.scenes.again()
        ran = world.holdfast("restore", "--yes", kill_at=step)
        if not ran.killed:
            break
        if (found := signature(world)) not in seen:
            seen.add(found)
            kept = trial.scenes.original.with_name("interrupted")
            copy_world(world.folder, kept)
            yield found, kept
        step += stride
    assert any("decided=True" in state for state in seen)
    assert any("ACTIVATED" in state and "decided=False" in state for state in seen)


def kill_recovery(trial: Trial, kept: Path, start: int, stride: int) -> None:
    step = start
    while True:
        world = trial.scenes.world
        copy_world(kept, world.folder)
        ran = world.holdfast("recover", kill_at=step, torn=bool(step % 2))
        if not ran.killed:
            assert ran.status == 0, ran.err
            assert world.live() in (trial.old, trial.new)
            assert services_run(world)
            return
        recover(world, trial, f"step {step} of recovery")
        step += stride


def test_a_killed_recovery_is_finished_by_the_next(commands: Commands, in_memory: Path) -> None:
    trial = trial_of(commands, in_memory)
    for number, (_state, kept) in enumerate(interrupted(trial, 11)):
        kill_recovery(trial, kept, 8 + 3 * number, 30)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_step_of_a_recovery_is_a_bad_one_to_die_at(commands: Commands, in_memory: Path) -> None:
    trial = trial_of(commands, in_memory)
    for number, (_state, kept) in enumerate(interrupted(trial, 2)):
        kill_recovery(trial, kept, 1 + number % SPREAD, SPREAD)
