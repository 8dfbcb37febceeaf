"""Large files: many threads, stretches of any size in any order, past the cache or through it."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from holdfast.errors import BackupDamaged, NoSpace, TreeUnsafe
from holdfast.model.artifact import (
    CHUNK,
    LARGE,
    Chunks,
    Divided,
    Entry,
    EntryKind,
    Stretch,
    Tree,
    TreeItems,
)
from holdfast.sources import _mounts, _plant
from holdfast.sources._large import BLOCK, LargeFile, Rooms, open_straight
from holdfast.sources._tree import write_tree

pytestmark = pytest.mark.timeout(60)
SEED = 20_261_201


def stretches_of(content: bytes, cuts: Sequence[int]) -> list[Stretch]:
    """Return content in stretches that end at ``cuts``."""
    ends = [*cuts, len(content)]
    begins = [0, *cuts]

    def fill(begin: int, end: int, room: memoryview) -> None:
        room[:] = content[begin:end]

    return [
        Stretch(begin, end - begin, partial(fill, begin, end))
        for begin, end in zip(begins, ends, strict=True)
        if end > begin
    ]


def random_cuts(chance: random.Random, size: int) -> list[int]:
    """Return where to cut: some at blocks, some within one, some in one block with others."""
    cuts = {chance.randrange(size) for _ in range(chance.randrange(12))}
    cuts |= {cut // BLOCK * BLOCK for cut in list(cuts)[::2]}
    cuts |= {min(size, cut + chance.randrange(1, 9)) for cut in list(cuts)[::3]}
    return sorted(cuts)


def in_threads(file: LargeFile, stretches: Sequence[Stretch]) -> None:
    """Have four threads take the stretches."""
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(file.take, stretches))
    file.finish()
    file.close()


def opened(folder: Path, name: str, size: int, *, straight: bool) -> LargeFile:
    """Create a file to be filled."""
    above = os.open(folder, os.O_RDONLY)
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=above)
        past = open_straight(name, above, size=size) if straight else None
    finally:
        os.close(above)
    assert (past is not None) == straight, "the file system of the tests takes O_DIRECT"
    return LargeFile(fd, past, Rooms())


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return a folder on a file system that is written past the cache."""
    if not _mounts.takes_direct(tmp_path):
        pytest.skip("temporary files lie on no file system that is written past the cache here")
    return tmp_path


@pytest.mark.parametrize("seed", range(SEED, SEED + 30))
def test_a_file_is_what_its_stretches_are(disk: Path, seed: int) -> None:
    chance = random.Random(seed)
    size = chance.choice([1, 100, BLOCK, BLOCK + 1, 10 * BLOCK, chance.randrange(1, 200_000)])
    content = chance.randbytes(size)
    for straight in (True, False):
        stretches = stretches_of(content, random_cuts(chance, size))
        chance.shuffle(stretches)
        name = f"straight {straight}"
        in_threads(opened(disk, name, size, straight=straight), stretches)
        assert (disk / name).read_bytes() == content


