"""A repository on a store: what is wrong, missing or damaged is said, and never given out."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import (
    HoldfastError,
    KeyInUse,
    KeysMissing,
    NoSpace,
    RepositoryDamaged,
    RepositoryExists,
    RepositoryMissing,
    RepositoryTooNew,
    UnknownName,
    WrongPassword,
)
from holdfast.model.artifact import CHUNK, Chunks, Entry, EntryKind
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import config, keys, nodes, opening, packs, passwords, read
from holdfast.vaults.repository.blobs import Kind, blob_id
from holdfast.vaults.repository.config import Config, encode_config
from holdfast.vaults.repository.crypto import random_key
from holdfast.vaults.repository.damage import DamagedError, damage_in
from holdfast.vaults.repository.nodes import Node
from holdfast.vaults.repository.packs import pack_name
from holdfast.vaults.repository.repository import Repository
from holdfast.vaults.repository.snapshots import (
    Snapshot,
    delete_snapshot,
    encode_snapshot,
    load_snapshot,
    new_snapshot,
    save_snapshot,
    snapshots,
)
from holdfast.vaults.repository.stored import read_bounded
from holdfast.vaults.repository.walk import DEEPEST, find, walk
from tests.restic_world import CHEAP, NOW, put

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "OURS", CHEAP)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repository(store: MemoryStore) -> Repository:
    return opening.init_repository(store, "memory", PASSWORD, NOW)


def reopened(store: MemoryStore, password: str = PASSWORD) -> Repository:
    found = opening.open_repository(store, "memory", password)
    found.load_index()
    return found


def tree_of(repository: Repository, *found: Node) -> bytes:
    document = nodes.joined(map(nodes.encode_node, found))
    return put(repository, Kind.TREE, document)[0]


def file(
    repository: Repository, name: str, *content: bytes, links: int = 1, inode: int = 0
) -> Node:
    ids = put(repository, Kind.DATA, *content)
    size = sum(map(len, content))
    return Node(name, nodes.FILE, size=size, content=ids, links=links, inode=inode)


def folder(repository: Repository, name: str, *found: Node) -> Node:
    return Node(name, nodes.FOLDER, 0o755, subtree=tree_of(repository, *found))


def silent(_path: str, _reason: str) -> None:
    """Hear of what is left out."""


def contents(repository: Repository, root: Node) -> dict[str, bytes]:
    with read.read_tree(repository, root, silent) as items:
        return {entry.path: b"".join(map(bytes, chunks)) for entry, chunks in items}


# --- opening -------------------------------------------------------------------------------------


def test_a_repository_is_made_once(repository: Repository, store: MemoryStore) -> None:
    with pytest.raises(RepositoryExists):
        opening.init_repository(store, "memory", PASSWORD, NOW)
    again = reopened(store)
    assert (again.key, again.config) == (repository.key, repository.config)
    assert PASSWORD not in repr(vars(repository))


def test_a_making_that_died_is_taken_up(repository: Repository, store: MemoryStore) -> None:
    del store.held["config"]
    again = opening.init_repository(store, "memory", PASSWORD, NOW)
    assert again.key == repository.key
    assert len(store.held) == 2


def test_keys_without_a_config_are_never_replaced(
    repository: Repository, store: MemoryStore
) -> None:
    del store.held["config"]
    with pytest.raises(RepositoryDamaged, match="another password"):
        opening.init_repository(store, "memory", "other", NOW)
    assert f"keys/{repository.key_name}" in store.held


def test_where_two_made_it_at_once_the_right_key_is_found(
    repository: Repository, store: MemoryStore
) -> None:
    for _other in range(3):
        passwords.store_key(store, random_key(), PASSWORD, NOW)
    assert reopened(store).key == repository.key


def test_what_is_missing_or_wrong_has_its_own_status(
    repository: Repository, store: MemoryStore
) -> None:
    def fails(kind: type[HoldfastError], status: int, password: str = PASSWORD) -> None:
        with pytest.raises(kind) as raised:
            reopened(store, password)
        assert raised.value.exit_status == status
        assert "memory" in str(raised.value)
        assert password not in str(raised.value)

    fails(WrongPassword, 12, "wrong horse")
    key = store.held.pop(f"keys/{repository.key_name}")
    fails(KeysMissing, 12)
    store.held[f"keys/{repository.key_name}"] = key[:-1]
    fails(RepositoryDamaged, 20)
    store.held[f"keys/{repository.key_name}"] = key
    kept = store.held["config"]
    for damaged in (b"", kept[:-1], kept[:31], bytes(len(kept)), kept + bytes(2 << 20)):
        store.held["config"] = damaged
        fails(RepositoryDamaged, 20)
    del store.held["config"]
    fails(RepositoryMissing, 10)
    newer = Config(3, repository.config.id, repository.config.polynomial)
    store.held["config"] = encode_config(repository.key, newer)
    fails(RepositoryTooNew, 1)
    assert config.VERSION == 2


def test_every_password_opens_until_it_is_removed(
    repository: Repository, store: MemoryStore
) -> None:
    second = passwords.add_key(repository, "second", NOW)
    assert {one.name for one in passwords.key_files(repository)} == {second, repository.key_name}
    assert reopened(store, "second").key == repository.key
    with pytest.raises(KeyInUse):
        passwords.remove_key(repository, repository.key_name)
    with pytest.raises(UnknownName):
        passwords.remove_key(repository, "../config")
    passwords.remove_key(repository, second)
    with pytest.raises(WrongPassword):
        reopened(store, "second")
    old = repository.key_name
    new = passwords.change_password(repository, "third", NOW)
    assert (repository.key_name, new != old) == (new, True)
    assert reopened(store, "third").key == repository.key
    with pytest.raises(WrongPassword):
        reopened(store)


def test_two_cannot_take_away_each_others_key(repository: Repository, store: MemoryStore) -> None:
    passwords.add_key(repository, "second", NOW)
    other = reopened(store, "second")
    passwords.remove_key(other, repository.key_name)
    with pytest.raises(RepositoryDamaged, match="is gone"):
        passwords.remove_key(repository, other.key_name)
    assert reopened(store, "second").key == repository.key


# --- dying ---------------------------------------------------------------------------------------


class Died(BaseException):
    """What a process that is killed raises, as far as the store can tell."""


class Dying(MemoryStore):
    """A store whose user dies right before its n-th change."""

    def __init__(self, held: dict[str, bytes], changes: int) -> None:
        super().__init__()
        self.held = dict(held)
        self._changes = changes

    def put(self, name: str, chunks: Chunks) -> int:
        self._change()
        return super().put(name, chunks)

    def delete(self, name: str) -> None:
        self._change()
        super().delete(name)

    def _change(self) -> None:
        if not self._changes:
            raise Died
        self._changes -= 1


def holding(held: dict[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    store.held = dict(held)
    return store


def deaths(held: dict[str, bytes], work: Callable[[MemoryStore], object]) -> Iterator[MemoryStore]:
    """Give what the store holds for each moment that the work can die in, and when it is done."""
    for changes in range(100):
        store = Dying(held, changes)
        try:
            work(store)
        except Died:
            yield holding(store.held)
        else:
            yield holding(store.held)
            return
    raise AssertionError("it never ends")


def test_a_making_that_dies_leaves_no_repository_or_a_whole_one() -> None:
    states = list(deaths({}, lambda store: opening.init_repository(store, "memory", PASSWORD, NOW)))
    assert len(states) == 3
    for state in states:
        if "config" in state.held:
            reopened(state)
        else:
            with pytest.raises(RepositoryMissing):
                reopened(state)
            opening.init_repository(state, "memory", PASSWORD, NOW)
            reopened(state)


def test_a_change_of_password_that_dies_leaves_one_that_opens(
    repository: Repository, store: MemoryStore
) -> None:
    (id_,) = put(repository, Kind.DATA, b"content")
    states = list(deaths(store.held, lambda s: passwords.change_password(reopened(s), "new", NOW)))
    assert len(states) == 3
    for state in states:
        opens = []
        for password in (PASSWORD, "new"):
            with suppress(WrongPassword):
                opens.append(reopened(state, password))
        assert opens
        assert all(one.blob(Kind.DATA, id_) == b"content" for one in opens)


def test_an_index_that_dies_is_written_by_the_next(
    repository: Repository, store: MemoryStore
) -> None:
    def work(dying: MemoryStore) -> None:
        put(reopened(dying), Kind.DATA, b"content")

    for state in deaths(store.held, work):
        (id_,) = put(reopened(state), Kind.DATA, b"content")
        assert reopened(state).blob(Kind.DATA, id_) == b"content"


# --- blobs and packs -----------------------------------------------------------------------------


def test_a_stored_blob_is_found_again(repository: Repository, store: MemoryStore) -> None:
    one, other = put(repository, Kind.DATA, b"one" * 100, b"other")
    again = reopened(store)
    assert again.blob(Kind.DATA, one) == b"one" * 100
    assert again.blob(Kind.DATA, other) == b"other"
    with pytest.raises(RepositoryDamaged, match="no index file lists"):
        again.blob(Kind.TREE, one)


def test_a_blob_is_read_from_a_second_pack_if_the_first_is_damaged(
    repository: Repository, store: MemoryStore
) -> None:
    (id_,) = put(repository, Kind.DATA, b"precious")
    put(repository, Kind.DATA, b"beside", b"precious")
    first, second = (pack_name(place.pack) for place in repository.places(Kind.DATA, id_))
    kept = store.held.pop(first)
    root = folder(repository, "root", Node("f", nodes.FILE, size=8, content=[id_], links=1))
    assert repository.blob(Kind.DATA, id_) == b"precious"
    assert contents(repository, root)["f"] == b"precious"
    store.held[first] = bytes(len(kept))
    assert contents(repository, root)["f"] == b"precious"
    store.held[first], lost = kept, store.held.pop(second)
    assert repository.blob(Kind.DATA, id_) == b"precious"
    assert contents(repository, root)["f"] == b"precious"
    store.held[first], store.held[second] = bytes(len(kept)), lost[:-40]
    assert repository.blob(Kind.DATA, id_) == b"precious"
    del store.held[second]
    with pytest.raises(RepositoryDamaged, match=second):
        repository.blob(Kind.DATA, id_)


@pytest.mark.parametrize("change", [lambda _d: None, lambda d: d[:50], lambda d: bytes(len(d))])
def test_damage_names_its_pack_and_spares_other_files(
    repository: Repository, store: MemoryStore, change: Callable[[bytes], bytes | None]
) -> None:
    good, bad = file(repository, "a", b"good" * 99), file(repository, "b", b"bad" * 99)
    root = folder(repository, "root", good, bad, file(repository, "c", b"also good"))
    (place,) = repository.places(Kind.DATA, bad.content[0])
    name = pack_name(place.pack)
    changed = change(store.held.pop(name))
    if changed is not None:
        store.held[name] = changed
    read_ = {}
    with read.read_tree(repository, root, silent) as items:
        for entry, chunks in items:
            if entry.path == "b":
                with pytest.raises(HoldfastError, match=name):
                    list(chunks)
            else:
                read_[entry.path] = b"".join(map(bytes, chunks))
    assert read_ == {".": b"", "a": b"good" * 99, "c": b"also good"}


def test_any_flipped_bit_in_any_file_is_noticed(repository: Repository, store: MemoryStore) -> None:
    """Whatever a reader does with the repository: it gets the right bytes, or an error."""
    data = random.Random(3).randbytes(2000)
    root = folder(
        repository, "root", file(repository, "a", data, b"x"), file(repository, "b", b"y")
    )
    name = save_snapshot(repository, new_snapshot(NOW, tree_of(repository, root), ["/"], [], "t"))
    wanted = {".": b"", "a": data + b"x", "b": b"y"}
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - to repeat what failed
    chance = random.Random(seed)
    missed = []
    for held, stored in sorted(store.held.items()):
        bits = {0, len(stored) * 8 - 1, *(chance.randrange(len(stored) * 8) for _ in range(25))}
        for bit in bits:
            changed = bytearray(stored)
            changed[bit // 8] ^= 1 << bit % 8
            store.held[held] = bytes(changed)
            try:
                found = reopened(store)
                tree = load_snapshot(found, name).tree
                node = find(found, tree, "root")
                assert node is not None
                assert contents(found, node) == wanted
                if not held.startswith("data/"):
                    missed.append((held, bit))
                else:  # in the header, which a reader with an index does not need
                    whole = store.held[held]
                    with pytest.raises(RepositoryDamaged):
                        header_of(found, held, whole)
            except RepositoryDamaged as error:
                if held.split("/")[0] not in str(error):
                    missed.append((held, bit))
        store.held[held] = stored
    assert missed == []


def header_of(repository: Repository, name: str, whole: bytes) -> None:
    with damage_in(repository.where, name):
        packs.read_header(
            repository.key, len(whole), lambda start, length: whole[start : start + length]
        )


def test_a_full_store_is_said_to_be(store: MemoryStore) -> None:
    small = MemoryStore(capacity=2000)
    made = opening.init_repository(small, "memory", PASSWORD, NOW)
    with pytest.raises(NoSpace):
        put(made, Kind.DATA, random.Random(1).randbytes(5000))
    assert list(small.names("index")) == []
    assert store.held == {}


# --- the index on a store ------------------------------------------------------------------------


def test_index_files_that_vanish_while_they_are_read_are_looked_for_again(
    repository: Repository, store: MemoryStore
) -> None:
    """A pruner replaces them: first it stores the new ones, then it deletes the old ones."""
    (id_,) = put(repository, Kind.DATA, b"content")
    (old,) = store.names("index")
    document = repository.load("index", old.removeprefix("index/"), 10_000)

    class Replaced(MemoryStore):
        def names(self, prefix: str = "") -> Iterator[str]:
            found = list(super().names(prefix))
            if prefix == "index" and old in self.held:
                repository.save("index", document + b" ")
                del self.held[old]
            return iter(found)

    replaced = Replaced()
    replaced.held = store.held
    assert reopened(replaced).blob(Kind.DATA, id_) == b"content"


def test_other_files_in_the_folders_are_passed_over(
    repository: Repository, store: MemoryStore
) -> None:
    for name in ("index/x", "keys/tmp-1", "snapshots/.hidden", "index/" + "0" * 63):
        store.held[name] = b"not ours"
    assert reopened(store).names("index") == repository.names("index") == []
    assert list(snapshots(repository)) == []


# --- snapshots -----------------------------------------------------------------------------------


def test_snapshots_come_back(repository: Repository) -> None:
    made = new_snapshot(NOW, bytes(range(32)), ["/a/ä"], ["stack:x", "backup:y"], "holdfast 1")
    name = save_snapshot(repository, made)
    found = load_snapshot(repository, name)
    assert (found.tree, found.paths, found.tags) == (made.tree, ("/a/ä",), ("stack:x", "backup:y"))
    assert (found.instant, found.name, found.program) == (NOW, name, "holdfast 1")
    assert list(snapshots(repository)) == [found]
    delete_snapshot(repository, name)
    assert list(snapshots(repository)) == []


def test_a_damaged_snapshot_hides_no_other(repository: Repository, store: MemoryStore) -> None:
    made = [Snapshot(number, bytes(32), ["/"]) for number in range(3)]
    names = [save_snapshot(repository, one) for one in made]
    store.held[f"snapshots/{names[1]}"] = b"x" * 100
    found = list(snapshots(repository))
    assert sorted(one.time for one in found if isinstance(one, Snapshot)) == [0, 2]
    (damaged,) = (one for one in found if not isinstance(one, Snapshot))
    assert names[1] in str(damaged)


@pytest.mark.parametrize(
    "document",
    [b"{}", b'{"tree":"00","time":"2026-02-04T12:00:00Z"}',
     b'{"tree":7,"time":"2026-02-04T12:00:00Z"}',
     b'{"tree":"' + b"zz" * 32 + b'","time":"2026-02-04T12:00:00Z"}',
     b'{"tree":"' + b"00" * 32 + b'","time":"x"}',
     b'{"tree":"' + b"00" * 32 + b'","time":"2026-02-04T12:00:00Z","tags":[7]}',
     b'{"tree":"' + b"00" * 32 + b'","time":"2026-02-04T12:00:00Z","hostname":7}'],
)  # fmt: skip
def test_what_is_no_snapshot_is_refused(repository: Repository, document: bytes) -> None:
    name = repository.save("snapshots", document)
    with pytest.raises(RepositoryDamaged, match=name):
        load_snapshot(repository, name)


def test_snapshots_are_as_small_as_restics() -> None:
    document = encode_snapshot(Snapshot(0, bytes(32), ["/"]))
    assert b"parent" not in document
    assert b"tags" not in document


# --- trees ---------------------------------------------------------------------------------------


def test_content_comes_in_order_however_it_lies(repository: Repository) -> None:
    chance = random.Random(5)
    pieces = [chance.randbytes(chance.choice([1, 1000, 100_000])) for _ in range(60)]
    for at in range(0, 60, 7):
        put(repository, Kind.DATA, *reversed(pieces[at : at + 7]))
    wanted = {}
    files = []
    for number in range(40):
        parts = chance.choices(pieces, k=number % 5)
        content = [blob_id(part) for part in parts]
        name = f"f{number:02}"
        wanted[name] = b"".join(parts)
        files.append(Node(name, nodes.FILE, size=len(wanted[name]), content=content, links=1))
    root = folder(repository, "root", *files)
    assert contents(repository, root) == wanted | {".": b""}
    for node in files:
        assert b"".join(map(bytes, read.read_file(repository, node))) == wanted[node.name]


def test_content_that_is_not_taken_is_passed_over(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "MOST_IN_BATCH", 3)
    files = [file(repository, f"f{n}", b"%d" % n * 9, b"more %d" % n) for n in range(9)]
    root = folder(repository, "root", *files)
    with read.read_tree(repository, root, silent) as items:
        found = [(entry.path, next(chunks, b"")) for entry, chunks in items]
    assert found == [(".", b"")] + [(f"f{n}", b"%d" % n * 9) for n in range(9)]


def test_chunks_are_bounded(repository: Repository) -> None:
    node = file(repository, "big", bytes(3 * CHUNK + 5))
    assert max(map(len, read.read_file(repository, node))) == CHUNK


def test_a_reader_that_leaves_leaves_no_thread(repository: Repository) -> None:
    root = folder(repository, "root", *(file(repository, f"f{n:03}", b"%d" % n) for n in range(50)))
    with read.read_tree(repository, root, silent) as items:
        next(items)
    assert not [one for one in threading.enumerate() if one.name.startswith("read")]


def test_a_reader_that_leaves_early_waits_for_nobody(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for the thread either that plans ahead, and waits until somebody takes that."""
    monkeypatch.setattr(read, "FAR", replace(read.FAR, ahead=1))
    monkeypatch.setattr(read, "MOST_IN_BATCH", 3)
    root = folder(repository, "root", *(file(repository, f"f{n:03}", b"%d" % n) for n in range(50)))
    before = threading.active_count()
    with read.read_tree(repository, root, silent) as items:
        next(items)
    assert threading.active_count() == before


