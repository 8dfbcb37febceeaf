"""Artifacts that break, and artifacts written out as files: for the contract suites."""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from ..model.artifact import Artifact, Chunks, Entry, EntryKind, Stream, Tree, TreeItems
from ._trips import drain, read_stream

TYPES = {
    EntryKind.FILE: tarfile.REGTYPE,
    EntryKind.FOLDER: tarfile.DIRTYPE,
    EntryKind.SYMLINK: tarfile.SYMTYPE,
    EntryKind.HARDLINK: tarfile.LNKTYPE,
    EntryKind.FIFO: tarfile.FIFOTYPE,
}


def listing(folder: Path) -> set[str]:
    """Return the names right inside a folder, hidden ones too: litter shows there."""
    return {path.name for path in folder.iterdir()}


def read_a_little(artifact: Artifact) -> None:
    """Begin to read an artifact, and leave it."""
    if isinstance(artifact, Stream):
        with artifact.open() as chunks:
            next(chunks, None)
    else:
        with artifact.open() as items:
            next(items, None)


def failing(
    artifacts: Sequence[Artifact], error: BaseException, *, at_the_end: bool
) -> list[Artifact]:
    """Return artifacts that fail to be read: halfway into the first, or after the last."""
    broken = list(artifacts)
    place = -1 if at_the_end else 0
    broken[place] = fail(broken[place], error, at_the_end=at_the_end)
    return broken


def fail(artifact: Artifact, error: BaseException, *, at_the_end: bool) -> Artifact:
    """Return an artifact that fails to be read: halfway, or after its last byte."""
    if isinstance(artifact, Stream):
        return replace(artifact, open=_failing_stream(artifact, error, at_the_end), path=None)
    return replace(artifact, open=_failing_tree(artifact, error, at_the_end))


def _failing_stream(
    stream: Stream, error: BaseException, at_the_end: object
) -> Callable[[], AbstractContextManager[Chunks]]:
    def content(chunks: Chunks) -> Chunks:
        for chunk in chunks:
            if not at_the_end:
                yield chunk[: len(chunk) // 2]
                break
            yield chunk
        raise error

    @contextmanager
    def opened() -> Iterator[Chunks]:
        with stream.open() as chunks:
            yield content(chunks)

    return opened


def _failing_tree(
    tree: Tree, error: BaseException, at_the_end: object
) -> Callable[[], AbstractContextManager[TreeItems]]:
    def content(items: TreeItems) -> TreeItems:
        for number, item in enumerate(items):
            if number and not at_the_end:  # the root folder came first
                break
            yield item
        raise error

    @contextmanager
    def opened() -> Iterator[TreeItems]:
        with tree.open() as items:
            yield content(items)

    return opened


def write_out(artifact: Artifact, folder: Path) -> Path:
    """Write an artifact as one file, a tree as a ``.tar.gz``, and return where."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(artifact, Stream):
        path = folder / f"{artifact.part or 'only'}{artifact.suffix}"
        path.write_bytes(read_stream(artifact))
        return path
    path = folder / f"{artifact.part or 'only'}.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar, artifact.open() as items:
        for entry, chunks in items:
            data = _with_holes(entry, drain(chunks))
            tar.addfile(_member(entry, len(data)), BytesIO(data))
    return path


def _member(entry: Entry, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(entry.path)
    member.type = TYPES[entry.kind]
    member.size = size
    member.mode = entry.mode
    seconds, fraction = divmod(entry.mtime_ns, 10**9)
    member.mtime = seconds
    member.pax_headers = {"mtime": f"{seconds}.{fraction:09d}"}
    member.uid, member.gid = entry.uid, entry.gid
    member.uname, member.gname = entry.owner, entry.group
    member.linkname = entry.target
    return member


def _with_holes(entry: Entry, data: bytes) -> bytes:
    if entry.extents is None:
        return data
    whole = bytearray(entry.size)
    position = 0
    for offset, length in entry.extents:
        whole[offset : offset + length] = data[position : position + length]
        position += length
    return bytes(whole)


def run_lines(
    lines: Sequence[str], target: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run the lines of a guide as a person would: in a shell that stops at the first failure."""
    script = "\n".join(["set -eu", *lines])
    done = subprocess.run(
        ["sh", "-c", script],
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "TARGET": str(target),
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=target.parent,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
