"""Adapters that keep everything in memory: small, but real, and held to the same contracts.

They serve tests of whatever stands above a port. `MemoryStore` is a folder or an object storage,
`MemoryVault` is in `memory_vault`, `MemorySource` in `memory_source`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from ..errors import BackupExists, NoSpace, ValueTooShort
from ..model.artifact import Chunks
from ..model.names import safe_path
from ._entries import in_chunks


class MemoryStore:
    """A store in a dictionary, with as much room as ``capacity`` bytes says."""

    renames: ClassVar[bool] = True

    def __init__(self, capacity: int | None = None) -> None:
        self.held: dict[str, bytes] = {}
        self._capacity = capacity
        self._lock = threading.Lock()

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a free name."""
        safe_path(name, "name")
        self._refuse_taken(name)
        data = bytearray()
        for chunk in chunks:
            data += chunk
            self._check_room(name, len(data))
        with self._lock:
            self._refuse_taken(name)
            self.held[name] = bytes(data)
        return len(data)

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, in place of an earlier one."""
        safe_path(name, "name")
        self._check_room(name, len(data))
        with self._lock:
            self.held[name] = bytes(data)

    @contextmanager
    def get(self, name: str) -> Iterator[Chunks]:
        """Give the bytes of a name in chunks."""
        yield in_chunks(self.read(name))

    def read(self, name: str) -> bytes:
        """Return a value whole."""
        try:
            return self.held[safe_path(name, "name")]
        except KeyError:
            raise FileNotFoundError(name) from None

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value."""
        data = self.read(name)[start : start + length]
        if len(data) < length:
            reason = f"it ends before byte {start + length}"
            raise ValueTooShort(vault="memory", path=name, reason=reason)
        return data

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give every name below a folder."""
        start = _start(prefix)
        yield from [name for name in list(self.held) if name.startswith(start)]

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give every name below a folder with its size."""
        start = _start(prefix)
        held = list(self.held.items())
        yield from [(name, len(data)) for name, data in held if name.startswith(start)]

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Give the first part of the names below a folder that go on after it."""
        start = _start(prefix)
        rests = [name[len(start) :] for name in self.names(prefix)]
        yield from sorted({rest.split("/")[0] for rest in rests if "/" in rest})

    def delete(self, name: str) -> None:
        """Delete a name, or every name below it."""
        safe_path(name, "name")
        with self._lock:
            for gone in self._below(name):
                del self.held[gone]

    def rename(self, old: str, new: str) -> None:
        """Rename a name, or every name below it."""
        safe_path(old, "name")
        safe_path(new, "name")
        with self._lock:
            self._refuse_taken(new)
            moved = self._below(old)
            if not moved:
                raise FileNotFoundError(old)
            for name in moved:
                self.held[new + name[len(old) :]] = self.held.pop(name)

    def path(self, name: str) -> Path | None:
        """Return nothing: it lies in no file system."""
        safe_path(name, "name")
        return None

    def free(self) -> int | None:
        """Return how many bytes there is room for, if it was made with a capacity."""
        return None if self._capacity is None else self._capacity - self._used()

    def sweep(self) -> list[str]:
        """Find nothing: what was not stored whole is not in the dictionary."""
        return []

    def _below(self, name: str) -> list[str]:
        below = name + "/"
        return [held for held in list(self.held) if held == name or held.startswith(below)]

    def _refuse_taken(self, name: str) -> None:
        if self._below(name):
            raise BackupExists(path=name)

    def _used(self) -> int:
        return sum(len(data) for data in list(self.held.values()))

    def _check_room(self, name: str, size: int) -> None:
        if self._capacity is not None and self._used() + size > self._capacity:
            raise NoSpace(path=name)


class MemoryObjects(MemoryStore):
    """A store that cannot rename, as object storages cannot."""

    renames: ClassVar[bool] = False

    def rename(self, old: str, new: str) -> None:
        """Refuse: whoever calls this did not look at ``renames``."""
        bug = f"cannot rename {old} to {new}: this store has no rename"
        raise NotImplementedError(bug)


def _start(prefix: str) -> str:
    return safe_path(prefix, "folder") + "/" if prefix else ""
