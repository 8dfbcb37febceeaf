"""Marks of backups in a repository: small sealed files, whose newest version counts.

They lie in ``holdfast/marks``, which restic does not look at. A change writes the next version,
which only one can make; who comes second reads again. So no change is lost, on any store. Some
older versions stay: a list that is made while others write may lack the newest, and its number must
still be taken.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from hashlib import sha256

from holdfast.errors import BackupExists
from holdfast.model.marks import Marks

from .._marks_text import UNREADABLE, decode_marks, encode_marks
from .ahead import in_order
from .cache import MARKS, NOTHING, Cache
from .crypto import seal, unseal
from .damage import DamagedError
from .repository import Repository
from .stored import read_bounded

OWN = "holdfast"  # the folder of the repository that restic knows nothing of
FOLDER = f"{OWN}/marks"
LARGEST = 1 << 20
KEPT = 32  # versions; no writer is as many changes behind
READERS = 8  # requests under way
_UNSOUND = (DamagedError, ValueError, TypeError, KeyError, RecursionError)


class Marked:
    """The marks of all backups of a repository. May be used by several threads and processes.

    ``copies`` on this machine serve lists only; what is decided or changed is read. ``place`` is
    where the repository lies: two copies of one repository are marked apart.
    """

    def __init__(self, repository: Repository, copies: Cache = NOTHING, place: str = "") -> None:
        self._repository = repository
        self._store = repository.store
        self._copies = copies
        self._place = place

    def read(self, backup_id: str) -> Marks:
        """Return the marks of a backup; damaged ones never hide a pin."""
        return self._newest(backup_id)[1]

    def several(self, wanted: Collection[str], snapshots: Mapping[str, str]) -> dict[str, Marks]:
        """Return the marks of several backups: one list for all.

        ``snapshots`` has the names of the snapshots of all backups there are. A version never
        changes while its snapshot is there, and so a copy of it need not.
        """
        newest = dict.fromkeys(snapshots, 0)
        for name in self._store.names(FOLDER):
            backup_id, _slash, number = name.removeprefix(f"{FOLDER}/").rpartition("/")
            if backup_id in newest and _is_number(number):
                newest[backup_id] = max(newest[backup_id], int(number))
        copies = {
            backup_id: self._copy_of(snapshots[backup_id], number)
            for backup_id, number in newest.items()
            if number
        }
        self._copies.retain(MARKS, frozenset(copies.values()).__contains__)
        marked = [one for one in wanted if one in copies]
        read = in_order(READERS, lambda one: self._listed(one, newest[one], copies[one]), marked)
        return dict.fromkeys(wanted, Marks()) | dict(zip(marked, read, strict=True))

    def _copy_of(self, snapshot: str, number: int) -> str:
        return sha256(f"{self._place}\n{snapshot}\n{number}".encode()).hexdigest()

    def _listed(self, backup_id: str, number: int, copied: str) -> Marks:
        copy = self._copies.read(MARKS, copied)
        if copy is not None:
            with suppress(*_UNSOUND):
                return self._decoded(copy)
            self._copies.drop(MARKS, copied)
        try:
            stored = read_bounded(self._store, _name(backup_id, number), LARGEST)
            marks = self._decoded(stored)
        except (FileNotFoundError, *_UNSOUND):  # replaced meanwhile, or damaged
            return self.read(backup_id)
        self._copies.keep(MARKS, copied, stored)
        return marks

    def change(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks of a backup, one change at a time, durably."""
        while True:
            number, before = self._newest(backup_id)
            after = change(before)
            sealed = seal(self._repository.key, encode_marks(after))
            with suppress(BackupExists):  # another was quicker: once more, from what it made
                self._store.put(_name(backup_id, number + 1), iter((sealed,)))
                self._thin(backup_id, number + 1)
                return after

    def _thin(self, backup_id: str, newest: int) -> None:
        for number in self._numbers(backup_id):
            if number <= newest - KEPT:
                self._store.delete(_name(backup_id, number))

    def forget(self, backup_id: str) -> None:
        """Remove the marks of a backup that is no more."""
        self._store.delete(f"{FOLDER}/{backup_id}")

    def _newest(self, backup_id: str) -> tuple[int, Marks]:
        while True:
            number = max(self._numbers(backup_id), default=0)
            if not number:
                return 0, Marks()
            try:
                return number, self._load(_name(backup_id, number))
            except FileNotFoundError:
                continue  # a newer one has replaced it

    def _load(self, name: str) -> Marks:
        try:
            return self._decoded(read_bounded(self._store, name, LARGEST))
        except _UNSOUND:
            return Marks(pinned=UNREADABLE)

    def _decoded(self, sealed: bytes) -> Marks:
        return decode_marks(unseal(self._repository.key, sealed))

    def _numbers(self, backup_id: str) -> list[int]:
        names = (name.rpartition("/")[2] for name in self._store.names(f"{FOLDER}/{backup_id}"))
        return [int(name) for name in names if _is_number(name)]


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _name(backup_id: str, number: int) -> str:
    return f"{FOLDER}/{backup_id}/{number}"
