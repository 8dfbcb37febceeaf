"""Marks in a plain vault: one small file for each backup, with a checksum of its own."""

from __future__ import annotations

from collections.abc import Callable

from ..model.marks import Marks
from ..ports import Store
from ._marks_text import UNREADABLE, decode_marks, encode_marks
from ._plain_layout import OWN
from ._plain_locks import Turns

FOLDER = f"{OWN}/marks"


class MarkBook:
    """The marks of all backups of a vault."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = Turns(store, f"{OWN}/marks.lock")

    def read(self, backup_id: str) -> Marks:
        """Return the marks of a backup; damaged ones never hide a pin."""
        try:
            data = self._store.read(_name(backup_id))
        except FileNotFoundError:
            return Marks()
        try:
            return decode_marks(data)
        except (ValueError, TypeError, KeyError, RecursionError):
            return Marks(pinned=UNREADABLE)

    def change(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks of a backup, one change at a time, durably."""
        with self._turns.turn():
            marks = change(self.read(backup_id))
            self._store.replace(_name(backup_id), encode_marks(marks))
        return marks

    def forget(self, backup_id: str) -> None:
        """Remove the marks of a backup that is no more."""
        self._store.delete(_name(backup_id))

    def ids(self) -> list[str]:
        """Return the ids that have marks."""
        start = len(FOLDER) + 1
        return sorted(name[start:].removesuffix(".json") for name in self._store.names(FOLDER))


def _name(backup_id: str) -> str:
    return f"{FOLDER}/{backup_id}.json"
