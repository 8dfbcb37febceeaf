"""A file tree as one sequence of bytes, without loss and without help: for `MemoryVault` alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

from ..model.artifact import CHUNK, Chunks, Entry, EntryKind, TreeItems


def pack_entries(items: TreeItems) -> Iterator[bytes]:
    """Give each entry as one line of JSON, followed by its bytes."""
    for entry, chunks in items:
        document = asdict(entry)
        document["xattrs"] = {name: value.hex() for name, value in entry.xattrs.items()}
        yield json.dumps(document).encode() + b"\n"
        for chunk in chunks:
            yield bytes(chunk)


def unpack_entries(data: bytes) -> TreeItems:
    """Give the entries that `pack_entries` wrote."""
    position = 0
    while position < len(data):
        end = data.index(b"\n", position)
        entry = _entry(data[position:end])
        position = end + 1 + entry.stored_size
        yield entry, in_chunks(data[end + 1 : position])


def _entry(line: bytes) -> Entry:
    document = json.loads(line)
    document["kind"] = EntryKind(document["kind"])
    if document["extents"] is not None:
        document["extents"] = tuple((offset, length) for offset, length in document["extents"])
    document["xattrs"] = {name: bytes.fromhex(text) for name, text in document["xattrs"].items()}
    return Entry(**document)


def in_chunks(data: bytes) -> Chunks:
    """Give bytes in chunks of at most `CHUNK`."""
    view = memoryview(data)
    for start in range(0, len(data), CHUNK):
        yield view[start : start + CHUNK]
