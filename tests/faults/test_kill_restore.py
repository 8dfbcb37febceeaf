"""A restore killed at any of its steps ends, after ``recover``, as all new or as all old data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.runtime.journal import open_journals
from tests.crash_stack import Scenes, add_vectors, change, strays
from tests.crash_world import Commands, World

SHARDS = 4
QUICK = 17  # steps between two kills of the quick test
FEWEST = 90


@dataclass(frozen=True)
class Trial:
    """A world whose data is old, with a backup that is new to it, and pictures of both."""

    scenes: Scenes
    old: dict[str, str]
    new: dict[str, str]


def trial_of(commands: Commands, folder: Path, *, vectors: bool = False) -> Trial:
    scenes = Scenes(commands, folder, services=True, vectors=vectors)
    world = scenes.world
    world.done("backup")
    change(world.folder, "replaced")
    if vectors:
        add_vectors(world.folder, "replaced")
    scenes.keep()
    old = world.live()
    world.done("restore", "--yes")
    new = world.live()
    assert all(old[name] != new[name] for name in ("projects.db", "settings.db", "uploads/a.txt"))
    assert not vectors or old["vectors/chroma.sqlite3"] != new["vectors/chroma.sqlite3"]
    return Trial(scenes, old, new)


def kill_at_every(trial: Trial, start: int, stride: int) -> int:
    """Kill a restore at each step from ``start`` by ``stride``; returns how many there were."""
    step = start
    while True:
        world = trial.scenes.again()
        ran = world.holdfast("restore", "--yes", kill_at=step, torn=bool(step % 2))
        if not ran.killed:
            assert ran.status == 0, ran.err
            assert world.live() == trial.new
            return ran.steps
        recover(world, trial, f"step {step}")
        step += stride


def recover(world: World, trial: Trial, when: str) -> None:
    """Put a world right whose restore was killed; it must be all old, or all new, and running."""
    waiting = bool(open_journals(world.folder / ".holdfast"))
    said = world.done("list").err
    assert ("holdfast recover" in said) == waiting, when
    if waiting:
        refused = world.holdfast("backup")
        assert refused.status == 1, when
        assert "holdfast recover" in refused.err, when
    outcomes = world.asked("recover")["recovered"]
    assert bool(outcomes) == waiting, when
    live = world.live()
    if outcomes:
        (outcome,) = outcomes.values()
        assert live == {"completed": trial.new, "rolled_back": trial.old}[outcome], when
        assert strays(world) == [], when
    else:
        assert live in (trial.old, trial.new), when
    assert services_run(world), when


def services_run(world: World) -> bool:
    """Tell whether the services were started after they were last stopped."""
    log = world.folder / "services.log"
    return not log.exists() or log.read_text().splitlines()[-1] == "start"


def test_a_killed_restore_is_put_right(commands: Commands, in_memory: Path) -> None:
    trial = trial_of(commands, in_memory)
    assert kill_at_every(trial, 10, QUICK) > FEWEST


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_step_of_a_restore_is_a_bad_one_to_die_at(
    commands: Commands, in_memory: Path, shard: int
) -> None:
    assert kill_at_every(trial_of(commands, in_memory), 1 + shard, SHARDS) > FEWEST


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_restore_of_vectors_is_put_right_too(commands: Commands, in_memory: Path) -> None:
    trial = trial_of(commands, in_memory, vectors=True)
    assert kill_at_every(trial, 10, 11) > FEWEST


def test_after_recovery_the_next_restore_and_backup_work(
    commands: Commands, in_memory: Path
) -> None:
    trial = trial_of(commands, in_memory)
    world = trial.scenes.again()
    assert world.holdfast("restore", "--yes", kill_at=70).killed
    assert world.holdfast("restore", "--yes").status == 1
    world.done("recover")
    world.done("backup")
    world.done("restore", "--yes", min(world.backups()))
    assert world.live() == trial.new


def test_a_killed_restore_elsewhere_leaves_the_target_as_it_was(
    commands: Commands, in_memory: Path
) -> None:
    trial = trial_of(commands, in_memory)
    for step in range(20, 90, 12):
        world = trial.scenes.again()
        assert world.holdfast("restore", "--target", "elsewhere", kill_at=step).killed
        outcomes = world.asked("recover")["recovered"]
        if "completed" not in outcomes.values():
            assert not (world.folder / "elsewhere").exists(), step
        assert world.live() == trial.old
        world.done("restore", "--target", "elsewhere")
        log = world.folder / "services.log"
        assert not log.exists(), "the application was stopped for what does not concern it"


def test_what_a_restore_replaced_is_kept_whole_or_not_shown(
    commands: Commands, in_memory: Path
) -> None:
    scenes = trial_of(commands, in_memory).scenes
    scenes.world.done("restore", "--yes")  # so that there is an older way back to let go
    scenes.keep()
    steps = scenes.world.done("restore", "--yes").steps
    for step in range(steps - 24, steps, 2):
        world = scenes.again()
        assert world.holdfast("restore", "--yes", kill_at=step).killed
        world.done("recover")
        for place in world.asked("status")["replaced"]:
            kept = {path.name for path in Path(place).iterdir()}
            assert kept == {"projects", "settings", "uploads"}, step
            assert (Path(place) / "uploads" / "uploads" / "deep").is_dir(), step
            assert (Path(place) / "projects" / "projects.db").exists(), step
