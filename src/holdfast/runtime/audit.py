"""The audit trail: who did what and how it ended, in a chain that shows every change to it.

Each entry holds the digest of the one before it and its own over everything it says. A small file
beside the catalog, ``audit.head``, holds the number and digest of the newest entry, so that a trail
cut short does not pass for a whole one. This shows tampering with the catalog and decay of the
disk; it is no defence against someone who may write everything in the state folder and knows how.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC
from typing import Any

from ..errors import AuditBroken, printable
from ..model.facts import Json
from ..ports import Clock
from .database import Database
from .files import lock_file, sync_folder, writing

HEAD = "audit.head"
GAP = "gap"  # outcome of an entry that tells that entries before it are missing
NOTHING_BEFORE = "0" * 64
_BATCH = 1000
_HEAD_FORM = re.compile(rb"(\d{20}) ([0-9a-f]{64})\n")
_SIGNED = ("at", "user", "host", "verb", "subject", "outcome", "details", "previous")


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry, as ``audit.head`` tells."""

    number: int
    sha256: str


_START = Head(0, NOTHING_BEFORE)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry, its fields as they are stored; ``details`` is JSON text."""

    number: int
    at: str
    user: str
    host: str
    verb: str
    subject: str
    outcome: str
    details: str
    previous: str
    sha256: str

    def digest(self) -> str:
        """Return what ``sha256`` must be: over all other fields, each with its place and length."""
        form = json.dumps(["holdfast-audit-1", self.number, *(getattr(self, f) for f in _SIGNED)])
        return hashlib.sha256(form.encode("ascii")).hexdigest()

    def as_head(self) -> Head:
        """Return what the head says where this is the newest entry."""
        return Head(self.number, self.sha256)


class AuditTrail:
    """The audit trail of a state folder. Usable from several threads and processes."""

    def __init__(
        self, database: Database, clock: Clock, user: Callable[[], str] | None = None
    ) -> None:
        """Use the ``audit`` table of a catalog's database; ``user`` tells who acts."""
        self._database = database
        self._clock = clock
        self._user = user or acting_user
        self._head = database.path.with_name(HEAD)

    def append(
        self, verb: str, subject: str, outcome: str, details: Mapping[str, Json] | None = None
    ) -> AuditEntry:
        """Add an entry; durable when this returns.

        Where entries are missing at the end, one more that tells so comes before it: nobody can
        close the gap by going on.
        """
        with lock_file(self._head) as descriptor:
            head = _parse(os.pread(descriptor, 200, 0))
            with self._database.transaction(durable=True):
                last = self._last()
                if problem := _mismatch(head, last, self._entry_at):
                    gap: dict[str, Json] = {"problem": problem, "found": last.number}
                    last = self._insert(last, "audit", "", GAP, gap).as_head()
                entry = self._insert(last, verb, subject, outcome, details or {})
            self._write_head(descriptor, entry)
        return entry

    def entries(self, limit: int = 100) -> list[AuditEntry]:
        """Return the newest entries, oldest first."""
        return [AuditEntry(**row) for row in self._database.rows("newest_audit", {"limit": limit})]

    def verify(self) -> int:
        """Check every entry and the chain between them; returns how many there are.

        Raises:
            AuditBroken: an entry was changed, moved, added or removed; it says where.

        """
        with lock_file(self._head, shared=True) as descriptor:
            last = _START
            for row in self._all():
                last = _check(row, last)
            head = _parse(os.pread(descriptor, 200, 0))
            if problem := _mismatch(head, last, self._entry_at):
                raise AuditBroken(entry=last.number + 1, reason=problem)
        return last.number

    def _all(self) -> Iterator[dict[str, Any]]:
        after = -(2**63)
        while rows := self._database.rows("audit", {"after": after, "limit": _BATCH}):
            yield from rows
            after = rows[-1]["number"]

    def _last(self) -> Head:
        rows = self._database.rows("last_audit")
        return Head(rows[0]["number"], rows[0]["sha256"]) if rows else _START

    def _entry_at(self, number: int) -> Head:
        if number == 0:
            return _START
        rows = self._database.rows("audit", {"after": number - 1, "limit": 1})
        return Head(rows[0]["number"], rows[0]["sha256"]) if rows else _START

    def _insert(
        self, last: Head, verb: str, subject: str, outcome: str, details: Mapping[str, Json]
    ) -> AuditEntry:
        unsigned = AuditEntry(
            number=last.number + 1,
            at=self._clock.now().astimezone(UTC).isoformat(timespec="microseconds"),
            user=printable(self._user()),
            host=printable(socket.gethostname()),
            verb=printable(verb),
            subject=printable(subject),
            outcome=printable(outcome),
            details=json.dumps(details, sort_keys=True),
            previous=last.sha256,
            sha256="",
        )
        entry = replace(unsigned, sha256=unsigned.digest())
        self._database.change("insert_audit", asdict(entry))
        return entry

    def _write_head(self, descriptor: int, entry: AuditEntry) -> None:
        """Write the head in place: less than a sector, and always of one length."""
        with writing(self._head):
            new = os.fstat(descriptor).st_size == 0
            os.pwrite(descriptor, b"%020d %s\n" % (entry.number, entry.sha256.encode()), 0)
            os.fsync(descriptor)
            if new:
                sync_folder(self._head.parent)


def _check(row: Mapping[str, Any], last: Head) -> Head:
    """Check one entry as it follows another; returns it as the new last one."""
    number, expected = row["number"], last.number + 1
    if number != expected:
        first = min(number, expected)
        raise AuditBroken(
            entry=first, reason=f"the next entry is {number}: some are missing or moved"
        )
    if any(not isinstance(row[field], str) for field in (*_SIGNED, "sha256")):
        raise AuditBroken(entry=number, reason="a field of it is not text")
    entry = AuditEntry(**row)
    if entry.sha256 != entry.digest():
        raise AuditBroken(entry=number, reason="it was changed after it was written")
    if entry.previous != last.sha256:
        raise AuditBroken(
            entry=number, reason="it was not written after the one that stands before it"
        )
    if entry.outcome == GAP and entry.verb == "audit":
        raise AuditBroken(entry=number, reason=f"entries before it were lost: {entry.details}")
    return Head(number, entry.sha256)


def _mismatch(head: Head | None, last: Head, entry_at: Callable[[int], Head]) -> str:
    """Say what is wrong between the head and the newest entry; empty if nothing is.

    The head may be one entry behind: the process died between the two.
    """
    if head is None:
        return "the head cannot be read"
    if head == _START and last.number > 1:
        return f"{HEAD} is missing or empty"
    if head.number > last.number:
        return f"{HEAD} tells of entry {head.number}: the end was cut off"
    if head.number < last.number - 1:
        return f"{HEAD} tells of entry {head.number} as the last: others were added"
    if entry_at(head.number) != head:
        return f"{HEAD} tells of another entry {head.number}"
    return ""


def _parse(data: bytes) -> Head | None:
    if not data:
        return _START
    match = _HEAD_FORM.fullmatch(data)
    return Head(int(match[1]), match[2].decode()) if match else None


def acting_user() -> str:
    """Return who acts: the account, and who stands behind it if that was said through sudo."""
    import pwd

    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = str(number)  # an account without a name, as containers have
    behind = os.environ.get("SUDO_USER", "")
    return f"{name} for {behind}" if behind else name
