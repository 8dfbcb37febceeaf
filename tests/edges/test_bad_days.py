"""Bad days, through the real command line: one clear line, the right status, nothing lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash_stack import ADD_VECTORS, Scenes, change, sealed, strays
from tests.crash_world import Commands, World
from tests.edges.bad_days import newest, says, told
from tests.other_user import NOBODY, as_other_user

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root; named in the report header")


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server


@pytest.fixture(scope="module")
def scenes(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    scenes = Scenes(commands, tmp_path_factory.mktemp("bad-days"))
    scenes.world.done("backup")
    change(scenes.world.folder, "newer")
    scenes.keep()
    return scenes


@pytest.fixture
def world(scenes: Scenes) -> World:
    """A stack with one good backup, changed since."""
    return scenes.again()


def still_good(world: World, before: dict[str, dict[str, str]]) -> None:
    """What was backed up before is there unchanged, and nothing half-made is beside it."""
    now = sealed(world)
    assert {name: now[name] for name in before} == before
    assert world.backups() == now.keys()
    assert strays(world) == []


# --- sources --------------------------------------------------------------------------------------


def spoil_missing(path: Path) -> None:
    path.unlink()


def spoil_text(path: Path) -> None:
    path.write_text("this is no database at all, but a text that is long enough to be one" * 100)


def spoil_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_missing, "does not exist"),
        (spoil_text, "is not an SQLite database"),
        (spoil_pages, "is damaged"),
    ],
)
def test_a_database_that_cannot_be_copied_makes_the_backup_partial(
    world: World, spoil: object, words: str
) -> None:
    before = sealed(world)
    assert callable(spoil)
    spoil(world.folder / "data" / "settings.db")
    live = world.live()
    told(world.holdfast("backup"), 3, "settings", words, "PARTIAL")
    says(world.holdfast("backup", "--component", "settings"), 1, "settings", words)
    still_good(world, before)
    assert world.live() == live
    assert world.asked("show", "latest")["id"] == min(before)


def test_a_missing_folder_is_named(world: World) -> None:
    (world.folder / "data" / "uploads").rename(world.folder / "elsewhere")
    says(world.holdfast("backup", "--component", "uploads"), 1, "uploads", "does not exist")


def test_a_damaged_database_can_be_kept_as_evidence_and_never_counts_as_good(world: World) -> None:
    good = max(world.backups())
    spoil_pages(world.folder / "data" / "settings.db")
    told(world.holdfast("backup", "--evidence"), 3, "EVIDENCE OF DAMAGE")
    assert "evidence of damage" in world.done("list").out
    assert len(world.backups()) == 2
    assert world.asked("show", "latest")["id"] == good


def test_a_locked_database_is_waited_for_and_then_named(world: World) -> None:
    config = world.folder / "holdfast.yaml"
    config.write_text(config.read_text().replace("settings.db}", "settings.db, lock_timeout: 0.5}"))
    holder = sqlite3.connect(world.folder / "data" / "settings.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        says(world.holdfast("backup", "--component", "settings"), 11, "settings", "locked")
    finally:
        holder.close()


def test_a_read_error_makes_the_backup_partial(world: World) -> None:
    before = sealed(world)
    ran = world.holdfast("backup", unreadable="uploads")
    told(ran, 3, "uploads", "Input/output error")
    still_good(world, before)


@as_other_user
def test_what_may_not_be_read_is_named(world: World) -> None:
    give_away(world)
    secret = world.folder / "data" / "uploads" / "a.txt"
    os.chown(secret, 0, 0)
    secret.chmod(0o600)
    ran = world.holdfast("backup", "--component", "uploads", user=NOBODY)
    says(ran, 1, "uploads", "a.txt", "Permission denied")


def give_away(world: World) -> None:
    """Let the whole world belong to nobody, who must also be able to get there."""
    for path in [world.folder, *world.folder.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for parent in world.folder.parents:
        if parent != Path("/") and parent.stat().st_uid == 0 and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o011)


# --- room -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [2000, 4096, 9000, 14000, 20000])
def test_a_full_disk_leaves_nothing_half_made(world: World, room: int) -> None:
    before = sealed(world)
    (world.folder / "data" / "uploads" / "noise.bin").write_bytes(os.urandom(30_000))
    live = world.live()
    ran = world.holdfast("backup", largest_file=room)
    says(ran, 1, "")
    now = sealed(world)
    assert now == before
    assert world.live() == live
    world.done("backup")
    still_good(world, before)


@pytest.mark.parametrize("room", [2000, 4096, 9000, 14000])
def test_a_restore_that_finds_no_room_changes_nothing(world: World, room: int) -> None:
    live = world.live()
    ran = world.holdfast("restore", "--yes", largest_file=room)
    says(ran, 1, "")
    assert world.live() == live
    assert "holdfast recover" not in world.done("list").err
    world.done("restore", "--yes")


def test_a_failure_that_cannot_even_be_said_has_its_status(world: World) -> None:
    live = world.live()
    assert world.holdfast("backup", largest_file=10).status == 1
    assert world.holdfast("restore", "--yes", largest_file=10).status == 1
    assert world.holdfast("list", largest_file=10).status == 1
    assert world.live() == live
    assert strays(world) == []


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"ABSENT: no small file system could be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@as_root
@pytest.mark.parametrize("size", ["16k", "40k", "64k"])
def test_a_vault_on_a_full_disk_keeps_nothing_half_made(world: World, size: str) -> None:
    (world.folder / "data" / "uploads" / "noise.bin").write_bytes(os.urandom(200_000))
    with small_disk(world.folder / "small", size):
        config = world.folder / "holdfast.yaml"
        config.write_text(config.read_text().replace("url: backups", "url: small/backups"))
        world.done("catalog", "rebuild")  # or it would miss the backups of the other folder
        ran = world.holdfast("backup")
        says(ran, 1, "no space left")
        assert world.backups() == set()


@as_root
def test_a_vault_that_fails_beside_a_sound_one_is_said_and_the_sound_one_is_good(
    world: World,
) -> None:
    with small_disk(world.folder / "small", "16k"):
        config = world.folder / "holdfast.yaml"
        other = "  other: {kind: plain, url: small/backups}\nplans:"
        config.write_text(config.read_text().replace("plans:", other))
        ran = world.holdfast("backup")
        told(ran, 3, "NOT IN EVERY VAULT", "not in other", "no space left")
        assert world.asked("show", "latest", "--vault", "local")["good"]
        assert world.holdfast("show", "latest", "--vault", "other").status == 10
    assert strays(world) == []


@as_root
def test_a_state_on_a_full_disk_is_said_and_nothing_lost(world: World) -> None:
    live = world.live()
    with small_disk(world.folder / "small", "64k"):
        config = world.folder / "holdfast.yaml"
        config.write_text("state: small/state\n" + config.read_text())
        (world.folder / "small" / "noise").write_bytes(bytes(60_000))
        for command in (("backup",), ("restore", "--yes")):
            ran = world.holdfast(*command)
            if ran.status:
                says(ran, 1, "small")
        assert world.live() == live or not ran.status


# --- the state folder -----------------------------------------------------------------------------


@as_other_user
def test_a_state_folder_that_may_not_be_written_stops_writers_and_not_readers(world: World) -> None:
    give_away(world)
    for path in [world.folder / ".holdfast", *(world.folder / ".holdfast").rglob("*")]:
        os.chown(path, 0, 0)
    (world.folder / ".holdfast").chmod(0o755)
    for command in (("backup",), ("restore", "--yes"), ("verify",)):
        says(world.holdfast(*command, user=NOBODY), 1, ".holdfast")
    assert max(world.backups()) in world.done("list", user=NOBODY).out


@as_other_user
def test_a_vault_that_may_not_be_written_is_named(world: World) -> None:
    give_away(world)
    os.chown(world.folder / "backups", 0, 0)
    (world.folder / "backups").chmod(0o755)
    for path in (world.folder / "backups" / ".holdfast").rglob("*"):
        os.chown(path, 0, 0)
    os.chown(world.folder / "backups" / ".holdfast", 0, 0)
    says(world.holdfast("backup", user=NOBODY), 1, "backups")


def wreck_header(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def wreck_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.parametrize("wreck", [wreck_header, wreck_pages])
def test_a_wrecked_catalog_stops_neither_backup_nor_restore(world: World, wreck: object) -> None:
    catalog = world.folder / ".holdfast" / "catalog.db"
    for suffix in ("-wal", "-shm"):
        catalog.with_name(catalog.name + suffix).unlink(missing_ok=True)
    assert callable(wreck)
    wreck(catalog)
    for command in (("backup",), ("restore", "--yes"), ("verify",), ("list",)):
        ran = world.done(*command)
        assert command == ("list",) or "catalog" in ran.err, command
    world.done("catalog", "rebuild")
    assert "catalog" not in world.done("backup").err
    assert world.runs()[0]["state"] == "completed"


# --- others at work -------------------------------------------------------------------------------


@contextmanager
def program(code: str, *arguments: object) -> Iterator[None]:
    """Have another program run that has said that it is ready."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == b"ready\n"
            yield
        finally:
            running.kill()


