"""Trees for tests: pictures of what lies on the disk, and random trees to write there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from holdfast.model.artifact import CHUNK, Entry, EntryKind, Tree, TreeItems

SECOND = 1_000_000_000
# A fixed list: what one writes, and what some system or other chokes on.
NAMES = [
    "a", "b.txt", "-rf", " ", "ä€😀", "한글", "new\nline", "tab\t", "back\\slash", "~", "#", "*",
    "with space", "a.b", "%41", "quote'\"", os.fsdecode(b"\xff\xfe"), "e\u0301", "é", "x" * 255,
    "y" * 101, "z" * 99, ".hidden", "..two", "=", "GNUSparseFile.0",
]  # fmt: skip


def picture(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Describe everything below a folder (or a single file) by the system's own calls."""
    seen: dict[tuple[int, int], bytes] = {}
    found = {}
    for path in _everything(os.fsencode(root)):
        status = os.lstat(path)
        name = os.path.relpath(path, os.fsencode(root))
        first = seen.setdefault((status.st_dev, status.st_ino), name)
        found[name] = (
            stat.S_IFMT(status.st_mode),
            stat.S_IMODE(status.st_mode) if not stat.S_ISLNK(status.st_mode) else None,
            status.st_mtime_ns,
            (status.st_uid, status.st_gid),
            first if not stat.S_ISDIR(status.st_mode) else None,
            *_content(path, status),
        )
    return found


def _everything(root: bytes) -> Iterator[bytes]:
    yield root
    for folder, folders, files in os.walk(root):
        folders.sort()  # so that of a file's names the same one is always met first
        files.sort()
        yield from (folder + b"/" + name for name in [*folders, *files])


def _content(path: bytes, status: os.stat_result) -> tuple[Any, ...]:
    if stat.S_ISLNK(status.st_mode):
        return (os.readlink(path),)  # noqa: PTH115 - bytes, as the system has them
    if stat.S_ISREG(status.st_mode):
        xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        return Path(os.fsdecode(path)).read_bytes(), xattrs, status.st_blocks
    return ()


def tree(entries: Sequence[tuple[Entry, bytes]], name: str = "files") -> Tree:
    """Return a tree of given entries, true or hostile."""

    def items() -> TreeItems:
        for entry, content in entries:
            yield entry, (content[i : i + CHUNK] for i in range(0, len(content), CHUNK))

    @contextmanager
    def opened() -> Iterator[TreeItems]:
        yield items()

    return Tree(name, opened)


def listed(tree: Tree) -> list[tuple[Entry, bytes]]:
    """Read a tree to its end."""
    with tree.open() as items:
        return [(entry, b"".join(chunks)) for entry, chunks in items]


def folder(path: str = ".", **attributes: Any) -> tuple[Entry, bytes]:
    return Entry(path, EntryKind.FOLDER, **{"mode": 0o755, **attributes}), b""


def file(path: str, content: bytes = b"", **attributes: Any) -> tuple[Entry, bytes]:
    return Entry(path, EntryKind.FILE, size=len(content), **attributes), content


def symlink(path: str, target: str) -> tuple[Entry, bytes]:
    return Entry(path, EntryKind.SYMLINK, target=target), b""


def hard_link(path: str, target: str) -> tuple[Entry, bytes]:
    return Entry(path, EntryKind.HARDLINK, target=target), b""


# Random trees -------------------------------------------------------------------------------------

contents = st.one_of(
    st.binary(max_size=2000),
    st.integers(0, 3).map(lambda n: bytes(n * 512)),
    st.sampled_from([CHUNK + 1, CHUNK, 70_000, 511, 513]).map(lambda size: b"x" * size),
)
holes = st.lists(
    st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=5000)), min_size=0, max_size=4
)
# Not the second before 1970: GNU tar reads -0.5 as 0.5.
times = st.one_of(
    st.integers(0, 2**32 * SECOND),
    st.sampled_from([0, 1, SECOND, SECOND - 1, -SECOND, -SECOND - 1, 2**33 * SECOND]),
)
modes = st.integers(0, 0o7777)
owners = st.sampled_from([0, 1, 65534, 1000, 2**21, 2**31])
attributes = st.dictionaries(
    st.sampled_from(["user.a", "user.b=c", "user.ü%3D", "user.n\nl"]), st.binary(max_size=100)
)
leaves = st.one_of(
    st.tuples(st.just("file"), contents, attributes),
    st.tuples(st.just("sparse"), holes, st.integers(0, 300_000)),
    st.tuples(st.just("symlink"), st.sampled_from(["nowhere", "..", "/etc", "a\nb", "t" * 300])),
    st.tuples(st.just("link"), st.integers(0, 100)),
    st.tuples(st.just("pipe")),
)
names = st.one_of(
    st.sampled_from(NAMES),
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_")))
    .filter(lambda name: name not in {".", ".."}),
)
looks = st.tuples(modes, times, owners)
trees = st.recursive(
    st.dictionaries(names, st.tuples(leaves, looks), max_size=4),
    lambda below: st.dictionaries(
        names,
        st.tuples(st.one_of(leaves, st.tuples(st.just("folder"), below)), looks),
        max_size=4,
    ),
    max_leaves=12,
)


def grow(root: Path, shape: dict[str, Any], look: tuple[int, int, int]) -> None:
    """Write a random tree to the disk by the system's own calls."""
    root.mkdir(parents=True)
    files: list[Path] = []
    _grow(root, shape, files)
    _dress(root, look)


def _grow(root: Path, shape: dict[str, Any], files: list[Path]) -> None:
    for name, (what, look) in shape.items():
        path = root / name
        kind, *rest = what
        if kind == "folder":
            path.mkdir()
            _grow(path, rest[0], files)
        elif kind == "link" and files:
            os.link(files[rest[0] % len(files)], path)
            continue
        elif kind == "symlink":
            path.symlink_to(rest[0])
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            _grow_file(path, kind, rest)
            files.append(path)
        _dress(path, look)


def _grow_file(path: Path, kind: str, rest: Sequence[Any]) -> None:
    if kind == "file":
        path.write_bytes(rest[0])
        for name, value in rest[1].items():
            os.setxattr(path, name, value)
    elif kind == "sparse":
        with path.open("wb") as sparse:
            for blocks, data in rest[0]:
                sparse.seek(blocks * 4096, os.SEEK_CUR)
                sparse.write(data)
            sparse.truncate(sparse.tell() + rest[1])
    else:
        path.write_bytes(b"")


def _dress(path: Path, look: tuple[int, int, int]) -> None:
    mode, time, owner = look
    if os.geteuid() == 0:
        os.chown(path, owner, owner, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode if os.geteuid() == 0 else mode | 0o700)
    os.utime(path, ns=(time, time), follow_symlinks=False)
