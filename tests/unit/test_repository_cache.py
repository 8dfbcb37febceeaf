"""Copies on this machine: sealed, never believed, never needed."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.model.manifest import Manifest
from holdfast.stores.local import LocalStore
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import cache, locks
from holdfast.vaults.repository.blobs import Kind
from holdfast.vaults.repository.cache import NOTHING, Cache, cache_of
from holdfast.vaults.repository.repository import Repository
from tests.restic_world import put
from tests.upkeep_world import FIRST, keep, keep_three, new_vault, vault_on

ID, OTHER = "1" * 64, "2" * 64


@pytest.fixture(autouse=True)
def above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Begin without copies."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "LATE", 0.0)


@pytest.fixture
def copies(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "holdfast" / ID, left_free=0)


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# --- copies --------------------------------------------------------------------------------------


def test_a_copy_is_what_was_kept(copies: Cache, tmp_path: Path) -> None:
    assert copies.read("index", ID) is None
    copies.keep("index", ID, b"content")
    for again in (copies, Cache(tmp_path / "holdfast" / ID)):
        assert again.read("index", ID) == b"content"
        assert again.part("index", ID, 3, 4) == b"tent"
        assert again.part("index", ID, 3, 5) is None
        assert again.read("snapshots", ID) is None
    copies.drop("index", ID)
    assert copies.read("index", ID) is None
    assert Cache(tmp_path / "holdfast" / ID).read("index", ID) is None


def test_nobody_else_may_look(copies: Cache, tmp_path: Path) -> None:
    copies.keep("index", ID, b"content")
    place = tmp_path / "holdfast" / ID
    for path in (place.parent, place, place / "index", place / "index" / ID):
        assert path.stat().st_mode & 0o077 == 0, path
    tag = (tmp_path / "holdfast" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_what_is_gone_there_goes_here(copies: Cache, tmp_path: Path) -> None:
    for name in (ID, OTHER):
        copies.keep("index", name, b"content")
    copies.retain("index", [OTHER].__contains__)
    assert [path.name for path in files_in(tmp_path / "holdfast" / ID)] == [OTHER]


def test_what_was_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    copies = Cache(tmp_path / "c", most=1000, left_free=0)
    names = [f"{number:064x}" for number in range(20)]
    for number, name in enumerate(names[:10]):
        copies.keep("packs", name, bytes(100))
        os.utime(tmp_path / "c" / "packs" / name, (number, number))
    assert copies.read("packs", names[0]) == bytes(100)  # now it is the last that was used
    copies.keep("packs", names[10], bytes(100))
    left = {path.name for path in files_in(tmp_path / "c")}
    assert {names[0], names[10]} <= left
    assert names[1] not in left
    for name in names[11:]:
        copies.keep("packs", name, bytes(100))
        assert sum(path.stat().st_size for path in files_in(tmp_path / "c")) <= 1000
    copies.keep("packs", OTHER, bytes(1001))
    assert copies.read("packs", OTHER) is None


def test_a_disk_is_never_filled(tmp_path: Path) -> None:
    copies = Cache(tmp_path / "c", left_free=1 << 62)
    copies.keep("packs", ID, b"content")
    assert files_in(tmp_path / "c") == []


@pytest.mark.parametrize("broken", ["a file", "read-only", "nowhere", "vanishing"])
def test_a_place_that_cannot_be_is_no_error(tmp_path: Path, broken: str) -> None:
    place = tmp_path / "c"
    if broken == "a file":
        place.write_text("in the way")
    elif broken == "read-only":
        place = Path("/proc/holdfast")
    elif broken == "nowhere":
        place = tmp_path / "file" / "c"
        place.parent.write_text("in the way")
    copies = Cache(place, left_free=0)
    copies.keep("index", ID, b"content")
    if broken == "vanishing":
        (place / "index" / ID).unlink()
    assert copies.read("index", ID) is None
    assert copies.part("index", ID, 0, 1) is None
    copies.drop("index", ID)
    copies.retain("index", lambda _name: False)
    copies.keep("index", ID, b"content")
    assert copies.read("index", ID) == (b"content" if broken == "vanishing" else None)


def test_many_keep_the_same_copy_at_once(tmp_path: Path) -> None:
    """Whoever reads finds all of it, or nothing."""
    seen: set[bytes | None] = set()

    def work() -> None:
        copies = Cache(tmp_path / "c", left_free=0)
        for _turn in range(50):
            copies.keep("packs", ID, bytes(100_000))
            seen.add(copies.read("packs", ID))
            copies.drop("packs", ID)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen <= {None, bytes(100_000)}
    assert bytes(100_000) in seen
    assert files_in(tmp_path / "c") == []


# --- which repositories --------------------------------------------------------------------------


def test_a_repository_on_this_machine_needs_none(tmp_path: Path) -> None:
    assert cache_of(ID, LocalStore(tmp_path / "repository")) is NOTHING
    assert cache_of(ID, MemoryStore()).keeps
    NOTHING.keep("index", ID, b"content")
    assert NOTHING.read("index", ID) is None


@pytest.mark.parametrize("home", ["", "relative/path"])
def test_without_a_place_of_its_own_it_lies_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache_of(ID, MemoryStore()).keep("index", ID, b"content")
    assert (tmp_path / "home" / ".cache" / "holdfast" / ID / "index" / ID).exists()


def test_copies_that_nobody_uses_any_more_go(above: Path) -> None:
    cache_of(ID, MemoryStore()).keep("index", ID, b"old")
    cache_of(OTHER, MemoryStore()).keep("index", ID, b"used")
    strange = above / "holdfast" / "strange"
    strange.mkdir()
    long_ago = time.time() - cache.UNUSED - 1
    os.utime(above / "holdfast" / ID / "index" / ID, (long_ago, long_ago))
    cache_of("3" * 64, MemoryStore())
    left = {path.name for path in (above / "holdfast").iterdir()}
    assert left == {"CACHEDIR.TAG", OTHER, "strange"}


# --- in a vault ----------------------------------------------------------------------------------


def spoilt(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


@pytest.mark.parametrize(
    "change", [spoilt, lambda data, chance: data[: chance.randrange(len(data) + 1)]]
)
def test_damaged_copies_change_nothing(
    above: Path, change: Callable[[bytes, random.Random], bytes]
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to repeat what failed
    chance = random.Random(seed)
    store = MemoryStore()
    keep_three(new_vault(store))
    whole = list(vault_on(store, cache=False).manifests())
    plan = vault_on(store).prune(dry_run=True)
    for vault in (vault_on(store), vault_on(store)):
        assert list(vault.manifests()) == whole
    held = files_in(above)
    assert len(held) > 8
    for turn in range(5):
        for path in files_in(above / "holdfast"):
            if path.name != "CACHEDIR.TAG":
                path.write_bytes(change(path.read_bytes(), chance))
        vault = vault_on(store)
        assert list(vault.manifests()) == whole
        assert vault.prune(dry_run=True) == plan
        files = range(100 + 4 * turn, 104 + 4 * turn)
        made = keep(vault, 10 + turn, files)
        whole.append(made)
        assert vault.verify(made, lambda _count: None) == []
        plan = vault_on(store, cache=False).prune(dry_run=True)
    vault = vault_on(store)
    vault.prune(tolerated=0.0)
    assert list(vault.manifests()) == whole
    assert vault.check().problems == []


def test_copies_are_sealed(above: Path) -> None:
    """Nothing is readable here that is not readable there."""
    store = MemoryStore()
    vault = new_vault(store)
    keep(vault, 0, FIRST)
    list(vault_on(store).manifests())
    there = b"".join(store.held.values())
    for path in files_in(above / "holdfast"):
        if path.name == "CACHEDIR.TAG":
            continue
        data = path.read_bytes()
        start = 4 if path.parent.name == "blobs" else 0  # before it stands how large it is
        assert data[start:] in there, path


def test_copies_may_go_at_any_time(above: Path) -> None:
    store = MemoryStore()
    vault = new_vault(store)
    kept = [keep(vault, 0, FIRST)]
    for day in range(1, 4):
        for path in files_in(above):
            path.unlink()
        kept.append(keep(vault, day, FIRST))
        assert [one for one in vault.manifests() if isinstance(one, Manifest)] == kept
    assert vault_on(store).check().problems == []


def test_one_damaged_tree_in_a_copy_is_read_from_the_store(above: Path) -> None:
    store = MemoryStore()
    repository = new_vault(store).repository
    copies = Cache(above / "c", left_free=0)
    ids = put(repository, Kind.TREE, b'{"nodes":[]}', b'{"nodes":[]}\n')

    def near() -> Repository:
        found = repository.near(copies)
        found.load_index()
        return found

    assert [near().blob(Kind.TREE, id_) for id_ in ids] == [b'{"nodes":[]}', b'{"nodes":[]}\n']
    (pack,) = files_in(above / "c" / "packs")
    pack.write_bytes(bytes(pack.stat().st_size))
    assert near().blob(Kind.TREE, ids[1]) == b'{"nodes":[]}\n'
    assert not pack.exists()
    assert near().blob(Kind.TREE, ids[0]) == b'{"nodes":[]}'
    assert pack.exists()


def test_a_pack_that_is_damaged_there_is_not_copied(above: Path) -> None:
    store = MemoryStore()
    repository = new_vault(store).repository
    ids = put(repository, Kind.TREE, b'{"nodes":[]}', b'{"nodes":[]}\n')
    (name,) = store.names("data")
    store.held[name] = store.held[name][:-1] + bytes([store.held[name][-1] ^ 1])
    near = repository.near(Cache(above / "c", left_free=0))
    near.load_index()
    assert near.blob(Kind.TREE, ids[0]) == b'{"nodes":[]}'
    assert not (above / "c" / "packs").exists()