HOLDS_DATABASE = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("SELECT count(*) FROM episodes").fetchall()
print("ready", flush=True)
sys.stdin.read()
"""
HOLDS_FILE = """
import sys
file = open(sys.argv[1], "a")
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_restore_under_a_running_application_is_refused(world: World) -> None:
    live = world.live()
    for code, path in (
        (HOLDS_DATABASE, "data/projects.db"),
        (HOLDS_DATABASE, "data/settings.db"),
        (HOLDS_FILE, "data/uploads/a.txt"),
    ):
        with program(code, world.folder / path):
            says(world.holdfast("restore", "--yes"), 11, path.split("/")[1].split(".")[0], "in use")
    assert world.live() == live
    world.done("restore", "--yes")


def test_a_restore_under_an_open_vector_store_is_refused(
    commands: Commands, tmp_path: Path
) -> None:
    world = Scenes(commands, tmp_path, vectors=True).world
    world.done("backup")
    vectors = world.folder / "data" / "vectors"
    for code, arguments in (
        (ADD_VECTORS, (vectors, "newer")),
        (HOLDS_FILE, (vectors / "chroma.sqlite3",)),
    ):
        with program(code, *arguments):
            says(world.holdfast("restore", "--yes"), 11, "vectors", "in use")
    world.done("restore", "--yes")


