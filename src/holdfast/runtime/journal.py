"""The journal of a restore: what is about to be done, durable before it is done.

One file per restore, ``journal/<run>.jsonl`` in the state folder. Each line is JSON,
``["<length>","<sha256>",{record}]``: length in bytes and digest are those of the record's text.
A crash may tear the last line; then what it announced was not begun, and the line is dropped.
Damage anywhere else is reported, never guessed around.

Whoever writes a journal holds its file locked, so that a journal that can be locked belongs to a
restore that died; and no two processes ever recover the same one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import HoldfastError, JournalDamaged, StackLocked, StateUnwritable, UnknownName
from ..model.facts import Json
from ..model.names import safe_name
from ..model.recovery import OutOfOrder, Record, RestoreState, after
from .files import FILE_MODE, lock_file, private_folder, sync_folder, try_lock, write_all, writing

KEPT = 50  # finished journals
_SUFFIX = ".jsonl"
_HEAD = len('["00000000","') + 64 + len('",')
_TAIL = b"]\n"
_NEVER_WRITTEN = b"\0" * 8  # blocks that a crash left without content read as zeros


class Journal:
    """The journal of one restore, open and locked. Implements `ports.Journal`.

    When a method raises, ``state`` tells what is recorded: all but always nothing new; after an
    interrupt, ask it before undoing. Undoing itself must not depend on the journal: what could not
    be recorded as undone is undone once more by the next recovery.
    """

    def __init__(self, path: Path, descriptor: int, state: RestoreState, count: int) -> None:
        """Take over an open, locked file; `begin` and `reopen` are the ways to get there."""
        self.path = path
        self._descriptor = descriptor
        self._written = _Written(state, count, os.fstat(descriptor).st_size)
        self._broken = False

    @property
    def state(self) -> RestoreState:
        """How far the restore is, by what is recorded."""
        return self._written.state

    def prepare(self, component: str, kind: str, token: Mapping[str, Json]) -> None:
        """Say that content will be staged."""
        self._append("prepare", component=component, source=kind, token=dict(token))

    def filled(self, component: str) -> None:
        """Say that a component is staged."""
        self._append("filled", component=component)

    def stopping(self) -> None:
        """Say that the services will be stopped."""
        self._append("stopping")

    def activate(self, component: str) -> None:
        """Say that a component will be switched."""
        self._append("activate", component=component)

    def activated(self, component: str) -> None:
        """Say that a component was switched."""
        self._append("activated", component=component)

    def settle(self) -> None:
        """Decide: from here on it is finished, never undone."""
        self._append("settle")

    def settled(self, component: str) -> None:
        """Say that a component is settled."""
        self._append("settled", component=component)

    def reverted(self, component: str) -> None:
        """Say that a component is as it was before."""
        self._append("reverted", component=component)

    def end(self, outcome: str) -> None:
        """Close the journal as ``completed`` or ``rolled_back``; it is kept among the finished."""
        self._append("end", outcome=outcome)
        _put_away(self.path)

    def _append(self, kind: str, **content: Json) -> None:
        before = self._written
        record: dict[str, Json] = {"n": before.count + 1, "kind": kind, **content}
        line = encode(record)
        written = _Written(after(before.state, record), before.count + 1, before.size + len(line))
        if self._broken:
            raise StateUnwritable(
                path=self.path, reason="an earlier record could not be taken back"
            )
        with writing(self.path):
            try:
                write_all(self._descriptor, line)
                os.fsync(self._descriptor)
                self._written = written
            except BaseException:
                self._take_back()
                raise

    def _take_back(self) -> None:
        """Remove what is not recorded: half a line, or one that may or may not reach the disk."""
        self._broken = True
        os.ftruncate(self._descriptor, self._written.size)
        os.fsync(self._descriptor)
        self._broken = False


@dataclass(frozen=True, slots=True)
class _Written:
    """What a journal holds: replaced as a whole, so that an interrupt finds either or."""

    state: RestoreState
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A restore that died. ``problem`` says why its journal cannot be recovered by itself."""

    run: str
    path: Path
    state: RestoreState | None
    problem: HoldfastError | None = None


@contextmanager
def begin(  # noqa: PLR0913, PLR0917 - the fields of one record, in the order they are written
    folder: Path,
    run: str,
    stack: str,
    backup: str,
    vault: str,
    components: Sequence[str],
    targets: Mapping[str, str],
) -> Iterator[Journal]:
    """Begin the journal of a restore in the state folder; it is durable before this gives it.

    Leaving the context closes the file; a journal that was not ended is then waiting for `reopen`.
    """
    journals = private_folder(private_folder(folder) / "journal")
    path = journals / (safe_name(run, "run") + _SUFFIX)
    record: dict[str, Json] = {
        "n": 1,
        "kind": "begin",
        "run": run,
        "stack": stack,
        "backup": backup,
        "vault": vault,
        "targets": dict(targets),
        "components": list(components),
    }
    state = after(None, record)
    descriptor = _create(path, encode(record))
    try:
        yield Journal(path, descriptor, state, 1)
    finally:
        os.close(descriptor)


