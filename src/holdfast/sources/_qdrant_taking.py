"""Snapshots on a server that are ours for a while, and are gone afterwards, whatever happens.

Qdrant names snapshots itself: after the collection, the node and the second in which it was asked.
To know ours again after a crash, a mark is set on the server first: an alias of the collection, in
whose name stands which process asks, which node, and when. Once the name of the snapshot is known,
its second takes the place of that time. Whoever finds the mark of a process that is dead deletes
the snapshot of that node and second, and then the mark. (Decision 0011.)

A snapshot that nobody's mark tells of is never touched; nor is one that was there before the mark.
Where a mark from before the answer fits several, none is: then it is said which they are.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from holdfast.errors import ConnectionLost, HoldfastError, ServerFailed
from holdfast.model.artifact import Chunks

from ._qdrant_api import Qdrant, Snapshot, creating_alias, deleting_alias

MARK = "holdfast-snapshot"
ASKED, MADE = "asked", "made"  # before and after the name of the snapshot is known
FORM = re.compile(
    rf"{MARK}\.(?P<owner>[0-9a-f]{{12}}-\d+-\d+)-\d+\.(?P<node>\d+)"
    rf"\.(?P<state>{ASKED}|{MADE})\.(?P<second>\d{{4}}(?:-\d\d){{5}})"
)
SECOND = "%Y-%m-%d-%H-%M-%S"
WINDOW = timedelta(seconds=2)  # in which a server takes up what it is asked
FOREIGN = timedelta(days=1)  # after which a mark of another machine is nobody's any more
ABANDONED = timedelta(hours=6)  # after which a snapshot that never came will not come
GATEWAYS = ("HTTP 502", "HTTP 504")  # what stands between may give up; the server goes on
POLL = 0.25  # seconds between two looks whether a snapshot has come
_numbers = itertools.count(1)
_active: set[str] = set()  # marks of this process whose snapshots are awaited or read
_answered: set[str] = set()  # marks of this process whose snapshots will not come any more


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the name of a mark says."""

    alias: str
    collection: str
    owner: str
    node: int
    state: str
    second: datetime

    @classmethod
    def read(cls, alias: str, collection: str) -> _Mark | None:
        found = FORM.fullmatch(alias)
        if found is None:
            return None
        second = datetime.strptime(found["second"], SECOND).replace(tzinfo=UTC)
        return cls(alias, collection, found["owner"], int(found["node"]), found["state"], second)

    def is_of(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot may be the one that was asked for."""
        known = _made_at(snapshot.name, self.collection, self.node)
        latest = self.second if self.state == MADE else self.second + WINDOW
        return known is not None and self.second <= known <= latest


def is_mark(alias: str) -> bool:
    """Tell whether an alias is a mark of ours."""
    return alias.startswith(f"{MARK}.")


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot of a collection that lies on a node, the n-th of its cluster.

    ``shards`` are the numbers of those that the node has, with commas between.
    """

    qdrant: Qdrant
    collection: str
    snapshot: Snapshot
    node: int
    shards: str

    def open(self) -> AbstractContextManager[Chunks]:
        """Give its bytes."""
        return self.qdrant.download(self.collection, self.snapshot)


@contextmanager
def taken(
    qdrant: Qdrant, collection: str, *, limit: float, number: int = 0
) -> Iterator[Taken | None]:
    """Make a snapshot, which is deleted on leaving; None where there is no such collection.

    ``limit`` is how many seconds it may take, ``number`` the place of the node in its cluster.

    Raises:
        ServerFailed: the server could not make it; its disk may be full.

    """
    if qdrant.collection(collection) is None:
        yield None
        return
    place = qdrant.cluster(collection)
    node = int(place["peer_id"])
    shards = ",".join(str(one["shard_id"]) for one in place["local_shards"])
    second = _free_second(qdrant, collection, node)
    owner = f"{identity()}-{next(_numbers)}"
    marks = [f"{MARK}.{owner}.{node}.{ASKED}.{second.strftime(SECOND)}"]
    snapshot = None
    _active.update(marks)
    try:
        try:
            qdrant.change_aliases([creating_alias(marks[0], collection)])
            snapshot = _made(qdrant, collection, marks[0], limit)
        except ServerFailed as error:
            if not _is_of_gateway(error):
                _answered.update(marks)
            raise
        if snapshot is not None and (made := _made_at(snapshot.name, collection, node)):
            marks.append(f"{MARK}.{owner}.{node}.{MADE}.{made.strftime(SECOND)}")
            _active.update(marks)
            exchange = [deleting_alias(marks[0]), creating_alias(marks[1], collection)]
            qdrant.change_aliases(exchange)
        yield Taken(qdrant, collection, snapshot, number, shards) if snapshot else None
    finally:
        _active.difference_update(marks)
        # Where this fails a mark stays on the server, and a later freeze sees to the rest.
        with suppress(HoldfastError):
            if snapshot is not None:
                qdrant.delete_snapshot(collection, snapshot.name)
            qdrant.change_aliases([deleting_alias(mark) for mark in marks])
            _answered.difference_update(marks)


def _free_second(qdrant: Qdrant, collection: str, node: int) -> datetime:
    """Return the second that it is there, when no snapshot has it yet.

    So whatever is found later with this second, or the next, was made after our mark was set.
    """
    while True:
        now = qdrant.now()
        made = [_made_at(one.name, collection, node) for one in qdrant.snapshots(collection)]
        if all(second is None or second < now for second in made):
            return now
        time.sleep(POLL)


def _made(qdrant: Qdrant, collection: str, mark: str, limit: float) -> Snapshot | None:
    """Make a snapshot, even if something between us and the server loses patience first."""
    ends = time.monotonic() + limit
    started = qdrant.started()
    try:
        return qdrant.create_snapshot(collection)
    except (ConnectionLost, ServerFailed) as error:
        if isinstance(error, ServerFailed) and not _is_of_gateway(error):
            raise
        asked = _Mark.read(mark, collection)
        while asked and time.monotonic() < ends and qdrant.started() == started:
            found = [one for one in qdrant.snapshots(collection) if asked.is_of(one)]
            if len(found) > 1:
                break  # which of them is ours is not known
            if found:  # it appears when it is whole
                return found[0]
            time.sleep(POLL)
        raise


def _is_of_gateway(error: ServerFailed) -> bool:
    return any(status in str(error) for status in GATEWAYS)


def swept(qdrant: Qdrant) -> list[str]:
    """Delete the snapshots that dead processes of ours left; return a line for each left over."""
    lines = []
    marks = [_Mark.read(alias, name) for alias, name in qdrant.aliases().items() if is_mark(alias)]
    now = qdrant.now()
    for mark in filter(None, marks):
        if mark.alias in _active or not _is_dead(mark, now):
            continue
        if mark.node != int(qdrant.cluster(mark.collection)["peer_id"]):
            continue  # another node's: it is swept there
        found = [one for one in qdrant.snapshots(mark.collection) if mark.is_of(one)]
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            lines.append(f"one of these snapshots is left of a backup that died: {names}")
        elif found:
            qdrant.delete_snapshot(mark.collection, found[0].name)
        elif _may_come(mark, qdrant, now):
            continue
        qdrant.change_aliases([deleting_alias(mark.alias)])
        _answered.discard(mark.alias)
    return lines


def _may_come(mark: _Mark, qdrant: Qdrant, now: datetime) -> bool:
    """Tell whether a server may still be making the snapshot of a mark."""
    return (
        mark.state == ASKED
        and mark.alias not in _answered
        and now - mark.second < ABANDONED
        and qdrant.started() < mark.second + WINDOW
    )


def _is_dead(mark: _Mark, now: datetime) -> bool:
    if mark.owner == identity():
        return True  # it is not active any more
    place, process, start = mark.owner.split("-")
    if place == _place():
        return _start_of(int(process)) != int(start)
    return now - mark.second > FOREIGN


def _made_at(name: str, collection: str, node: int) -> datetime | None:
    """Return the second in the name of a snapshot of a node; None if it is named otherwise."""
    stem = name.removeprefix(f"{collection}-{node}-").removesuffix(".snapshot")
    try:
        return datetime.strptime(stem, SECOND).replace(tzinfo=UTC)
    except ValueError:
        return None


# --- who we are ---


def identity() -> str:
    """Return what tells this process from all others: its place, its number and when it began."""
    return f"{_place()}-{os.getpid()}-{_start_of(os.getpid())}"


def is_running(owner: str) -> bool:
    """Tell whether the process of an `identity` runs; of another place that is not known: yes."""
    place, process, start = owner.split("-")
    return place != _place() or _start_of(int(process)) == int(start)


def _place() -> str:
    """Return what stands for this host, and for this container on it."""
    try:
        container = Path("/proc/self/ns/pid").readlink()
    except OSError:
        container = Path()
    return hashlib.sha256(f"{socket.gethostname()} {container}".encode()).hexdigest()[:12]


def _start_of(process: int) -> int:
    """Return when a process began, in ticks since the system did; -1 if it does not run."""
    try:
        status = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        return -1
    fields = status.rpartition(")")[2].split()  # the name before it may hold anything
    ended = fields[0] in {"Z", "X"}
    return -1 if ended else int(fields[19])
