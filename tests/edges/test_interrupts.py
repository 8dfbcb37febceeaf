"""Real Ctrl-C and SIGTERM at each step: put back, or finished and said so; never in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash_stack import Scenes, change, sealed, strays
from tests.crash_world import Commands, World

SERVICES = ("start", "stop start", "stop stop start", "stop start stop start")
TOO_LATE = "too late"


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server


@pytest.fixture(scope="module")
def scenes(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    scenes = Scenes(commands, tmp_path_factory.mktemp("interrupts"), services=True)
    scenes.world.done("backup")
    change(scenes.world.folder, "newer")
    scenes.keep()
    return scenes


def interrupt_backups(scenes: Scenes, start: int, stride: int, signals: str) -> None:
    step = start
    kinds: set[int] = set()
    while True:
        world = scenes.again()
        before, live = sealed(world), world.live()
        ran = world.holdfast("backup", signal_at=step, signals=signals)
        assert ran.status in {0, 130}, f"step {step}: {ran.err}"
        kinds.add(ran.status)
        now = sealed(world)
        assert {name: now[name] for name in before} == before
        assert world.backups() == now.keys()
        made = len(now) > len(before)
        assert made == (ran.status == 0 or TOO_LATE in ran.err), f"step {step}: {ran.err}"
        assert left_behind(world) == [], step
        assert world.live() == live
        state = world.runs()[0]["state"] if ran.err else ""
        assert state in {"", "cancelled", "completed"}, step
        if ran.steps and ran.steps < step:
            assert kinds == {0, 130}
            return
        step += stride


def left_behind(world: World) -> list[str]:
    """Return what lies about, but for a lease: one that was just taken died with its process."""
    return [place for place in strays(world) if not place.endswith(".held")]


def interrupt_restores(scenes: Scenes, start: int, stride: int, signals: str) -> None:
    world = scenes.again()
    old = world.live()
    world.done("restore", "--yes")
    new = world.live()
    step = start
    while True:
        world = scenes.again()
        ran = world.holdfast("restore", "--yes", signal_at=step, signals=signals)
        assert ran.status in {0, 130}, f"step {step}: {ran.err}"
        in_force = ran.status == 0 or TOO_LATE in ran.err
        assert world.live() == (new if in_force else old), f"step {step}: {ran.err}"
        assert "holdfast recover" not in world.done("list").err, step
        log = world.folder / "services.log"
        assert not log.exists() or log.read_text().split()[-1] == "start", step
        assert left_behind(world) == [], step
        if ran.steps and ran.steps < step:
            return
        step += stride


@pytest.mark.parametrize("signals", ["SIGINT", "SIGTERM"])
def test_an_interrupted_backup_is_whole_or_not_there(scenes: Scenes, signals: str) -> None:
    interrupt_backups(scenes, 4, 14, signals)


@pytest.mark.parametrize("signals", ["SIGINT", "SIGTERM"])
def test_an_interrupted_restore_is_put_back_or_in_force(scenes: Scenes, signals: str) -> None:
    interrupt_restores(scenes, 10, 23, signals)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", range(2))
def test_no_step_is_a_bad_one_for_a_backup_to_be_interrupted(scenes: Scenes, start: int) -> None:
    interrupt_backups(scenes, 1 + start, 4, "SIGINT")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", range(2))
def test_no_step_is_a_bad_one_for_a_restore_to_be_interrupted(scenes: Scenes, start: int) -> None:
    interrupt_restores(scenes, 1 + start, 6, "SIGINT")


def test_what_the_services_leave_running_outlives_a_ctrl_c(scenes: Scenes) -> None:
    world = scenes.again()
    with_daemon(world)
    world.done("restore", "--yes")  # would wait for the daemon's end if it read its output
    assert alive(world)
    world.holdfast("backup", signal_at=20)
    assert alive(world)
    (world.folder / "stop-daemon").touch()


def with_daemon(world: World) -> None:
    """Let the start command leave a program running, as such commands do."""
    config = world.folder / "holdfast.yaml"
    script = "while [ ! -e stop-daemon ]; do date +%N > beat; sleep 0.05; done"
    text = config.read_text()
    before, _start, _after = text.partition("  start:")
    config.write_text(f'{before}  start: [sh, -c, "({script}) &"]\n')


def alive(world: World) -> bool:
    import time

    beat = world.folder / "beat"
    first = beat.read_text() if beat.exists() else ""
    time.sleep(0.4)
    return Path(beat).exists() and beat.read_text() != first