def test_whole_blocks_go_past_the_cache_and_no_others(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[int, list[tuple[int, int]]] = {}
    pwrite = os.pwrite

    def noting(fd: int, data: memoryview, offset: int) -> int:
        written.setdefault(fd, []).append((offset, len(data)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", noting)
    content = os.urandom(100 * BLOCK + 5)
    file = opened(disk, "file", len(content), straight=True)
    in_threads(file, stretches_of(content, [7, 20 * BLOCK + 1, 20 * BLOCK + 2, 60 * BLOCK]))
    through_the_cache = written.pop(file.fd)
    assert through_the_cache == [(100 * BLOCK, 5)], "only the block that the file ends in"
    ((_fd, past),) = written.items()
    assert sum(length for _offset, length in past) == 100 * BLOCK
    assert (disk / "file").read_bytes() == content


def test_what_a_disk_refuses_goes_through_the_cache(disk: Path) -> None:
    """Memory that begins in the middle of a word: no disk takes it."""

    class Crooked(Rooms):
        @contextmanager
        def lent(self, size: int) -> Iterator[memoryview]:
            with super().lent(size + 1) as room:
                yield room[1:]

    content = os.urandom(50 * BLOCK + 5)
    file = opened(disk, "file", len(content), straight=True)
    file._rooms = Crooked()
    in_threads(file, stretches_of(content, [3 * BLOCK + 1, 40 * BLOCK]))
    assert (disk / "file").read_bytes() == content


def test_memory_is_used_again() -> None:
    rooms = Rooms()
    with rooms.lent(10) as first:
        address = memoryview(first).obj
    with rooms.lent(3 << 20) as second:
        assert memoryview(second).obj is address
    with rooms.lent(9 << 20) as larger, rooms.lent(10) as other:
        assert len(larger) >= 9 << 20
        assert memoryview(other).obj is not memoryview(larger).obj


# In a tree ----------------------------------------------------------------------------------------


def tree_of(*items: tuple[Entry, Chunks], threads: int = 3) -> Tree:
    """Return a tree whose large files may be taken apart."""

    @contextmanager
    def opening() -> Iterator[TreeItems]:
        yield iter([(Entry(".", EntryKind.FOLDER), iter(())), *items])

    return Tree("files", opening, apart=threads)


def never() -> Chunks:
    """Give what must not be taken."""
    yield from ()
    raise AssertionError("taken in order, though it may be taken in stretches")


def divided(content: bytes, cuts: Sequence[int]) -> Divided:
    """Return content that is taken in stretches."""
    return Divided(never(), iter(stretches_of(content, cuts)))


def open_files() -> int:
    """Count the files that are open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not read


@pytest.mark.parametrize("straight", [True, False])
def test_a_tree_of_large_files(
    disk: Path, monkeypatch: pytest.MonkeyPatch, *, straight: bool
) -> None:
    if not straight:
        monkeypatch.setattr(_plant, "takes_direct", lambda _path: False)
    threads, before = threading.active_count(), open_files()
    chance = random.Random(SEED)
    content = {f"f{n}": chance.randbytes(LARGE + chance.randrange(9999)) for n in range(4)}
    entries = [
        (Entry(name, EntryKind.FILE, 0o640, 1_234_567_891, size=len(data)),
         divided(data, [*range(123_457, len(data), 3_000_001)]))
        for name, data in content.items()
    ]  # fmt: skip
    small = Entry("small", EntryKind.FILE, size=5), iter([b"small"])
    write_tree(tree_of(*entries, small), disk / "target")
    for name, data in content.items():
        found = disk / "target" / name
        assert found.read_bytes() == data
        assert (found.stat().st_mtime_ns, found.stat().st_mode & 0o777) == (1_234_567_891, 0o640)
        assert found.stat().st_size == len(data)
    assert threading.active_count() == threads
    assert open_files() == before


def test_a_file_with_holes_is_taken_in_order(disk: Path) -> None:
    data = os.urandom(LARGE)
    entry = Entry("f", EntryKind.FILE, size=3 * LARGE, extents=((LARGE, LARGE),))
    content = Divided(iter([data]), iter(stretches_of(data, [])))
    write_tree(tree_of((entry, content)), disk / "target")
    assert (disk / "target" / "f").read_bytes() == bytes(LARGE) + data + bytes(LARGE)
    assert (disk / "target" / "f").stat().st_blocks * 512 < 2 * LARGE


def test_a_stretch_that_cannot_be_read_ends_the_tree(disk: Path) -> None:
    threads, before = threading.active_count(), open_files()

    def rotten(_room: memoryview) -> None:
        raise BackupDamaged(backup="backup", path="files", reason="rotten")

    good = stretches_of(bytes(LARGE), [LARGE // 2])
    bad = Divided(never(), iter([good[0], Stretch(LARGE // 2, LARGE // 2, rotten)]))
    entry = Entry("f", EntryKind.FILE, size=LARGE)
    with pytest.raises(BackupDamaged, match="rotten"):
        write_tree(tree_of((entry, bad)), disk / "target")
    assert threading.active_count() == threads
    assert open_files() == before


def test_stretches_that_are_not_all_of_a_file_are_refused(disk: Path) -> None:
    content = bytes(LARGE)
    short = Divided(never(), iter(stretches_of(content, [CHUNK])[:1]))
    entry = Entry("f", EntryKind.FILE, size=LARGE)
    with pytest.raises(TreeUnsafe, match=f"{CHUNK} bytes of data instead of {LARGE}"):
        write_tree(tree_of((entry, short)), disk / "target")


def test_a_full_disk_is_said_of_a_large_file_too(disk: Path) -> None:
    import resource
    import signal

    entry = Entry("f", EntryKind.FILE, size=LARGE)
    tree = tree_of((entry, divided(bytes(LARGE), [CHUNK])))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE // 2, limits[1]))
    try:
        with pytest.raises(NoSpace, match="no space left while writing") as error:
            write_tree(tree, disk / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.fields["path"] == str(disk / "target" / "f")


def test_only_file_systems_that_are_known_are_written_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr(_mounts, "MOUNTS", mounts)
    kinds = {"ext4": True, "xfs": True, "btrfs": False, "tmpfs": False, "nfs4": False, "zfs": False}
    for kind, expected in kinds.items():
        mounts.write_text(f"1 1 0:1 / / rw - overlay x rw\n2 1 0:2 / {tmp_path} rw - {kind} x rw\n")
        assert _mounts.takes_direct(tmp_path / "below") is expected
