"""Backups that rotted, were cut short, come from the future or mean harm: seen and named."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.crash_stack import Scenes, change
from tests.crash_world import Commands, World, picture
from tests.edges.bad_days import flipped, mend_sums, newest, rewrite_manifest, says, spoilt, told

QUICK = 97  # bytes between two that are flipped in the quick test


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server


@pytest.fixture(scope="module")
def scenes(commands: Commands, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    scenes = Scenes(commands, tmp_path_factory.mktemp("hostile"))
    scenes.world.done("backup")
    change(scenes.world.folder, "newer")
    scenes.keep()
    return scenes


@pytest.fixture
def world(scenes: Scenes) -> World:
    return scenes.again()


def refuses(world: World, backup: Path, *words: str, status: int = 20) -> None:
    """Neither verify nor restore takes the backup, and nothing live or elsewhere is touched."""
    live, around = world.live(), outside(world)
    for command in (("verify", backup.name), ("restore", backup.name, "--yes")):
        ran = world.holdfast(*command)
        told(ran, status, *words)
    assert world.live() == live
    assert outside(world) == around
    assert "holdfast recover" not in world.holdfast("list").err


def outside(world: World) -> set[str]:
    """Return what lies beside the world's own folders."""
    known = {"data", "backups", ".holdfast"}
    return {p.name for p in world.folder.iterdir() if p.name not in known} | {
        p.name for p in world.folder.parent.iterdir()
    }


# --- rot ------------------------------------------------------------------------------------------


def flip_every(world: World, start: int, stride: int) -> int:
    backup = newest(world)
    seen = 0
    for path in sorted(backup.iterdir()):
        for at in range(start, path.stat().st_size, stride):
            with spoilt(path, flipped(at)):
                ran = world.holdfast("verify", backup.name)
                assert ran.status == 20, f"{path.name} byte {at}: {ran.status} {ran.out} {ran.err}"
            seen += 1
    world.done("verify", backup.name)
    return seen


def shrink(world: World) -> None:
    """Have a backup of one small file, so that there are not too many bytes."""
    config = world.folder / "holdfast.yaml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "sqlite" not in line))
    for path in (world.folder / "data" / "uploads").rglob("b.bin"):
        path.unlink()
    world.done("backup")


def test_a_flipped_byte_is_found_wherever_it_is(world: World) -> None:
    shrink(world)
    assert flip_every(world, 13, QUICK) > 20


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("start", range(2))
def test_no_flipped_byte_goes_unseen(world: World, start: int) -> None:
    shrink(world)
    assert flip_every(world, start, 8) > 250


@pytest.mark.parametrize("left", [0, 0.5, 0.99])
@pytest.mark.parametrize(
    "name", ["settings.db", "uploads.tar.zst", "metadata.json", "SHA256SUMS", "RESTORE.md"]
)
def test_a_truncated_file_is_found(world: World, name: str, left: float) -> None:
    backup = newest(world)
    path = backup / name
    assert path.exists(), sorted(backup.iterdir())
    live = world.live()
    with spoilt(path, lambda data: data[: int(len(data) * left)]):
        told(world.holdfast("verify", backup.name), 20, name)
        told(world.holdfast("verify", "all"), 20, name)
        if name != "RESTORE.md":
            ran = world.holdfast("restore", backup.name, "--yes")
            says(ran, 20, name)
    assert world.live() == live


def test_a_lost_file_is_found(world: World) -> None:
    backup = newest(world)
    for path in sorted(backup.iterdir()):
        content = path.read_bytes()
        path.unlink()
        expected = 20 if path.name != "metadata.json" else 10
        told(world.holdfast("verify", backup.name), expected, backup.name)
        told(world.holdfast("verify", "all"), 20)
        path.write_bytes(content)
    world.done("verify", "all")


def test_rot_while_it_is_restored_puts_everything_back(world: World) -> None:
    backup, live = newest(world), world.live()
    with spoilt(backup / "uploads.tar.zst", flipped(40)):
        says(world.holdfast("restore", "--yes"), 20, "uploads")
    assert world.live() == live
    world.done("restore", "--yes")


def test_a_disk_that_cannot_read_the_backup_is_named(world: World) -> None:
    live = world.live()
    ran = world.holdfast("restore", "--yes", unreadable="settings.db")
    assert ran.status in {1, 20}
    says(ran, ran.status, "settings.db", "Input/output error")
    assert world.live() == live


# --- the future, and lies -------------------------------------------------------------------------


def test_a_backup_of_a_newer_format_says_what_to_do(world: World) -> None:
    backup = newest(world)
    rewrite_manifest(backup, lambda manifest: manifest.update(format=99))
    live = world.live()
    for command in (
        ("restore", backup.name, "--yes"),
        ("verify", backup.name),
        ("show", backup.name),
    ):
        ran = world.holdfast(*command)
        says(ran, 1, "format 99")
        assert "upgrade" in ran.err
    assert backup.name in world.done("list").out
    assert world.live() == live