def test_large_files_are_taken_whenever_and_wherever_one_likes(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "LARGE", 1000)
    monkeypatch.setattr(read, "FAR", replace(read.FAR, batch=300, ahead=600))
    chance = random.Random(3)
    content = {
        f"f{number}": [chance.randbytes(100) for _ in range(chance.choice([1, 15, 40]))]
        for number in range(20)
    }
    files = [file(repository, name, *content[name]) for name in sorted(content)]
    root = folder(repository, "root", *files)
    with read.read_tree(repository, root, silent) as items:
        held = {entry.path: chunks for entry, chunks in items if entry.size >= 1000}
        assert 5 < len(held) < 20
        last_first = [*reversed(held)]
        with ThreadPoolExecutor(4) as threads:
            whole = threads.map(lambda name: b"".join(held[name]), last_first)
            found = dict(zip(last_first, whole, strict=True))
    assert found == {name: b"".join(content[name]) for name in held}
    assert contents(repository, root) == {
        ".": b"",
        **{name: b"".join(parts) for name, parts in content.items()},
    }


def test_a_large_file_that_nobody_takes_is_not_read(
    repository: Repository, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "LARGE", 1000)
    large, small = file(repository, "a", b"large" * 999), file(repository, "b", b"small")
    root = folder(repository, "root", large, small)
    (place,) = repository.places(Kind.DATA, large.content[0])
    del store.held[pack_name(place.pack)]
    with read.read_tree(repository, root, silent) as items:
        assert [entry.path for entry, _chunks in items] == [".", "a", "b"]
    with pytest.raises(RepositoryDamaged, match="missing"):
        contents(repository, root)


