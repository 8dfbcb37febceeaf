"""Large files in stretches: every byte once, from wherever it can be had, and no wrong one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast.errors import BackupDamaged, RepositoryDamaged
from holdfast.model.artifact import LARGE, Divided, Entry, Stretch, Tree
from holdfast.sources._tree import tree_of, write_tree
from holdfast.testing.vault_contract import keep
from holdfast.vaults.repository import stretches
from holdfast.vaults.repository.blobs import Kind, Unsealer, blob_id
from holdfast.vaults.repository.damage import DamagedError
from holdfast.vaults.repository.index import Places
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.repository import Repository
from holdfast.verbs.surroundings import counted
from tests.contract.test_repository_vault import make_vault
from tests.restic_world import made, put

pytestmark = pytest.mark.timeout(60)
SEED = 20_261_201


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return made(tmp_path / "repository")


@pytest.fixture
def pieces(repository: Repository) -> list[bytes]:
    """Store some blobs, compressed and not; return them."""
    chance = random.Random(SEED)
    found = [chance.randbytes(chance.choice([1, 31, 5000, 90_000])) for _ in range(20)]
    found += [b"%d " % chance.randrange(9) * chance.choice([20, 40_000]) for _ in range(20)]
    put(repository, Kind.DATA, *found)
    return found


def places_of(repository: Repository, parts: Sequence[bytes]) -> list[Places]:
    return [repository.places(Kind.DATA, blob_id(part)) for part in parts]


def read(size: int, divided: Iterator[Stretch]) -> bytes:
    """Read all stretches, the last first, in threads; each byte once."""
    whole, seen = memoryview(bytearray(size)), bytearray(size)

    def take(stretch: Stretch) -> None:
        room = whole[stretch.offset : stretch.offset + stretch.size]
        assert len(room) == stretch.size
        stretch.fill(room)
        for at in range(stretch.offset, stretch.offset + stretch.size):
            seen[at] += 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(take, [*divided][::-1]))
    assert set(seen) <= {1}
    return bytes(whole)


@pytest.mark.parametrize("size", [1, 10_000, 200_000, 1 << 30])
def test_stretches_are_the_file(
    repository: Repository, pieces: list[bytes], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(stretches, "STRETCH", size)
    parts = random.Random(SEED + size).choices(pieces, k=100)  # most come more than once
    content = b"".join(parts)
    divided = [*stretches.stretches(repository, places_of(repository, parts))]
    assert read(len(content), iter(divided)) == content
    largest = max(map(len, parts))
    assert max(stretch.size for stretch in divided) <= max(size, largest)


def test_a_damaged_blob_is_read_from_another_pack(
    repository: Repository, pieces: list[bytes]
) -> None:
    put(repository, Kind.DATA, *pieces)  # once more, in another pack
    places = places_of(repository, pieces)
    first = {one[0].pack for one in places}
    assert not first & {one[1].pack for one in places}
    for pack in first:
        rot(repository, pack)
    content = b"".join(pieces)
    assert read(len(content), stretches.stretches(repository, places)) == content


def test_a_missing_pack_is_made_up_for_too(repository: Repository, pieces: list[bytes]) -> None:
    put(repository, Kind.DATA, *pieces)
    places = places_of(repository, pieces)
    for pack in {one[0].pack for one in places}:
        repository.store.delete(pack_name(pack))
    content = b"".join(pieces)
    assert read(len(content), stretches.stretches(repository, places)) == content


@pytest.mark.parametrize("how", ["rotten", "missing", "short"])
def test_what_is_nowhere_is_an_error_of_its_stretch_alone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(stretches, "STRETCH", 1)
    put(repository, Kind.DATA, b"good" * 999)
    put(repository, Kind.DATA, b"bad" * 999)
    places = places_of(repository, [b"good" * 999, b"bad" * 999])
    pack = places[1][0].pack
    if how == "rotten":
        rot(repository, pack)
    else:
        name = pack_name(pack)
        stored = repository.store.read(name)
        repository.store.delete(name)
        if how == "short":
            repository.store.put(name, iter((stored[:20],)))
    good, bad = stretches.stretches(repository, places)
    room = memoryview(bytearray(good.size))
    good.fill(room)
    assert bytes(room) == b"good" * 999
    with pytest.raises(RepositoryDamaged, match=pack.hex()):
        bad.fill(memoryview(bytearray(bad.size)))


def test_unsealing_checks_all_there_is_to_check(
    repository: Repository, pieces: list[bytes]
) -> None:
    unsealer = Unsealer()
    for part, places in zip(pieces, places_of(repository, pieces), strict=True):
        place = places[0]
        stored = repository.part(place.pack, place.blob.offset, place.blob.length)
        room = memoryview(bytearray(len(part)))
        unsealer.unseal(repository.key, place.blob, stored, room)
        assert bytes(room) == part
        for at in {0, 20, len(stored) // 2, len(stored) - 1}:
            wrong = bytearray(stored)
            wrong[at] ^= 1
            with pytest.raises(DamagedError, match=place.blob.id.hex()):
                unsealer.unseal(repository.key, place.blob, bytes(wrong), room)
        with pytest.raises(DamagedError, match=r"bytes of"):
            unsealer.unseal(repository.key, place.blob, stored[:-1], room)


def rot(repository: Repository, pack: bytes) -> None:
    """Change every byte of a pack."""
    path = repository.store.path(pack_name(pack))
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(bytes(byte ^ 0x55 for byte in path.read_bytes()))


# Through a vault ----------------------------------------------------------------------------------


def large_tree(folder: Path) -> Path:
    """Make a folder with large files: one like text, one of noise, one of zeros."""
    folder.mkdir()
    chance = random.Random(SEED)
    (folder / "noise").write_bytes(chance.randbytes(LARGE + 12_345))
    words = [b"%d" % chance.randrange(1000) for _ in range(2000)]
    (folder / "text").write_bytes((b" ".join(words) * 40 + b"\n") * 60)
    (folder / "zeros").write_bytes(bytes(LARGE) + b"1" * 100)
    (folder / "small").write_bytes(b"small")
    assert (folder / "text").stat().st_size > LARGE
    return folder


def test_large_files_come_back_by_stretches_and_in_order(tmp_path: Path) -> None:
    before = large_tree(tmp_path / "before")
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, artifacts=[tree_of(before, "files")])
    (stored,) = manifest.artifacts
    told: list[int] = []
    artifact = counted(vault.artifact(manifest, stored), told.append)
    assert isinstance(artifact, Tree)
    assert artifact.apart > 1
    write_tree(artifact, tmp_path / "after")
    for path in before.iterdir():
        assert (tmp_path / "after" / path.name).read_bytes() == path.read_bytes()
    assert sum(told) == stored.content_size
    with artifact.open() as items:
        divided: list[Entry] = []
        for entry, chunks in items:
            divided += [entry] if isinstance(chunks, Divided) else []
            if entry.size:
                assert b"".join(map(bytes, chunks)) == (before / entry.path).read_bytes()
    assert {entry.path for entry in divided} >= {"noise", "text"}


def test_damage_in_a_stretch_names_the_backup(tmp_path: Path) -> None:
    before = large_tree(tmp_path / "before")
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, artifacts=[tree_of(before, "files")])
    for pack in (tmp_path / "vault" / "data").glob("*/*"):
        if pack.stat().st_size > 1 << 20:
            pack.chmod(0o600)
            with pack.open("r+b") as file:
                file.seek(pack.stat().st_size // 2)
                file.write(b"rot" * 9)
    artifact = vault.artifact(manifest, manifest.artifacts[0])
    assert isinstance(artifact, Tree)
    with pytest.raises(BackupDamaged, match=manifest.id):
        write_tree(artifact, tmp_path / "after")
