"""The pipeline that writes blobs: everything once, bounded, and stopped by the first error."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import shake_128
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import Mock

import pytest

from holdfast.errors import BackupExists, NoSpace, SourceUnreadable, VaultUnavailable
from holdfast.model.artifact import Chunk, Chunks
from holdfast.ports import Store
from holdfast.stores.local import LocalStore
from holdfast.testing.chunks import broken
from holdfast.testing.crashes import every_crash
from holdfast.testing.faults import Calls, FaultyStore
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import write
from holdfast.vaults.repository.blobs import Kind, blob_id
from holdfast.vaults.repository.config import Config
from holdfast.vaults.repository.crypto import random_key
from holdfast.vaults.repository.index import Index
from holdfast.vaults.repository.packs import read_header
from holdfast.vaults.repository.repository import Repository
from holdfast.vaults.repository.write import Writer

pytestmark = pytest.mark.timeout(60)

KEY = random_key()
MIB = 1 << 20
SMALL = 1 * MIB  # a pack's size, for tests that need many
SAMPLE = shake_128(b"written").digest(12 * MIB)


def repository(store: Any) -> Repository:
    config = Config(2, "00" * 32, 0x3DA3358B4DC173)
    opened = Repository(store, "a test", KEY, "", config)
    opened.load_index()
    return opened


def writer(store: Any, **options: Any) -> Writer:
    return Writer(repository(store), **{"pack_size": SMALL, **options})


def pieces(data: bytes) -> Chunks:
    return iter([data[at : at + MIB] for at in range(0, len(data), MIB)])


def index_of(store: MemoryStore) -> Index:
    return repository(store).index


def blobs_of(store: Store) -> dict[tuple[Kind, bytes], bytes]:
    """Read back everything that the index lists, as a restore would."""
    opened = repository(store)
    found = {}
    for place in opened.index.everything():
        assert (place.blob.kind, place.blob.id) not in found, "stored twice"
        found[place.blob.kind, place.blob.id] = opened.read([place])
    return found


def running() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"seal", "store"}


@pytest.fixture(autouse=True)
def leaves_no_thread() -> Iterator[None]:
    yield
    assert not running()


def random_pieces(seed: int) -> Iterator[bytes]:
    seeded = Random(seed)
    while True:
        yield seeded.randbytes(MIB)


# --- what is written ---


def test_what_was_written_can_be_read() -> None:
    store = MemoryStore()
    with writer(store) as writing:
        ids, size = writing.file(pieces(SAMPLE))
        small, _size = writing.file(iter((b"a small file",)))
        folder = writing.tree(b'{"nodes":[]}\n')
        writing.finish()
    blobs = blobs_of(store)
    assert size == len(SAMPLE)
    assert b"".join(blobs[Kind.DATA, id_] for id_ in ids) == SAMPLE
    assert [blobs[Kind.DATA, id_] for id_ in small] == [b"a small file"]
    assert blobs[Kind.TREE, folder] == b'{"nodes":[]}\n'
    assert writing.written.data_blobs == len({*ids, *small})
    assert writing.written.tree_blobs == 1
    assert writing.written.size == len(SAMPLE) + 12 + 13
    packs = dict(store.sizes("data"))
    assert writing.written.stored == sum(packs.values())
    assert len(packs) > 5


def test_packs_have_blobs_of_one_kind_and_are_named_for_their_bytes() -> None:
    store = MemoryStore()
    with writer(store) as writing:
        for number in range(200):
            writing.file(iter((b"file %d" % number * 5000,)))
            writing.tree(b"tree %d" % number)
        writing.finish()
    for name, size in store.sizes("data"):
        blobs = read_header(KEY, size, partial(store.part, name))
        assert len({blob.kind for blob in blobs}) == 1
        assert blob_id(store.read(name)).hex() == name.split("/")[-1]


def test_an_empty_file_has_no_blob_and_an_empty_backup_no_file() -> None:
    store = MemoryStore()
    with writer(store) as writing:
        assert writing.file(iter(())) == ([], 0)
        writing.finish()
    assert list(store.names()) == []


def test_what_is_stored_already_is_not_stored_again() -> None:
    store = MemoryStore()
    with writer(store) as writing:
        ids, _size = writing.file(pieces(SAMPLE))
        writing.finish()
    before = set(store.names())
    with writer(store) as writing:
        assert writing.holds(ids)
        assert not writing.holds([*ids, bytes(32)])
        assert writing.file(pieces(SAMPLE))[0] == ids
        writing.finish()
    assert set(store.names()) == before


def test_threads_that_meet_the_same_blobs_store_them_once() -> None:
    store = MemoryStore()
    together = threading.Barrier(4)
    given: list[list[bytes]] = []

    def write_it() -> None:
        together.wait()
        ids, _size = writing.file(pieces(SAMPLE))
        for number in range(300):
            ids += writing.file(iter((b"note %d" % number,)))[0]
        given.append(ids)

    with writer(store) as writing:
        threads = [threading.Thread(target=write_it) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writing.finish()
    assert len(given) == 4
    assert all(ids == given[0] for ids in given)
    assert set(blobs_of(store)) == {(Kind.DATA, id_) for id_ in given[0]}  # and none is there twice


def test_nothing_may_come_after_the_end() -> None:
    with writer(MemoryStore()) as writing:
        writing.finish()
        with pytest.raises(RuntimeError, match="after the end"):
            writing.file(iter((b"late",)))


# --- errors ---


def write_sample(store: Any, **options: Any) -> Writer:
    with writer(store, **options) as writing:
        writing.file(pieces(SAMPLE))
        writing.finish()
    return writing


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many calls the store gets: always as many, if blobs are sealed in order."""
    monkeypatch.setattr(write, "MOST_SEALERS", 1)
    calls = Calls()
    write_sample(FaultyStore(MemoryStore(), calls))
    return calls.counts["put"]


