"""File trees: read from the disk, through an archive, and back to the disk."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import BackupDamaged, SourceMissing, TargetUnfit, TreeUnsafe
from holdfast.model.artifact import CHUNK, LARGE, Entry, EntryKind, Tree, TreeItems
from holdfast.model.manifest import Form, Stored
from holdfast.sources import _files_staged, _folders, _plant, _sync, _xattrs
from holdfast.sources._tree import Planter, Survey, tree_of, write_tree
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.vaults._archive import ARCHIVES, Pack, unpack
from holdfast.vaults._compress import decompress
from holdfast.vaults._untar import TarDamagedError, TarReader
from tests import tree_world as world

ROOT = os.geteuid() == 0
KINDS = sorted(ARCHIVES)


def packed(tree: Tree, archive: str) -> tuple[list[bytes], Stored]:
    pack = Pack(tree, archive, lambda _count: None)
    chunks = [bytes(chunk) for chunk in pack.chunks()]
    size = sum(map(len, chunks))
    stored = Stored(
        component="files",
        name="files",
        form=Form.TREE,
        path=f"files.{archive}",
        size=size,
        sha256="0" * 64,
        encoding=pack.encoding,
        content_size=pack.content_size,
        entries=pack.entries,
    )
    return chunks, stored


def from_archive(chunks: Sequence[bytes], stored: Stored) -> Tree:
    return Tree("files", lambda: _Opened(chunks, stored))


class _Opened:
    def __init__(self, chunks: Sequence[bytes], stored: Stored) -> None:
        self._items = unpack(iter(chunks), stored, "backup")

    def __enter__(self) -> Any:
        return self._items

    def __exit__(self, *_error: object) -> None:
        return None


@pytest.fixture
def here() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


# Round trips --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(shape=world.trees, look=world.looks, archive=st.sampled_from(KINDS))
def test_a_tree_comes_back_equal_through_an_archive(
    shape: dict[str, Any], look: tuple[int, int, int], archive: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before"), Path(folder, "after")
        world.grow(before, shape, look)
        survey = Survey()
        chunks, stored = packed(tree_of(before, "files", survey=survey), archive)
        notes = write_tree(from_archive(chunks, stored), after)
        assert world.picture(after) == world.picture(before)
        assert notes == []
        assert not survey.changed
        if not ROOT:
            subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)


@settings(max_examples=12, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(shape=world.trees, look=world.looks, archive=st.sampled_from(KINDS))
@pytest.mark.skipif(not ROOT, reason="GNU tar gives files away as root only")
def test_gnu_tar_unpacks_what_we_pack(
    shape: dict[str, Any], look: tuple[int, int, int], archive: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, after, file = Path(folder, "before"), Path(folder, "after"), Path(folder, "f")
        world.grow(before, shape, look)
        chunks, _stored = packed(tree_of(before, "files"), archive)
        file.write_bytes(b"".join(chunks))
        after.mkdir()
        option = "--zstd" if archive == "tar.zst" else "--gzip"
        whole = ["--xattrs", "--numeric-owner", "--warning=no-timestamp"]
        command: list[str | Path] = ["tar", option, "-xpf", file, "-C", after, *whole]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert world.picture(after) == world.picture(before)


@settings(max_examples=12, deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
@given(
    shape=world.trees,
    look=world.looks,
    form=st.sampled_from(["gnu", "pax", "posix"]),
    archive=st.sampled_from(KINDS),
)
@pytest.mark.skipif(not ROOT, reason="owners can be given back by root only")
def test_we_unpack_what_gnu_tar_packs(
    shape: dict[str, Any], look: tuple[int, int, int], form: str, archive: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, after, file = Path(folder, "before"), Path(folder, "after"), Path(folder, "f")
        world.grow(before, shape, look)
        whole = ["--xattrs", "--sparse"] if form != "gnu" else []
        option = "--zstd" if archive == "tar.zst" else "--gzip"
        command: list[str | Path] = [
            "tar",
            option,
            f"--format={form}",
            *whole,
            "-cf",
            file,
            "-C",
            before,
            ".",
        ]
        subprocess.run(command, check=True, capture_output=True)
        stored = _as_it_is(file.read_bytes(), archive)
        if form == "gnu":  # its own form has no attributes, and no parts of a second
            shutil.rmtree(before)
            before.mkdir()
            command = ["tar", option, "-xpf", file, "-C", before, "--numeric-owner"]
            subprocess.run(command, check=True, capture_output=True)
        write_tree(from_archive([file.read_bytes()], stored), after)
        assert _without_blocks(world.picture(after)) == _without_blocks(world.picture(before))


def _as_it_is(archive: bytes, kind: str) -> Stored:
    """Record an archive of which only GNU tar knows what it takes for holes."""
    plain = decompress([archive], ARCHIVES[kind])
    reader = TarReader(plain, content_size=1 << 40, entries=1 << 20)
    content_size = entries = 0
    with suppress(TarDamagedError):  # it has less in it than so much
        for entry, _content in reader.items():  # noqa: PERF102 - not a dict
            content_size += entry.stored_size
            entries += 1
    _packed, stored = packed(world.tree([world.folder()]), kind)
    return replace(stored, content_size=content_size, entries=entries)


def _without_blocks(picture: dict[bytes, tuple[Any, ...]]) -> dict[bytes, tuple[Any, ...]]:
    """Leave out how many blocks a file takes: GNU tar finds holes of its own."""
    return {name: look[:-1] if stat.S_ISREG(look[0]) else look for name, look in picture.items()}


def test_trees_deeper_than_any_path_come_back(here: Path) -> None:
    depth = 4 * _folders.MOST_OPEN
    before, after = here / "before", here / "after"
    before.mkdir()
    fd = os.open(before, os.O_RDONLY)
    for level in range(depth):
        name = f"{level:03d}" + "d" * 60
        os.mkdir(name, dir_fd=fd)
        with os.fdopen(os.open(f"file-{level}", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as file:
            file.write(str(level))
        os.mkdir(f"{level:03d}-sibling", dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    chunks, stored = packed(tree_of(before, "files"), "tar.zst")
    write_tree(from_archive(chunks, stored), after)
    entries = [_bare(entry, content) for entry, content in world.listed(tree_of(before, "files"))]
    assert len(entries) == 3 * depth + 1
    assert max(len(entry[0]) for entry in entries) > 4096
    assert [_bare(entry, c) for entry, c in world.listed(tree_of(after, "files"))] == entries
    subprocess.run(["rm", "-rf", here / "before", here / "after"], check=True)


def _bare(entry: Entry, content: bytes) -> tuple[Any, ...]:
    return entry.path, entry.kind, entry.mode, entry.mtime_ns, entry.size, content


def test_a_huge_sparse_file_takes_no_room_and_no_time(here: Path) -> None:
    (here / "before").mkdir()
    with (here / "before" / "disk.img").open("wb") as image:
        image.seek(1 << 40)
        image.write(b"data at the end of the first TiB")
        image.truncate(3 << 40)
    chunks, stored = packed(tree_of(here / "before", "files"), "tar.gz")
    assert sum(map(len, chunks)) < 5000
    write_tree(from_archive(chunks, stored), here / "after")
    status = (here / "after" / "disk.img").stat()
    assert status.st_size == 3 << 40
    assert status.st_blocks < 100
    with (here / "after" / "disk.img").open("rb") as image:
        image.seek(1 << 40)
        assert image.read(32) == b"data at the end of the first TiB"


def test_a_single_file_is_a_tree_of_its_own(here: Path) -> None:
    (here / "one.yaml").write_text("a: 1\n")
    tree = tree_of(here / "one.yaml", "files")
    ((entry, content),) = world.listed(tree)
    assert (entry.path, entry.kind, content) == (".", EntryKind.FILE, b"a: 1\n")
    write_tree(tree, here / "two.yaml")
    assert world.picture(here / "two.yaml") == world.picture(here / "one.yaml")


def test_the_order_is_stable_and_folders_come_first(here: Path) -> None:
    for name in ("b/2", "b/1", "a.txt", "a/x", "c"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(name)
    paths = [entry.path for entry, _content in world.listed(tree_of(here, "files"))]
    assert paths == [".", "a", "a/x", "a.txt", "b", "b/1", "b/2", "c"]


# What is met while reading ------------------------------------------------------------------------


def test_sockets_and_devices_are_noted_not_copied(here: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(here / "socket"))
        if ROOT:
            os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        survey = Survey()
        items = world.listed(tree_of(here, "files", survey=survey))
    assert [entry.path for entry, _content in items] == ["."]
    notes = survey.facts().notes
    assert any(note.startswith("socket: is a socket") for note in notes)
    assert not ROOT or any(note.startswith("null: is a device") for note in notes)
    assert not survey.changed


def test_symbolic_links_are_never_followed_below_the_root(here: Path) -> None:
    outside = here / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (here / "tree").mkdir()
    (here / "tree" / "folder").symlink_to(outside)
    (here / "tree" / "file").symlink_to(outside / "secret")
    items = world.listed(tree_of(here / "tree", "files"))
    assert [(e.path, e.kind, e.target, c) for e, c in items[1:]] == [
        ("file", EntryKind.SYMLINK, str(outside / "secret"), b""),
        ("folder", EntryKind.SYMLINK, str(outside), b""),
    ]


@pytest.mark.parametrize("victim", ["file", "folder"])
def test_a_link_slipped_in_while_reading_is_not_followed(here: Path, victim: str) -> None:
    (here / "tree" / "folder").mkdir(parents=True)
    (here / "tree" / "folder" / "inner").write_text("ours")
    (here / "tree" / "file").write_text("ours")
    (here / "tree" / "a").write_text("first")
    (here / "outside").mkdir()
    (here / "outside" / "inner").write_text("secret")
    survey = Survey()
    found = []
    with tree_of(here / "tree", "files", survey=survey).open() as items:
        found += [next(items)[0].path, next(items)[0].path]  # the folder is listed now
        if victim == "file":
            (here / "tree" / "file").unlink()
            (here / "tree" / "file").symlink_to(here / "outside" / "inner")
        else:
            shutil.rmtree(here / "tree" / "folder")
            (here / "tree" / "folder").symlink_to(here / "outside")
        for entry, chunks in items:
            found.append(entry.path)
            assert b"secret" not in b"".join(chunks)
    assert survey.changed
    assert victim not in found
    assert any(note.startswith(f"{victim}: ") for note in survey.facts().notes)


def test_a_name_that_comes_or_goes_unseen_is_noted(here: Path) -> None:
    (here / "early").mkdir()
    (here / "late").mkdir()
    (here / "late" / "moved").write_text("from a folder to be read into one that was read")
    survey = Survey()
    with tree_of(here, "files", survey=survey).open() as items:
        assert [next(items)[0].path, next(items)[0].path, next(items)[0].path] == [
            ".", "early", "late",
        ]  # fmt: skip
        (here / "late" / "moved").rename(here / "early" / "moved")
        assert list(items) == []
    assert survey.changed
    assert any(note.startswith("late: ") for note in survey.facts().notes)


def test_a_file_that_vanishes_is_noted(here: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    survey = Survey()
    with tree_of(here, "files", survey=survey).open() as items:
        assert [next(items)[0].path, next(items)[0].path] == [".", "a"]
        (here / "b").unlink()
        assert list(items) == []
    assert "b: vanished while the folder was read" in survey.facts().notes
    assert survey.changed


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_large_file_that_changes_still_has_the_size_it_announced(here: Path, change: str) -> None:
    size = 3 * CHUNK + 5
    large = here / "large"
    large.write_bytes(b"x" * size)
    survey = Survey()
    with tree_of(here, "files", survey=survey).open() as items:
        next(items)
        entry, chunks = next(items)
        taken = [next(chunks)]
        if change == "grow":
            with large.open("ab") as more:
                more.write(b"y" * CHUNK)
        elif change == "shrink":
            os.truncate(large, CHUNK + 10)
        else:
            with large.open("r+b") as other:
                other.write(b"z")
        taken += list(chunks)
        assert list(items) == []
    content = b"".join(taken)
    assert entry.size == len(content) == size
    assert survey.changed
    (note,) = survey.facts().notes
    if change == "shrink":
        assert content == b"x" * (CHUNK + 10) + bytes(size - CHUNK - 10)
        assert "shrank" in note
    else:
        assert content == b"x" * size
        assert note == "large: changed while it was read"


def test_a_small_file_that_changes_is_read_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = here / "small"
    small.write_bytes(b"old")
    real, readings = os.pread, []

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        readings.append(data)
        if len(readings) == 1:
            small.write_bytes(b"new content")
        return data

    monkeypatch.setattr(os, "pread", pread)
    survey = Survey()
    items = world.listed(tree_of(here, "files", survey=survey))
    assert items[1][1] == b"new content"
    assert items[1][0].size == 11
    assert not survey.changed


def test_a_small_file_that_never_rests_is_noted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = here / "small"
    small.write_bytes(b"")
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        with small.open("ab") as more:
            more.write(b"line\n")
        return data

    monkeypatch.setattr(os, "pread", pread)
    survey = Survey()
    items = world.listed(tree_of(here, "files", survey=survey))
    entry, content = items[1]
    assert entry.size == len(content)
    assert survey.changed
    assert survey.facts().notes == ("small: changed each time it was read",)


def test_a_folder_moved_away_while_it_is_read_is_noted(here: Path) -> None:
    deep = here / "tree"
    for level in range(_folders.MOST_OPEN + 5):
        deep = deep / f"{level}"
    deep.mkdir(parents=True)
    (here / "tree" / "0" / "zz").write_text("after its folders")
    survey = Survey()
    with tree_of(here / "tree", "files", survey=survey).open() as items:
        for entry, _chunks in items:
            if entry.path.count("/") == _folders.MOST_OPEN + 4:
                (here / "tree" / "0").rename(here / "elsewhere")
                (here / "tree" / "0").mkdir()
                (here / "tree" / "0" / "zz").write_text("another")
    assert survey.changed
    assert any("moved away" in note for note in survey.facts().notes)


def test_nothing_there_is_an_error_that_names_it(here: Path) -> None:
    with pytest.raises(SourceMissing, match="gone does not exist"):
        world.listed(tree_of(here / "gone", "files"))


def test_what_may_not_be_read_is_an_error_that_names_it(here: Path) -> None:
    (here / "folder").mkdir()
    (here / "folder" / "private\n").write_text("x")
    (here / "folder" / "private\n").chmod(0)
    here.chmod(0o755)
    (here / "folder").chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from holdfast.sources._tree import tree_of\n"
        "from holdfast.errors import SourceUnreadable\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    with tree_of(Path(sys.argv[1]), 'settings').open() as items:\n"
        "        for _ in items: pass\n"
        "except SourceUnreadable as error: print(error)\n"
    )
    done = _python(program, str(here))
    assert done.stdout.strip() == (
        f"settings: {here}/folder/private\\n cannot be read: Permission denied"
    )


def test_excluded_folders_are_not_even_opened(here: Path) -> None:
    for name in ("keep/a", "cache/b", "keep/c.tmp"):
        (here / name).parent.mkdir(exist_ok=True)
        (here / name).write_text(name)
    asked = []

    def exclude(path: str, is_folder: bool) -> bool:  # noqa: FBT001
        asked.append((path, is_folder))
        return path == "cache" or path.endswith(".tmp")

    tree = tree_of(here, "files", exclude=exclude)
    assert [e.path for e, _c in world.listed(tree)] == [".", "keep", "keep/a"]
    assert asked == [("cache", True), ("keep", True), ("keep/a", False), ("keep/c.tmp", False)]


def test_attributes_beyond_all_measure_are_noted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_xattrs, "MOST_BYTES", 1000)
    (here / "a").write_text("x")
    os.setxattr(here / "a", "user.large", b"x" * 1500)
    os.setxattr(here / "a", "user.small", b"x" * 10)
    survey = Survey()
    ((_root, _none), (entry, _content)) = world.listed(tree_of(here, "files", survey=survey))
    assert entry.xattrs == {"user.small": b"x" * 10}
    assert survey.facts().notes == ("a: attribute user.large is not kept: too many bytes of them",)


def test_files_with_two_names_are_read_once(here: Path) -> None:
    (here / "a").write_bytes(b"content")
    os.link(here / "a", here / "b")
    survey = Survey()
    items = world.listed(tree_of(here, "files", survey=survey))
    assert [(e.path, e.kind, e.target) for e, _c in items[1:]] == [
        ("a", EntryKind.FILE, ""),
        ("b", EntryKind.HARDLINK, "a"),
    ]
    assert survey.facts().counts == {"files": 2, "folders": 0, "links": 0, "bytes": 7}


# Writing what nobody should trust -----------------------------------------------------------------

ESCAPES = {
    "up": [world.folder(), world.file("../evil", b"x")],
    "absolute": [world.folder(), world.file("/tmp/evil", b"x")],  # noqa: S108
    "up inside": [world.folder(), world.folder("a"), world.file("a/../../evil", b"x")],
    "through a link": [world.folder(), world.symlink("a", ".."), world.file("a/evil", b"x")],
    "folder over a link": [
        world.folder(), world.symlink("a", ".."), world.folder("a"), world.file("a/evil", b"x"),
    ],
    "file over a link": [world.folder(), world.symlink("a", "../evil"), world.file("a", b"x")],
    "hard link outside": [world.folder(), world.hard_link("a", "../victim")],
    "hard link absolute": [world.folder(), world.hard_link("a", "/etc/passwd")],
    "hard link through a link": [
        world.folder(), world.symlink("a", ".."), world.hard_link("b", "a/victim"),
    ],
    "hard link to a link": [
        world.folder(), world.symlink("a", "../victim"), world.hard_link("b", "a"),
    ],
    "hard link to a folder": [world.folder(), world.folder("a"), world.hard_link("b", "a")],
    "hard link to nothing": [world.folder(), world.hard_link("b", "a")],
    "twice": [world.folder(), world.file("a", b"x"), world.file("a", b"y")],
    "folder twice": [world.folder(), world.folder("a"), world.folder("a")],
    "root twice": [world.folder(), world.folder()],
    "file as folder": [world.folder(), world.file("a", b"x"), world.file("a/b", b"y")],
    "folder missing": [world.folder(), world.file("a/b", b"y")],
    "no root": [world.file("a", b"x")],
    "nothing": [],
    "below a single file": [world.file(".", b"x"), world.file("a", b"y")],
    "NUL": [world.folder(), world.file("a\0b", b"y")],
    "dot": [world.folder(), world.file("a/.", b"y")],
    "too little": [world.folder(), (Entry("a", EntryKind.FILE, size=5), b"x")],
    "too much": [world.folder(), (Entry("a", EntryKind.FILE, size=5), b"xxxxxx")],
    "map backwards": [
        world.folder(),
        (Entry("a", EntryKind.FILE, size=9, extents=((4, 2), (0, 2))), b"xxxx"),
    ],
    "map beyond": [
        world.folder(), (Entry("a", EntryKind.FILE, size=9, extents=((8, 4),)), b"xxxx"),
    ],
    "map too short": [
        world.folder(), (Entry("a", EntryKind.FILE, size=9, extents=((0, 2),)), b"xxxx"),
    ],
    "time out of range": [world.folder(), world.file("a", b"", mtime_ns=1 << 100)],
}  # fmt: skip


@pytest.mark.parametrize("case", ESCAPES)
def test_nothing_leads_out_of_the_folder(here: Path, case: str) -> None:
    (here / "victim").write_text("untouched")
    before = world.picture(here)
    with pytest.raises(TreeUnsafe):
        write_tree(world.tree(ESCAPES[case]), here / "below" / "target")
    shutil.rmtree(here / "below", ignore_errors=True)
    assert world.picture(here).keys() == before.keys()
    assert (here / "victim").read_text() == "untouched"
    assert (here / "victim").stat().st_nlink == 1


@settings(max_examples=150, deadline=None, print_blob=True)
@given(
    items=st.lists(
        st.builds(
            lambda path, kind, target: (Entry(path, kind, target=target, size=0), b""),
            st.lists(st.sampled_from(["a", "b", "..", ".", "", "c"]), min_size=1, max_size=3).map(
                "/".join
            ),
            st.sampled_from(list(EntryKind)),
            st.sampled_from(["a", "b", "..", "../victim", "a/b", "/etc/passwd", "../.."]),
        ),
        max_size=8,
    )
)
def test_no_sequence_of_entries_leads_out_of_the_folder(items: list[tuple[Entry, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "victim").write_text("untouched")
        os.utime(here / "victim", ns=(5, 5))
        before = world.picture(here / "victim")
        with suppress(TreeUnsafe), Planter(here / "target", "files") as planter:
            for entry, content in [world.folder(), *items]:
                planter.add(entry, iter((content,)))
            planter.finish(durable=False)
        assert sorted(path.name for path in here.iterdir()) == ["target", "victim"]
        assert world.picture(here / "victim") == before


def test_whether_writes_failed_is_asked_of_who_was_there_before_the_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    class Watched(_sync.Disk):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            seen.append(("open", any(here.glob("**/written"))))

        def sync(self) -> None:
            super().sync()
            seen.append(("sync", any(here.glob("**/written"))))

    for module in (_plant, _files_staged):
        monkeypatch.setattr(module, "Disk", Watched)
    items = [world.folder(), world.file("written", b"1")]
    with Planter(here / "target", "files") as planter:
        for entry, content in items:
            planter.add(entry, iter((content,)))
        planter.finish()
    assert seen == [("open", False), ("sync", True)]
    shutil.rmtree(here / "target")
    seen.clear()
    staged = FilesSource("files", FilesOptions(path=here / "live")).staging("tag1", here)
    staged.fill([world.tree(items)])
    assert seen[0] == ("open", False)
    assert seen[-1] == ("sync", True)


def test_entries_may_come_back_to_a_folder_they_left(here: Path) -> None:
    order = [
        world.folder(mtime_ns=1),
        world.folder("a", mode=0o500, mtime_ns=5),
        world.file("a.txt", b"1"),
        world.file("a/b", b"2"),
        world.file("z", b"3"),
        world.file("a/c", b"4"),
    ]
    write_tree(world.tree(order), here / "target")
    assert (here / "target" / "a" / "c").read_bytes() == b"4"
    status = (here / "target" / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o500, 5)


def test_a_folder_with_something_in_it_is_never_written_into(here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "precious").write_text("x")
    with pytest.raises(TargetUnfit, match="something there already"):
        write_tree(world.tree([world.folder()]), here / "full")
    assert (here / "full" / "precious").read_text() == "x"


def test_a_link_in_the_roots_place_is_not_followed(here: Path) -> None:
    (here / "elsewhere").mkdir()
    (here / "target").symlink_to(here / "elsewhere")
    with pytest.raises(TargetUnfit):
        write_tree(world.tree([world.folder(), world.file("a", b"x")]), here / "target")
    assert list((here / "elsewhere").iterdir()) == []


def test_set_id_bits_go_with_the_owner(here: Path) -> None:
    here.chmod(0o777)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from holdfast.sources._tree import write_tree\n"
        "from holdfast.model.artifact import Entry, EntryKind\n"
        "from tests import tree_world as world\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "me, my = os.geteuid(), os.getegid()\n"
        "tree = world.tree([world.folder(uid=me, gid=my),\n"
        "    world.file('mine', b'x', mode=0o4755, uid=me, gid=my),\n"
        "    world.file('roots', b'x', mode=0o6755, uid=0, gid=0)])\n"
        "print(write_tree(tree, Path(sys.argv[1])))\n"
    )
    done = _python(program, str(here / "target"))
    assert stat.S_IMODE((here / "target" / "mine").stat().st_mode) == 0o4755
    assert stat.S_IMODE((here / "target" / "roots").stat().st_mode) == 0o755
    assert "owners were not restored" in done.stdout
    assert "roots: its set-id bits were dropped" in done.stdout
    assert "mine" not in done.stdout


@pytest.mark.skipif(not ROOT, reason="only root can give files away")
def test_owners_go_by_name_before_number(here: Path) -> None:
    items = [
        world.folder(),
        world.file("named", b"", uid=4242, gid=4242, owner="nobody", group="nogroup"),
        world.file("unknown", b"", uid=4242, gid=4343, owner="no-such-user", group="no\0group"),
    ]
    write_tree(world.tree(items), here / "target")
    assert (here / "target" / "named").owner() == "nobody"
    assert (here / "target" / "named").group() == "nogroup"
    status = (here / "target" / "unknown").stat()
    assert (status.st_uid, status.st_gid) == (4242, 4343)


def test_attributes_outside_of_user_are_left_out_and_noted(here: Path) -> None:
    mine: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
    item = world.file("a", b"", xattrs={"trusted.x": b"1", "user.y": b"2"}, **mine)
    notes = write_tree(world.tree([world.folder(**mine), item]), here / "target")
    assert os.listxattr(here / "target" / "a") == ["user.y"]
    assert notes == ["a: attribute trusted.x was left out: only those in user. are set"]


def test_a_full_disk_is_told_from_other_failures(here: Path) -> None:
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from holdfast.sources._tree import write_tree\n"
        "from holdfast.errors import NoSpace\n"
        "from tests import tree_world as world\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "items = [world.folder(), world.file('a', b'x' * (3 << 20))]\n"
        "try: write_tree(world.tree(items), Path(sys.argv[1]))\n"
        "except NoSpace as error: print(error)\n"
    )
    done = _python(program, str(here / "target"))
    assert done.stdout.strip() == f"no space left while writing {here}/target/a"


# Large files apart -------------------------------------------------------------------------------


def _apart(entries: Iterable[tuple[Entry, Iterator[bytes]]]) -> Tree:
    @contextmanager
    def opened() -> Iterator[TreeItems]:
        yield iter(entries)

    return Tree("files", opened, apart=True)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not read


@pytest.mark.timeout(60)
def test_large_files_are_filled_while_others_are_created(here: Path) -> None:
    """Their content comes only when all that follows was asked for: one by one would hang."""
    threads = threading.active_count()
    everything = threading.Event()

    def late(content: bytes) -> Iterator[bytes]:
        everything.wait()
        yield from (content[at : at + CHUNK] for at in range(0, len(content), CHUNK))

    def last() -> Iterator[bytes]:
        everything.set()
        yield b"last"

    large = os.urandom(LARGE)
    other = b"x" * (LARGE + 5)
    write_tree(
        _apart([
            (Entry(".", EntryKind.FOLDER, 0o755, 11), iter(())),
            (Entry("a", EntryKind.FOLDER, 0o500, 12), iter(())),
            (Entry("a/large", EntryKind.FILE, 0o640, 13, len(large), xattrs={"user.a": b"1"}),
             late(large)),
            (Entry("b", EntryKind.FOLDER, 0o750, 14), iter(())),
            (Entry("b/name", EntryKind.HARDLINK, 0o640, 13, target="a/large"), iter(())),
            (Entry("b/other", EntryKind.FILE, 0o4755, 15, len(other)), late(other)),
            (Entry("c", EntryKind.FILE, 0o600, 16, 4), last()),
        ]),
        here / "target",
    )  # fmt: skip
    found = here / "target"
    assert (found / "b" / "name").read_bytes() == large
    assert (found / "b" / "other").read_bytes() == other
    assert os.getxattr(found / "a" / "large", "user.a") == b"1"
    looks = {
        path.relative_to(found).as_posix(): (
            stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns,
        )
        for path in [found, *found.rglob("*")]
    }  # fmt: skip
    set_id = 0o4755 if os.geteuid() == 0 else 0o755
    assert looks == {
        ".": (0o755, 11), "a": (0o500, 12), "a/large": (0o640, 13), "b": (0o750, 14),
        "b/name": (0o640, 13), "b/other": (set_id, 15), "c": (0o600, 16),
    }  # fmt: skip
    assert threading.active_count() == threads


@pytest.mark.timeout(60)
@pytest.mark.parametrize("late", [True, False], ids=["at the end", "at the next entry"])
def test_what_fails_in_a_large_file_ends_it_all(here: Path, *, late: bool) -> None:
    threads = threading.active_count()
    failed = threading.Event()

    def failing() -> Iterator[bytes]:
        yield bytes(CHUNK)
        failed.set()
        raise BackupDamaged(backup="backup", path="files", reason="rotten")

    def waiting() -> Iterator[tuple[Entry, Iterator[bytes]]]:
        yield Entry(".", EntryKind.FOLDER), iter(())
        yield Entry("large", EntryKind.FILE, size=LARGE), failing()
        while not late:
            failed.wait()
            yield Entry(f"{time.monotonic_ns()}", EntryKind.FILE, size=0), iter(())
        yield Entry("unfinished", EntryKind.FILE, size=LARGE), (bytes(CHUNK) for _ in iter(int, 1))

    before = _open_files()
    with pytest.raises(BackupDamaged, match="rotten"):
        write_tree(_apart(waiting()), here / "target")
    assert threading.active_count() == threads
    assert _open_files() == before


@pytest.mark.timeout(60)
def test_whoever_fails_meanwhile_waits_for_no_large_file(here: Path) -> None:
    """The content never ends: only being told that nobody wants it can end its thread."""
    threads = threading.active_count()
    begun = threading.Event()

    def endless() -> Iterator[bytes]:
        while True:
            begun.set()
            yield b""

    def items() -> Iterator[tuple[Entry, Iterator[bytes]]]:
        yield Entry(".", EntryKind.FOLDER), iter(())
        yield Entry("large", EntryKind.FILE, size=LARGE), endless()
        yield Entry("next", EntryKind.FILE, size=LARGE), endless()
        begun.wait()
        yield Entry("large", EntryKind.FILE, size=1), iter((b"x",))

    before = _open_files()
    with pytest.raises(TreeUnsafe, match="does not fit"):
        write_tree(_apart(items()), here / "target")
    assert threading.active_count() == threads
    assert _open_files() == before


@pytest.mark.timeout(60)
def test_a_large_file_of_another_size_is_refused(here: Path) -> None:
    short = (Entry("large", EntryKind.FILE, size=LARGE), iter((b"short",)))
    with pytest.raises(TreeUnsafe, match="5 bytes of data instead of"):
        write_tree(_apart([(Entry(".", EntryKind.FOLDER), iter(())), short]), here / "target")


# Cost ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_does_not_grow_with_the_data(here: Path) -> None:
    before = here / "before"
    (before / "many").mkdir(parents=True)
    block = os.urandom(CHUNK // 2) + b"text " * (CHUNK // 10)
    with (before / "large").open("wb") as large:
        for _ in range(250):
            large.write(block)
    for number in range(5_000):
        (before / "many" / f"{number}").write_bytes(b"x" * 200)
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.unit.test_trees import from_archive, packed\n"
        "from holdfast.vaults._archive import Pack, unpack\n"
        "from holdfast.sources._tree import tree_of, write_tree\n"
        "from holdfast.model.manifest import Form, Stored\n"
        "from holdfast.model.artifact import Tree\n"
        "from contextlib import contextmanager\n"
        "before, after, file = map(Path, sys.argv[1:4])\n"
        "base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pack = Pack(tree_of(before, 'files'), sys.argv[4], lambda count: None)\n"
        "with file.open('wb') as out:\n"
        "    for chunk in pack.chunks(): out.write(chunk)\n"
        "stored = Stored('files', 'files', Form.TREE, 'x', 0, '0' * 64, pack.encoding,\n"
        "    pack.content_size, pack.entries)\n"
        "@contextmanager\n"
        "def opened():\n"
        "    with file.open('rb') as source:\n"
        "        yield unpack(iter(lambda: source.read(1 << 20), b''), stored, 'backup')\n"
        "write_tree(Tree('files', opened), after)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) >> 10)\n"
    )
    for archive in KINDS:
        done = _python(program, *map(str, (before, here / archive, here / "file", archive)))
        assert int(done.stdout) < 100  # MiB, on top of what the tests themselves load


def _python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done
