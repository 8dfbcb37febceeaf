"""What was met while a tree was read: how much of what, and what a person should know of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from holdfast.errors import printable
from holdfast.model.artifact import Entry, EntryKind
from holdfast.model.facts import Facts

MOST_NOTES = 100
_UNITS = {
    EntryKind.FILE: "files",
    EntryKind.HARDLINK: "files",
    EntryKind.FOLDER: "folders",
    EntryKind.SYMLINK: "links",
    EntryKind.FIFO: "pipes",
}


@dataclass(slots=True)
class Survey:
    """Counts and notes of one reading of a tree.

    ``files`` counts names, so a file with two names counts twice, but its ``bytes`` once, holes
    included. The root itself is not counted among the ``folders``. ``changed`` tells whether
    anything changed while it was read, so that the copy is not the state of one instant.
    """

    changed: bool = False
    _counts: Counter[str] = field(default_factory=Counter)
    _notes: list[str] = field(default_factory=list)
    _unlisted: int = 0

    def count(self, entry: Entry) -> None:
        """Count one entry."""
        if entry.path == "." and entry.kind is EntryKind.FOLDER:
            return
        self._counts[_UNITS[entry.kind]] += 1
        if entry.kind is EntryKind.FILE:
            self._counts["bytes"] += entry.size

    def note(self, path: str, text: str) -> None:
        """Remember something that a person should know of one path."""
        if len(self._notes) < MOST_NOTES:
            self._notes.append(f"{printable(path)}: {text}")
        else:
            self._unlisted += 1

    def change(self, path: str, text: str) -> None:
        """Remember that something changed under the reader's hands."""
        self.changed = True
        self.note(path, text)

    def facts(self) -> Facts:
        """Return what was counted."""
        counts = dict.fromkeys(("files", "folders", "links", "bytes"), 0) | self._counts
        notes = [*self._notes]
        if self._unlisted:
            notes.append(f"and {self._unlisted} more notes of this kind")
        return Facts(counts, notes=tuple(notes))