@pytest.mark.parametrize("word", ["../escape", "..", "/etc/passwd", "a/../../b", ".hidden", "-rf"])
def test_a_name_that_leads_elsewhere_is_refused(world: World, word: str) -> None:
    for command in (("restore", "--yes", "--"), ("verify", "--"), ("show", "--"), ("pin", "--")):
        ran = world.holdfast(*command, word)
        says(ran, 2, word)
    config = world.folder / "holdfast.yaml"
    config.write_text(config.read_text().replace("settings:", f"'{word}':"))
    says(world.holdfast("backup"), 2, word)


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "path": lambda m: m["artifacts"][0].update(path="../../escape.db"),
    "absolute": lambda m: m["artifacts"][0].update(path="/tmp/escape.db"),  # noqa: S108 - a lie
    "name": lambda m: m["artifacts"][0].update(name="../escape.db"),
    "component": lambda m: m["components"][0].update(name="../escape"),
    "id": lambda m: m.update(id="../escape"),
    "another": lambda m: m.update(id="another_backup"),
    "form": lambda m: m["artifacts"][0].update(form="tree"),
    "encoding": lambda m: m["artifacts"][0].update(encoding="exec"),
    "negative": lambda m: m["artifacts"][0].update(size=-1),
    "deep": lambda m: m.update(notes=[[[]]]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_with_matching_sums_is_refused(world: World, lie: str) -> None:
    backup = newest(world)
    rewrite_manifest(backup, LIES[lie])
    live, around = world.live(), outside(world)
    ran = world.holdfast("restore", backup.name, "--yes")
    assert ran.status in {1, 20}, ran.err
    says(ran, ran.status, "")
    assert world.holdfast("verify", backup.name, "--level", "native").status == 20
    assert world.live() == live
    assert outside(world) == around


# --- archives -------------------------------------------------------------------------------------


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return zstandard.compress(plain.getvalue())


def file(name: str, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


ROOT = (file(".", type=tarfile.DIRTYPE, mode=0o755), b"")
HOSTILE: dict[str, tuple[tuple[tarfile.TarInfo, bytes], ...]] = {
    "upwards": (ROOT, (file("../../escape"), b"x")),
    "absolute": (ROOT, (file("/tmp/holdfast-escape"), b"x")),  # noqa: S108 - hostile
    "through a link": (
        ROOT,
        (file("out", type=tarfile.SYMTYPE, linkname="../../.."), b""),
        (file("out/escape"), b"x"),
    ),
    "hard link": (ROOT, (file("hard", type=tarfile.LNKTYPE, linkname="../../holdfast.yaml"), b"")),
    "device": (ROOT, (file("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b"")),
    "twice": (ROOT, (file("a"), b"1"), (file("a"), b"2")),
}


def put_archive(world: World, data: bytes, **fields: Any) -> Path:
    """Put another archive in the place of the backup's, as one who can mend sums would."""
    backup = newest(world)
    path = backup / "uploads.tar.zst"
    path.write_bytes(data)
    mend_sums(backup)
    sums = (backup / "SHA256SUMS").read_text().splitlines()
    (digest,) = [line.split()[0] for line in sums if line.endswith("uploads.tar.zst")]

    def swear(manifest: dict[str, Any]) -> None:
        (stored,) = [one for one in manifest["artifacts"] if one["component"] == "uploads"]
        stored.update(size=len(data), sha256=digest, **fields)

    rewrite_manifest(backup, swear)
    return backup


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_writes_nothing_outside(world: World, kind: str) -> None:
    backup = put_archive(world, archive_of(*HOSTILE[kind]), entries=len(HOSTILE[kind]))
    live, around = world.live(), outside(world)
    ran = world.holdfast("restore", backup.name, "--yes")
    says(ran, 20, "")
    assert world.live() == live
    assert outside(world) == around
    assert not Path("/tmp/holdfast-escape").exists()  # noqa: S108 - hostile
    ran = world.holdfast("restore", backup.name, "--target", "elsewhere")
    says(ran, 20, "")
    assert not (world.folder / "elsewhere").exists()


def test_an_archive_bomb_is_stopped_where_it_exceeds_what_was_sworn(world: World) -> None:
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    size = 4 << 30
    head = file("bomb")
    head.size = size
    data = bytearray(compressor.compress(ROOT[0].tobuf() + head.tobuf()))
    zeros = bytes(64 << 20)
    for _chunk in range(4):  # it says that it goes on for much longer
        data += compressor.compress(zeros)
    data += compressor.flush()
    backup = put_archive(world, bytes(data))
    before = os.statvfs(world.folder).f_bavail
    says(world.holdfast("restore", backup.name, "--yes", largest_file=128 << 20), 20, "")
    told(world.holdfast("verify", backup.name, "--level", "native"), 20, "uploads")
    assert before - os.statvfs(world.folder).f_bavail < (256 << 20) // 4096
    assert picture(world.folder / "data") == world.live()