def _create(path: Path, line: bytes) -> int:
    """Create a journal, locked from the first moment that others can see it."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with lock_file(path.parent / ".lock"), writing(path):
        descriptor = os.open(path, flags, FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(descriptor, line)
            os.fsync(descriptor)
            sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
    return descriptor


@contextmanager
def reopen(folder: Path, run: str) -> Iterator[Journal]:
    """Take over the journal of a restore that died, to finish or undo it.

    Raises:
        UnknownName: it is not there, or not any more: another process has ended it.
        StackLocked: the restore lives, or another process is recovering it.
        JournalDamaged: it cannot be trusted.

    """
    path = folder / "journal" / (safe_name(run, "run") + _SUFFIX)
    if not path.exists():
        raise _unknown(path)
    with lock_file(path.parent / ".lock"):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _unknown(path) from error
        try:
            journal = _resume(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield journal
    finally:
        os.close(descriptor)


def _unknown(path: Path) -> UnknownName:
    known = ", ".join(sorted(other.stem for other in path.parent.glob("*" + _SUFFIX))) or "none"
    return UnknownName(what="interrupted restore", name=path.stem, known=known)


def _resume(path: Path, descriptor: int) -> Journal:
    if not try_lock(descriptor, path):
        raise StackLocked(verb="restore", run=path.stem, holder="its journal is being written")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:  # it was put away before we had it locked
        raise _unknown(path) from error
    records, end = decode(data, path)
    state = _state(records, path)
    if state is None or state.outcome:
        _put_away(path)
        raise _unknown(path)
    with writing(path):
        os.ftruncate(descriptor, end)
        if data[end - 1 : end] != b"\n":  # a whole last line that lacks only this
            write_all(descriptor, b"\n")
        os.fsync(descriptor)
    return Journal(path, descriptor, state, len(records))


def open_journals(folder: Path) -> list[Unfinished]:
    """Return the restores that died and wait to be recovered, oldest first.

    Also tidies up: a journal that had only to be put away is, and one that never began is too,
    since nothing is done before it has.
    """
    journals = folder / "journal"
    if not journals.is_dir():
        return []
    with lock_file(journals / ".lock"):
        found = [_look(path) for path in sorted(journals.glob("*" + _SUFFIX))]
    return [unfinished for unfinished in found if unfinished is not None]


def _look(path: Path) -> Unfinished | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # it ended this moment
    try:
        if not try_lock(descriptor, path):
            return None  # its restore lives, or is being recovered
        return _judge(path)
    finally:
        os.close(descriptor)


def _judge(path: Path) -> Unfinished | None:
    try:
        data = path.read_bytes()
        state = _state(decode(data, path)[0], path)
    except FileNotFoundError:
        return None  # it was put away while we waited to look
    except JournalDamaged as error:
        return Unfinished(path.stem, path, None, error)
    if state is None or state.outcome:
        _put_away(path)
        return None
    return Unfinished(path.stem, path, state)


def _state(records: Sequence[Record], path: Path) -> RestoreState | None:
    state = None
    for number, record in enumerate(records, 1):
        try:
            state = after(state, record)
        except OutOfOrder as error:
            reason = str(error)
            raise JournalDamaged(run=path.stem, record=number, reason=reason, path=path) from error
    return state


def _put_away(path: Path) -> None:
    """Move a finished journal to the others, and forget the oldest of them."""
    done = private_folder(path.parent / "done")
    with writing(path):
        path.rename(done / path.name)
        sync_folder(done)
        sync_folder(path.parent)
        for old in sorted(done.glob("*" + _SUFFIX))[:-KEPT]:
            old.unlink(missing_ok=True)


def encode(record: Record) -> bytes:
    """Return a record as one line."""
    text = json.dumps(record, separators=(",", ":")).encode("ascii")
    return b'["%08d","%s",%s]\n' % (len(text), hashlib.sha256(text).hexdigest().encode(), text)


def decode(data: bytes, path: Path) -> tuple[list[Record], int]:
    """Return the records of a journal's bytes, and where the last whole one ends.

    Raises:
        JournalDamaged: a line is not as it was written, and no crash explains it.

    """
    records: list[Record] = []
    start = 0
    while start < len(data):
        line = data[start : data.find(b"\n", start) + 1 or len(data)]
        record = _decode_line(line)
        if record is None or record.get("n") != len(records) + 1:
            if record is None and start + len(line) == len(data) and _torn(line):
                break
            reason = "it is not as it was written"
            number = len(records) + 1
            raise JournalDamaged(run=path.stem, record=number, reason=reason, path=path)
        records.append(record)
        start += len(line)
    return records, start


def _decode_line(line: bytes) -> Record | None:
    """Return the record of a line, with or without its newline; None if it does not hold."""
    text = line.removesuffix(b"\n")[_HEAD:-1]
    guard = b'["%08d","%s",' % (len(text), hashlib.sha256(text).hexdigest().encode())
    if line.removesuffix(b"\n") != guard + text + b"]":
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None


def _torn(line: bytes) -> bool:
    """Tell whether a crash explains this last line: cut short, or with blocks never written."""
    if _NEVER_WRITTEN in line:
        return True
    declared = line[2:10]
    whole = _HEAD + int(declared) + len(_TAIL) if declared.isdigit() else None
    return not line.endswith(b"\n") and (len(line) < _HEAD or (whole or 0) > len(line))