@pytest.mark.parametrize("before_last", range(9))
@pytest.mark.parametrize("for_ever", [False, True])
def test_a_store_that_fails_stops_everything(
    puts: int,
    before_last: int,
    for_ever: bool,  # noqa: FBT001
) -> None:
    inner = MemoryStore()
    calls = Calls(fail_at=puts - before_last, only=("put",), for_ever=for_ever)
    with pytest.raises(VaultUnavailable):
        write_sample(FaultyStore(inner, calls))
    listed = index_of(inner)
    stored = {bytes.fromhex(name[8:]) for name in inner.names("data")}
    if for_ever:
        assert len(listed) == 0
    else:
        assert set(listed.packs()) == stored  # what a failed run stored is not lost


def test_a_run_after_one_that_failed_stores_only_the_rest() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, Calls(fail_at=6, only=("put",)))
    with suppress(VaultUnavailable):
        write_sample(store)
    assert len(index_of(inner)) > 0
    with writer(inner) as writing:
        ids, _size = writing.file(pieces(SAMPLE))
        writing.finish()
    assert writing.written.size < len(SAMPLE)
    assert b"".join(blobs_of(inner)[Kind.DATA, id_] for id_ in ids) == SAMPLE


def test_a_store_that_is_full_stops_an_endless_reader() -> None:
    store = MemoryStore(capacity=40 * MIB)
    with pytest.raises(NoSpace), writer(store) as writing:
        writing.file(random_pieces(1))


def test_a_reader_that_fails_stops_only_itself() -> None:
    store = MemoryStore()
    error = SourceUnreadable(component="c", path="p", reason="r")
    with writer(store) as writing:
        with pytest.raises(SourceUnreadable):
            writing.file(broken(5 * MIB, lambda: error)(pieces(SAMPLE)))
        ids, _size = writing.file(pieces(SAMPLE))
        writing.finish()
    assert b"".join(blobs_of(store)[Kind.DATA, id_] for id_ in ids) == SAMPLE


def test_the_error_reaches_a_reader_that_meets_nothing_new() -> None:
    with writer(MemoryStore()) as writing:
        writing.file(iter((b"the same",)))
        writing._outcome.fail(VaultUnavailable(vault="v", path="p", reason="r"))
        with pytest.raises(VaultUnavailable):
            writing.file(iter((b"the same",)))


def test_an_unforeseen_error_in_a_thread_is_raised_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(write, "seal_blobs", fail)
    with pytest.raises(ZeroDivisionError):
        write_sample(MemoryStore())


