"""Restores that meet trouble of their own: services, health, a journal, a changed configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import RecoveryNeeded
from holdfast.model.marks import Level, Proof
from holdfast.runtime import journal
from holdfast.runtime.leases import Leases
from holdfast.runtime.runs import run
from holdfast.runtime.session import Session, open_session
from holdfast.runtime.upkeep import execute_prune, plan_prune
from tests.crash_stack import CONFIG, Scenes, change
from tests.crash_world import Commands, World
from tests.edges.bad_days import flipped, says, spoilt


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server


@pytest.fixture(scope="module")
def scenes(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    scenes = Scenes(commands, tmp_path_factory.mktemp("bad-restores"))
    scenes.world.done("backup")
    change(scenes.world.folder, "newer")
    scenes.keep()
    return scenes


@pytest.fixture
def world(scenes: Scenes) -> World:
    return scenes.again()


def with_services(world: World, **services: str) -> None:
    lines = [f"  {name}: {value}\n" for name, value in services.items()]
    (world.folder / "holdfast.yaml").write_text(CONFIG + "services:\n" + "".join(lines))


LOG_STOP = '[sh, -c, "echo stop >> services.log"]'
LOG_START = '[sh, -c, "echo start >> services.log"]'


def logged(world: World) -> list[str]:
    return (world.folder / "services.log").read_text().split()


def test_services_that_do_not_start_leave_the_restored_data_in_force(world: World) -> None:
    old = world.live()
    with_services(world, stop=LOG_STOP, start='[sh, -c, "echo no database; exit 4"]')
    says(world.holdfast("restore", "--yes"), 3, "services could not be started", "no database")
    assert world.live() != old
    assert "recover" not in world.done("list").err
    assert world.runs()[0]["error_code"] == "services-down"


def test_what_is_done_is_not_called_failed_because_of_what_was_to_follow(world: World) -> None:
    old = world.live()
    hooks = 'hooks: {after_backup: ["false"], after_restore: ["false"]}\n'
    config = world.folder / "holdfast.yaml"
    config.write_text(config.read_text() + hooks)
    first = max(world.backups())
    says(world.holdfast("backup"), 3, "sealed and kept", "hooks.after_backup")
    assert len(world.backups()) == 2
    assert world.runs()[0]["state"] == "completed"
    says(world.holdfast("restore", first, "--yes"), 3, "in force", "hooks.after_restore")
    assert world.live() != old
    assert "recover" not in world.done("list").err


def test_services_that_are_not_well_put_everything_back(world: World) -> None:
    old = world.live()
    with_services(
        world,
        stop=LOG_STOP,
        start=LOG_START,
        health='["http://127.0.0.1:9/health"]',
        health_timeout="1s",
    )
    ran = world.holdfast("restore", "--yes")
    says(ran, 22, "everything was put back", "127.0.0.1:9")
    assert world.live() == old
    assert logged(world) == ["stop", "start", "stop", "start"]
    assert world.runs()[0]["state"] == "rolled_back"


def test_services_that_cannot_be_stopped_are_started_again_and_nothing_is_changed(
    world: World,
) -> None:
    old = world.live()
    with_services(world, stop='[sh, -c, "echo stop >> services.log; exit 3"]', start=LOG_START)
    says(world.holdfast("restore", "--yes"), 1, "services.stop", "status 3")
    assert world.live() == old
    assert logged(world) == ["stop", "start"]


def test_a_component_that_is_configured_no_more_blocks_only_its_own_recovery(
    world: World,
) -> None:
    old = world.live()
    assert world.holdfast("restore", "--yes", kill_at=102).killed
    assert world.live() != old
    config = world.folder / "holdfast.yaml"
    with spoilt(config, lambda text: text.replace(b"  settings: {", b"  other: {")):
        says(world.holdfast("recover"), 1, "settings")
        assert "recover" in world.done("list").err
    world.done("recover")
    assert world.live() == old


def test_a_damaged_journal_is_named_and_nothing_is_touched(world: World) -> None:
    assert world.holdfast("restore", "--yes", kill_at=102).killed
    live = world.live()
    (path,) = (world.folder / ".holdfast" / "journal").glob("*.jsonl")
    with spoilt(path, flipped(120)):
        says(world.holdfast("recover"), 1, path.stem)
        assert world.live() == live
        says(world.holdfast("backup"), 1, path.stem)
    world.done("recover")


def silent(_event: object) -> None:
    """Hear nothing."""


def session_of(world: World) -> Session:
    return open_session(world.folder / "holdfast.yaml")


def test_a_restore_that_dies_while_another_run_waits_is_not_overlooked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(world)
    acquire = Leases.acquire

    def after_a_death(leases: Leases, stack: str, verb: str, run_id: str) -> object:
        with journal.begin(session.state, "died", "brain", "b", "local", ["projects"], {}) as log:
            log.prepare("projects", "sqlite", {})
        return acquire(leases, stack, verb, run_id)

    monkeypatch.setattr(Leases, "acquire", after_a_death)
    with pytest.raises(RecoveryNeeded), run(session, "backup", silent):
        raise AssertionError("it ran over an interrupted restore")


def test_what_was_to_be_pruned_stays_if_it_has_become_the_last_good_one(world: World) -> None:
    world.done("backup")
    session = session_of(world)
    prunings = plan_prune(session, None, ())
    assert [one.manifest.id for one in prunings[0].doomed] == [min(world.backups())]
    failed = Proof(Level.CHECKSUMS, session.clock.now(), passed=False, problems=("rot",))
    session.vault("local").mark(max(world.backups()), lambda marks: marks.with_proof(failed))
    assert execute_prune(session, prunings, silent) == {"local": []}
    assert len(world.backups()) == 2


def test_nobody_is_told_that_all_is_well_by_verifying_all(world: World) -> None:
    backup = Path(world.folder / "backups" / min(world.backups()))
    with spoilt(backup / "metadata.json", flipped(30)):
        ran = world.holdfast("verify", "all")
        assert ran.status == 20
        assert backup.name in ran.out