@pytest.mark.parametrize("second", [("backup",), ("restore", "--yes"), ("prune", "--yes")])
def test_two_runs_at_once_are_one_run_and_one_refusal(
    world: World, second: tuple[str, ...]
) -> None:
    with Commands() as others:
        others.start(world.folder, "backup", slow=0.05)
        lease = world.folder / ".holdfast" / "leases" / "brain.held"
        while not lease.exists():
            pass
        says(world.holdfast(*second), 11, "backup", "process")
        assert others.finish().status == 0
    assert len(world.backups()) == 2
    world.done("verify", "all")


@pytest.mark.parametrize("hours", [-1, -24 * 400, 24 * 400])
def test_a_clock_that_jumps_hides_no_backup_and_deletes_none(world: World, hours: int) -> None:
    first = min(world.backups())
    ran = world.done("backup", "--json", clock=hours * 3600.0)
    jumped = ran.document["id"]
    assert world.asked("show", "latest")["id"] == jumped
    third = world.asked("backup")["id"]
    assert world.asked("show", "latest")["id"] == third
    assert world.backups() == {first, jumped, third}
    world.done("prune", "--yes")
    assert third in world.backups()
    world.done("restore", "--yes")


# --- output ---------------------------------------------------------------------------------------


def test_a_reader_that_goes_away_is_no_failure_of_the_program(world: World) -> None:
    ran = world.holdfast("list", closed_output=True)
    assert ran.err == ""
    command = (
        f"{sys.executable} -m holdfast list | head -1; {sys.executable} -m holdfast list | true"
    )
    piped = subprocess.run(
        ["bash", "-c", command], cwd=world.folder, capture_output=True, text=True, check=True
    )
    assert piped.stdout.startswith("backup")
    assert piped.stderr == ""


def test_a_restore_whose_reader_goes_away_is_finished(world: World) -> None:
    old = world.live()
    world.holdfast("restore", "--yes", "--json", "--progress", closed_output=True)
    assert world.live() != old
    assert "recover" not in world.done("list").err
    assert world.runs()[0]["state"] == "completed"


def test_a_backup_whose_reader_goes_away_is_finished(world: World) -> None:
    world.holdfast("backup", "--json", "--progress", closed_output=True)
    assert len(world.backups()) == 2
    assert newest(world).is_dir()
    world.done("verify", "all")


def test_a_failure_is_a_json_document_where_json_was_asked_for(world: World) -> None:
    ran = world.holdfast("restore", "no-such-backup", "--yes", "--json")
    assert ran.status == 10
    assert ran.document["error"]["code"] == "backup-not-found"
    assert ran.document["error"]["hint"]
