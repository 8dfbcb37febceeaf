"""Prune, pin, import and export killed at any step: a backup is there whole, or it is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash_stack import Scenes, change, sealed, strays
from tests.crash_world import Commands, World

QUICK = 4


def three_backups(commands: Commands, folder: Path) -> Scenes:
    scenes = Scenes(commands, folder)
    for generation in ("first", "second", "third"):
        change(scenes.world.folder, generation)
        scenes.world.done("backup")
    oldest = min(scenes.world.backups())
    scenes.world.done("export", oldest, "oldest.tar")
    scenes.world.done("pin", oldest, "--reason", "the first of all")
    scenes.keep()
    return scenes


def kill_at_every(
    scenes: Scenes, command: tuple[str, ...], look: Callable[[World], None], stride: int
) -> None:
    step = 1
    while True:
        world = scenes.again()
        before = sealed(world)
        ran = world.holdfast(*command, kill_at=step, torn=bool(step % 2))
        if not ran.killed:
            assert ran.status == 0, ran.err
            assert step > 10
            return
        now = sealed(world)
        assert world.backups() == now.keys()
        assert all(now[name] == before[name] for name in now.keys() & before.keys())
        world.done("verify", "all")
        look(world)
        assert strays(world) == [], step
        step += stride


def look_after_prune(world: World) -> None:
    oldest, *_others = sorted(world.backups())
    newest = max(world.backups())
    world.done("prune", "--yes")
    assert world.backups() == {oldest, newest}
    assert oldest < newest


def look_after_unpin(world: World) -> None:
    found = world.asked("list")["backups"]
    assert len(found) == 3
    pinned = [backup["id"] for backup in found if backup["pinned"] is not None]
    assert pinned in ([], [min(world.backups())])
    world.done("unpin", min(world.backups()))
    world.done("prune", "--yes")
    assert len(world.backups()) == 1


def forget_oldest(world: World) -> None:
    oldest = min(world.backups())
    world.done("unpin", oldest)
    world.done("prune", "--yes")
    assert len(world.backups()) == 1


def look_after_import(world: World) -> None:
    if len(world.backups()) == 1:
        world.done("import", "oldest.tar")
    assert len(world.backups()) == 2
    world.done("verify", "all")
    world.done("backup")  # which sweeps


def look_after_export(world: World) -> None:
    file = world.folder / "again.tar"
    if not file.exists():
        world.done("export", min(world.backups()), "again.tar")
    assert file.read_bytes() == (world.folder / "oldest.tar").read_bytes()
    assert {path.name for path in world.folder.iterdir() if path.name.endswith(".partial")} == set()


CASES: dict[str, tuple[tuple[str, ...], Callable[[World], None], Callable[[World], object]]] = {
    "prune": (("prune", "--yes"), look_after_prune, lambda _world: None),
    "unpin": (("unpin", "OLDEST"), look_after_unpin, lambda _world: None),
    "import": (("import", "oldest.tar"), look_after_import, forget_oldest),
    "export": (("export", "OLDEST", "again.tar"), look_after_export, lambda _world: None),
}


def kill_case(commands: Commands, folder: Path, case: str, stride: int) -> None:
    scenes = three_backups(commands, folder)
    words, look, prepare = CASES[case]
    oldest = min(scenes.world.backups())
    command = tuple(oldest if word == "OLDEST" else word for word in words)
    prepare(scenes.world)
    scenes.keep()
    kill_at_every(scenes, command, look, stride)


@pytest.mark.parametrize("case", CASES)
def test_what_is_killed_leaves_whole_backups_only(
    commands: Commands, in_memory: Path, case: str
) -> None:
    kill_case(commands, in_memory, case, QUICK * 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_no_step_is_a_bad_one_to_die_at(commands: Commands, in_memory: Path, case: str) -> None:
    kill_case(commands, in_memory, case, 1)