def test_links_are_names_of_one_file_only_if_they_have_its_content(repository: Repository) -> None:
    """An inode that was given to another file while restic read must not make one of two files."""
    first = file(repository, "a", b"same", links=2, inode=5)
    other = file(repository, "b", b"not the same", links=2, inode=5)
    second = Node("c", nodes.FILE, size=4, content=first.content, links=2, inode=5)
    root = folder(repository, "root", first, other, second)
    found = {one.entry.path: one.entry for one in walk(repository, root, silent)}
    assert (found["c"].kind, found["c"].target) == (EntryKind.HARDLINK, "a")
    assert (found["a"].kind, found["b"].kind) == (EntryKind.FILE, EntryKind.FILE)


def test_what_lies_together_is_read_with_one_call(
    repository: Repository, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what lies in another pack, at offsets that would fit, with another."""
    files = []
    for pack in "ab":
        content = [pack.encode() * (50 + number) for number in range(10)]
        ids = put(repository, Kind.DATA, *content)
        files += [
            Node(f"{pack}{number}", nodes.FILE, size=50 + number, content=[id_], links=1)
            for number, id_ in enumerate(ids)
        ]
    root = folder(repository, "root", *files)
    calls: list[tuple[str, int, int]] = []
    part = store.part

    def counted(name: str, start: int, length: int) -> bytes:
        calls.append((name, start, length))
        return part(name, start, length)

    monkeypatch.setattr(store, "part", counted)
    contents(repository, root)
    assert len(calls) == 3, "one for the tree, one for each pack"


def test_what_is_too_large_is_not_read_whole(store: MemoryStore) -> None:
    store.held["locks/x"] = bytes(3 * CHUNK)
    with pytest.raises(DamagedError, match="more than 1000 bytes"):
        read_bounded(store, "locks/x", 1000)


def test_a_file_of_another_size_than_its_blobs_is_damaged(repository: Repository) -> None:
    node = file(repository, "a", b"four")
    wrong = Node("a", nodes.FILE, size=5, content=node.content, links=1)
    with pytest.raises(RepositoryDamaged, match="4 bytes of the 5"):
        list(walk(repository, folder(repository, "root", wrong), silent))


def test_a_missing_folder_is_an_error_after_what_came_before_it(repository: Repository) -> None:
    lost = Node("b", nodes.FOLDER, subtree=bytes(32))
    root = folder(repository, "root", file(repository, "a", b"1"), lost, file(repository, "c"))
    seen: list[Entry] = []
    lists = pytest.raises(RepositoryDamaged, match="no index file lists the tree blob")
    with read.read_tree(repository, root, silent) as items, lists:
        seen.extend(entry for entry, _chunks in items)
    assert [entry.path for entry in seen] == [".", "a", "c", "b"]  # folders come last


def test_nesting_is_bounded(repository: Repository) -> None:
    node = folder(repository, "d")
    documents = []
    for _depth in range(DEEPEST + 5):
        documents.append(nodes.joined([nodes.encode_node(node)]))
        node = Node("d", nodes.FOLDER, subtree=blob_id(documents[-1]))
    put(repository, Kind.TREE, *documents)
    with pytest.raises(RepositoryDamaged, match="deeper"):
        for _found in walk(repository, node, silent):
            pass


def test_sockets_and_devices_are_noted(repository: Repository) -> None:
    notes: list[tuple[str, str]] = []
    pipes = [nodes.encode_node(Node(name, nodes.FIFO)) for name in "abc"]
    kinds = [
        pipe.replace(b"fifo", kind)
        for pipe, kind in zip(pipes, (b"socket", b"dev", b"fifo"), strict=True)
    ]
    (id_,) = put(repository, Kind.TREE, nodes.joined(kinds))
    odd = Node("root", nodes.FOLDER, subtree=id_)
    found = walk(repository, odd, lambda path, reason: notes.append((path, reason)))
    assert [one.entry.path for one in found] == [".", "c"]
    assert [path for path, _reason in notes] == ["a", "b"]


def test_errors_name_the_repository_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(RepositoryMissing, match="s3://bucket/x"):
        opening.open_repository(MemoryStore(), "s3://bucket/x", PASSWORD)
    assert list(tmp_path.iterdir()) == []
