"""A store around a store: everything is passed on, and what a wrapper is about it overrides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self

from ..model.artifact import Chunks
from ..ports import Adopting, Store


class WrappingStore:
    """Passes every call on to ``store``; it renames if that does."""

    renames: ClassVar[bool]

    def __new__(cls, store: Store, *_others: Any, **_named: Any) -> Self:
        """Take over by a class of its own what the port keeps as a property of the class."""
        return super().__new__(type(cls.__name__, (cls,), {"renames": store.renames}))

    def __init__(self, store: Store) -> None:
        self.store = store

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a free name."""
        return self.store.put(name, chunks)

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, in place of an earlier one."""
        self.store.replace(name, data)

    def adopt(self, name: str, file: Path) -> bool:
        """Take a file for its own, if the wrapped store can."""
        return isinstance(self.store, Adopting) and self.store.adopt(name, file)

    def get(self, name: str) -> AbstractContextManager[Chunks]:
        """Give the bytes of a name in chunks."""
        return self.store.get(name)

    def read(self, name: str) -> bytes:
        """Return a value whole."""
        return self.store.read(name)

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value."""
        return self.store.part(name, start, length)

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give every name below a folder."""
        return self.store.names(prefix)

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give every name below a folder with its size."""
        return self.store.sizes(prefix)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Give the first part of the names below a folder, where more follows it."""
        return self.store.folders(prefix)

    def delete(self, name: str) -> None:
        """Delete a name, or a folder with everything in it."""
        self.store.delete(name)

    def rename(self, old: str, new: str) -> None:
        """Rename a name or a folder."""
        self.store.rename(old, new)

    def path(self, name: str) -> Path | None:
        """Return where a name lies in the local file system, if it does."""
        return self.store.path(name)

    def free(self) -> int | None:
        """Return how many bytes there is room for, if that is known."""
        return self.store.free()

    def sweep(self) -> list[str]:
        """Remove what writers that died left half-written."""
        return self.store.sweep()
