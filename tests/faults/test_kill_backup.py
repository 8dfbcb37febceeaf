"""A backup killed at any of its steps leaves nothing half-made, nor anything in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash_stack import Scenes, change, sealed, strays
from tests.crash_world import Commands, World

SHARDS = 4
QUICK = 9  # steps between two kills of the quick test
FEWEST = 60  # a backup has more steps than this; fewer mean that they are not seen any more


def scenes_of_backup(commands: Commands, folder: Path) -> Scenes:
    scenes = Scenes(commands, folder)
    scenes.world.done("backup")
    change(scenes.world.folder, "newer")
    scenes.keep()
    return scenes


def kill_at_every(scenes: Scenes, start: int, stride: int) -> int:
    """Kill a backup at each step from ``start`` by ``stride``; returns how many there were."""
    step = start
    while True:
        world = scenes.again()
        before, live = sealed(world), world.live()
        ran = world.holdfast("backup", kill_at=step, torn=bool(step % 2))
        if not ran.killed:
            assert ran.status == 0, ran.err
            return ran.steps
        look_after_kill(world, before, live)
        step += stride


def look_after_kill(world: World, before: dict[str, dict[str, str]], live: dict[str, str]) -> None:
    assert world.live() == live
    now = sealed(world)
    assert {name: now[name] for name in before} == before
    listed = world.backups()
    assert before.keys() <= listed == now.keys()
    assert len(listed) <= len(before) + 1
    world.done("backup")
    assert len(world.backups()) == len(listed) + 1
    assert strays(world) == []
    assert world.live() == live
    world.done("verify", "all", "--level", "checksums")
    runs = [run for run in world.runs() if run["verb"] == "backup"]
    assert {run["state"] for run in runs} <= {"completed", "failed"}
    assert all(run["error_code"] == "died" for run in runs if run["state"] == "failed")
    assert len([run for run in runs if run["state"] == "failed"]) <= 1


def test_a_killed_backup_leaves_nothing_half_made(commands: Commands, in_memory: Path) -> None:
    assert kill_at_every(scenes_of_backup(commands, in_memory), 5, QUICK) > FEWEST


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_step_of_a_backup_is_a_bad_one_to_die_at(
    commands: Commands, in_memory: Path, shard: int
) -> None:
    assert kill_at_every(scenes_of_backup(commands, in_memory), 1 + shard, SHARDS) > FEWEST


def test_the_run_that_died_is_shown_as_such(commands: Commands, in_memory: Path) -> None:
    world = scenes_of_backup(commands, in_memory).again()
    assert world.holdfast("backup", kill_at=40).killed
    newest = world.runs()[0]
    assert (newest["state"], newest["error_code"]) == ("failed", "died")
    assert world.asked("status")["running"] is None
