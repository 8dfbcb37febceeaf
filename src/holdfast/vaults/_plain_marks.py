"""Marks in a plain vault: one small file for each backup, with a checksum of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..model.marks import Level, Marks, Proof
from ..ports import Store
from ._digest import digest_of
from ._plain_layout import OWN
from ._plain_locks import Turns

FOLDER = f"{OWN}/marks"
UNREADABLE = "marks unreadable"  # nobody knows whether it was pinned, so it counts as pinned
FORMAT = 1


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


def encode_marks(marks: Marks) -> bytes:
    """Return marks as JSON: the marks, and the SHA-256 of their text."""
    proofs = [
        asdict(proof) | {"at": proof.at.astimezone(UTC).isoformat()} for proof in marks.proofs
    ]
    text = json.dumps({"format": FORMAT, "pinned": marks.pinned, "proofs": proofs})
    return f'{{"marks": {text}, "sha256": "{digest_of(text.encode())}"}}\n'.encode()


def decode_marks(data: bytes) -> Marks:
    """Return the marks in ``data``; raises ``ValueError`` and its kin where they are not whole."""
    document: dict[str, Any] = json.loads(data)
    found = document["marks"]
    marks = Marks(found["pinned"], tuple(_proof(proof) for proof in found["proofs"]))
    if encode_marks(marks) != data:
        problem = "the checksum differs"
        raise ValueError(problem)
    return marks


def _proof(document: dict[str, Any]) -> Proof:
    return Proof(
        level=Level(document["level"]),
        at=datetime.fromisoformat(document["at"]),
        passed=document["passed"],
        problems=tuple(document["problems"]),
    )
