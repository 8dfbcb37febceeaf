"""What a restore into a server does, written down before it is done, in its workspace.

What is live tells itself from what is staged by its name; but a collection that has its place
already is ours only by its id, and a database that we made looks like any other. So both are
written down, and a process that comes after a crash compares that with what the server says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._chroma_server_api import Place

FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Staged:
    """A collection of the backup in the server, still under another name or not."""

    place: Place
    id: str
    name: str  # as it is in the end
    title: str


@dataclass(frozen=True, slots=True)
class Renaming:
    """One step of the switch."""

    place: Place
    id: str
    old: str
    new: str


@dataclass(slots=True)
class Plan:
    """All that is to be done; what was done is for the server to say."""

    places: list[Place] = field(default_factory=list)
    created: list[Place] = field(default_factory=list)  # those of them that were not there before
    staged: list[Staged] = field(default_factory=list)  # known when all of it is written
    switch: list[Renaming] | None = None  # None: nothing live was touched yet

    def save(self, folder: Path) -> None:
        """Write it down, durable when this returns and never half there."""
        switch = [[*_pair(step.place), step.id, step.old, step.new] for step in self.switch or ()]
        document = {
            "places": [_pair(place) for place in self.places],
            "created": [_pair(place) for place in self.created],
            "staged": [[*_pair(one.place), one.id, one.name, one.title] for one in self.staged],
            "switch": None if self.switch is None else switch,
        }
        draft = folder / f"{FILE}.new"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / FILE)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @classmethod
    def load(cls, folder: Path) -> Plan | None:
        """Return what was written down; None: nothing, so nothing was done."""
        try:
            text = (folder / FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return cls._parsed(json.loads(text))

    @classmethod
    def _parsed(cls, said: Mapping[str, Any]) -> Plan:
        return cls(
            [Place(*pair) for pair in said["places"]],
            [Place(*pair) for pair in said["created"]],
            [Staged(Place(*row[:2]), *row[2:]) for row in said["staged"]],
            None
            if said["switch"] is None
            else [Renaming(Place(*row[:2]), *row[2:]) for row in said["switch"]],
        )


def _pair(place: Place) -> list[str]:
    return [place.tenant, place.database]
