"""A tree of 1.5 GB against tar and zstd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..data import make
from ..measure import Command, alternate, shell
from ..peers import pack, quoted, unpack
from ..stack import Options, Stack
from ..table import Row, Section, seconds_row

MEGABYTES = 1500
ZSTD = "zstd -q -1 -T2"


def measure(work: Path, options: Options) -> Section:
    """Measure backup, verification and restore of a tree that stands still."""
    work.mkdir()
    tree = work / "tree"
    make("tree", tree, options.megabytes(MEGABYTES))
    stack = _stack(work / "zstd", tree, "tar.zst")
    rows = [
        *_gzip(work, tree, options),
        *_zstd(work, tree, stack, options),
        *_back(work, stack, options),
    ]
    return Section(
        "A tree of 1.5 GB",
        "600 MB of text like a dump, 300 MB of float32 vectors, 400 MB that cannot be compressed, "
        "and 10,000 small files. Holdfast also hashes every byte and syncs what it wrote; tar does "
        "neither. The bars are against tar as it is; the rows with `sync` are the fairer measure. "
        "Who compresses less is faster: see what each writes.",
        tuple(rows),
    )


def _stack(folder: Path, tree: Path, archive: str) -> Stack:
    stack = Stack(folder, {"uploads": {"source": "files", "path": str(tree)}}, archive)
    stack.write()
    return stack


def _gzip(work: Path, tree: Path, options: Options) -> Iterator[Row]:
    out = work / "out.tar.gz"
    theirs, quickest, ours = alternate(
        [
            pack("tar | gzip, as tar -czf", tree, out, "gzip"),
            pack("tar | gzip -1", tree, out, "gzip -1"),
            _stack(work / "gzip", tree, "tar.gz").backup("Holdfast backup, tar.gz"),
        ],
        options.fewer(3),
    )
    yield seconds_row(theirs)
    yield seconds_row(quickest, peer=theirs)
    yield seconds_row(ours, peer=theirs, most=0.2, ours=True)


def _zstd(work: Path, tree: Path, stack: Stack, options: Options) -> Iterator[Row]:
    out = work / "out.tar.zst"
    theirs, synced, ours = alternate(
        [
            pack("tar | zstd -1 -T2", tree, out, ZSTD),
            pack("tar | zstd -1 -T2, and sync", tree, out, ZSTD, synced=True),
            stack.backup("Holdfast backup, tar.zst"),
        ],
        options.runs,
    )
    yield seconds_row(theirs)
    yield seconds_row(synced, peer=theirs)
    yield seconds_row(ours, peer=theirs, most=1.3, ours=True)


def _back(work: Path, stack: Stack, options: Options) -> Iterator[Row]:
    """Restore what the last backup of `_zstd` left, by tar and by Holdfast, from one archive."""
    [archive] = (stack.folder / "backups").rglob("*.tar.zst")
    test = f"zstd -q -t {quoted(archive)} && sha256sum {quoted(archive)}"
    unpacked = work / "unpacked"
    theirs, synced, ours, tested, verified = alternate(
        [
            unpack("tar -I zstd -xf", archive, unpacked),
            unpack("tar -I zstd -xf, and sync", archive, unpacked, synced=True),
            stack.restore("Holdfast restore --target", work / "restored"),
            Command("zstd -t && sha256sum", shell(test)),
            stack.verify("Holdfast verify, native", "native"),
        ],
        options.fewer(3),
    )
    yield seconds_row(theirs)
    yield seconds_row(synced, peer=theirs)
    yield seconds_row(ours, peer=theirs, ours=True)
    yield seconds_row(tested)
    yield seconds_row(verified, peer=tested, ours=True)
