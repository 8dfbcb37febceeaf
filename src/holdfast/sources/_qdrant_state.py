"""What a restore into Qdrant has done so far, on the disk before it is done."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STATE = "state.json"


@dataclass(slots=True)
class State:
    """The steps of one restore; `save` makes them durable.

    ``staged`` and ``switched`` name the collections (as they are called here) that were begun.
    ``existed`` are those that were live before, and have a safety snapshot; ``aliases`` what stood
    before for each alias that is changed, None for one that was not there.
    """

    staged: list[str] = field(default_factory=list)
    # collection → of the snapshot of each node, its SHA-256 and its shards
    existed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    shapes: dict[str, dict[str, Any]] = field(default_factory=dict)  # of those, as configured
    aliases: dict[str, str | None] = field(default_factory=dict)
    bridged: bool = False  # the aliases may stand for what is staged
    switched: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> State | None:
        """Return what was written down; None if nothing was."""
        try:
            return cls(**json.loads((folder / STATE).read_bytes()))
        except FileNotFoundError:
            return None

    def save(self, folder: Path) -> None:
        """Write it down in place of what was there, durably."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = folder / f"{STATE}.new"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(asdict(self)).encode())
            file.flush()
            os.fsync(file.fileno())
        new.replace(folder / STATE)
        _sync_folder(folder)

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget it: nothing is left to be put back."""
        (folder / STATE).unlink(missing_ok=True)
        (folder / f"{STATE}.new").unlink(missing_ok=True)
        if folder.is_dir():
            _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