class Gate:
    """Chunks that stop on their way into the store until they are let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def through(self, chunks: Chunks) -> Chunks:
        for chunk in chunks:
            self.reached.set()
            self.opened.wait()
            yield chunk


def test_leaving_early_stops_what_is_being_stored() -> None:
    store, gate = MemoryStore(), Gate()
    gated = FaultyStore(store, Calls(), putting=gate.through)

    def interrupted() -> None:
        with writer(gated, pack_size=4 * MIB) as writing:  # of several blobs: one is yet to come
            writing.file(pieces(SAMPLE))
            gate.reached.wait()
            writing._outcome.fail(KeyboardInterrupt())
            gate.opened.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(store.names()) == []


def test_leaving_without_an_end_lists_what_was_stored() -> None:
    store = MemoryStore()
    with writer(store) as writing:
        writing.file(pieces(SAMPLE))
    listed = {pack.hex() for pack in index_of(store).packs()}
    assert listed == {name[len("data/xx/") :] for name in store.names("data")}


def test_an_abandoned_repository_is_written_no_more() -> None:
    store = MemoryStore()
    with writer(store) as writing:
        writing.file(pieces(SAMPLE))
        writing.abandon(VaultUnavailable(vault="v", path="locks/1", reason="the lock is gone"))
        with pytest.raises(VaultUnavailable):
            writing.finish()
    assert list(store.names("index")) == []


def test_an_index_that_others_load_meanwhile_takes_nothing_away() -> None:
    store = MemoryStore()
    opened = repository(store)
    with Writer(opened) as writing:
        writing.file(pieces(SAMPLE))
        opened.index = Index()
        writing.finish()
    assert len(index_of(store)) == writing.written.data_blobs


def test_threads_that_cannot_all_be_started_end(monkeypatch: pytest.MonkeyPatch) -> None:
    writing = writer(MemoryStore())
    failing = RuntimeError("can't start new thread")
    monkeypatch.setattr(writing._uploaders[-1], "start", Mock(side_effect=failing))
    with pytest.raises(RuntimeError, match="can't start"):
        writing.__enter__()


def test_killed_at_any_step_it_leaves_what_the_next_run_builds_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "SAVED_EVERY", 0.0)
    content = SAMPLE[: 5 * MIB]
    folder, reused, kills = tmp_path / "repository", 0, 0

    def write_it() -> Writer:
        with writer(LocalStore(folder)) as writing:
            ids, _size = writing.file(pieces(content))
            writing.tree(b"".join(ids))
            writing.finish()
        return writing

    for _step in every_crash(write_it, stride=3):
        left = blobs_of(LocalStore(folder))  # whatever is listed is there, and sound
        writing = write_it()
        reused += writing.written.size < len(content)
        kills += 1
        assert left.items() <= blobs_of(LocalStore(folder)).items()
        assert sum(
            len(blob)
            for (kind, _id), blob in blobs_of(LocalStore(folder)).items()
            if kind is Kind.DATA
        ) == len(content)
        shutil.rmtree(folder)
    assert kills > 10
    assert 0 < reused < kills


# --- bounds ---


def test_a_store_that_stands_still_stops_the_reader() -> None:
    gate, waits = Gate(), threading.Event()
    store = FaultyStore(MemoryStore(), Calls(), putting=gate.through)
    read = 0

    def counted() -> Iterator[Chunk]:
        nonlocal read
        for piece in random_pieces(2):
            if gate.opened.is_set():
                return
            read += len(piece)
            yield piece

    with writer(store, pack_size=16 * MIB) as writing:
        condition = writing._batches._goes
        wait = condition.wait

        def noted() -> None:
            waits.set()
            wait()

        setattr(condition, "wait", noted)  # noqa: B010 - an instance's method is replaced
        reading = threading.Thread(target=writing.file, args=(counted(),))
        reading.start()
        gate.reached.wait()
        waits.wait()
        # The reader may be let in again by the sealers, until the packs are too many as well.
        bound = write.PLAIN_WAITING + write.PACKS_WAITING + 2 * 24 * MIB + 4 * 9 * MIB
        assert read <= bound
        gate.opened.set()
        reading.join()
        writing.finish()
    assert read <= bound


def test_memory_is_bounded_whatever_the_sizes() -> None:
    """The worst case: bytes without a boundary, that do not compress, and a store that is slow."""
    program = "from tests.unit.test_repository_write import most_memory; print(most_memory(500))"
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert int(found.stdout) < 300 * MIB


def most_memory(megabytes: int) -> int:
    """Write so much in chunks of the greatest size; return what the process needed at its peak."""

    class Nowhere(MemoryStore):
        def put(self, name: str, chunks: Chunks) -> int:
            time.sleep(0.1)  # as a network would: everything in front of it fills up
            return sum(map(len, chunks))

    def content() -> Chunks:
        for _part in range(megabytes // 2):
            yield os.urandom(MIB)

    with Writer(repository(Nowhere())) as writing:
        writing._chunker._search = len
        threads = [threading.Thread(target=writing.file, args=(content(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writing.finish()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) << 10


# --- the index ---


class Time:
    """A clock that goes as it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_saves_the_index_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MOST_SEALERS", 1)
    monkeypatch.setattr(write, "UPLOADS", 1)
    store, clock = MemoryStore(), Time()
    saved: Counter[bool] = Counter()

    def noticing(chunks: Chunks) -> Chunks:
        saved[any(True for _name in store.names("index"))] += 1
        clock.now += write.SAVED_EVERY / 4
        yield from chunks

    with writer(FaultyStore(store, Calls(), putting=noticing), clock=clock) as writing:
        writing.file(pieces(SAMPLE))
        writing.finish()
    assert saved[False] == 5  # four packs, 120 seconds, and the index itself
    assert len(list(store.names("index"))) == -(-sum(saved.values()) // 5)
    assert len(index_of(store)) == writing.written.data_blobs


def test_a_pack_whose_answer_was_lost_is_stored() -> None:
    store = MemoryStore()
    taken = Calls(fail_at=2, only=("put",), after=True, error=lambda: BackupExists(path="a pack"))
    with writer(FaultyStore(store, taken)) as writing:
        ids, _size = writing.file(pieces(SAMPLE))
        writing.finish()
    assert b"".join(blobs_of(store)[Kind.DATA, id_] for id_ in ids) == SAMPLE


def test_a_pack_that_is_there_with_other_bytes_is_not() -> None:
    def spoilt(chunks: Chunks) -> Chunks:
        yield from chunks
        yield b"more"

    taken = Calls(fail_at=1, only=("put",), after=True, error=lambda: BackupExists(path="a pack"))
    store = FaultyStore(MemoryStore(), taken, putting=spoilt)
    with pytest.raises(BackupExists):
        write_sample(store)
