"""Locks of a repository, as restic's ("Locks"): files that say who works on it.

Many may read and add at once, under shared locks; what removes needs the exclusive one, and finds
no other. A lock is a file that its holder replaces every five minutes by a younger one.

restic refuses while there is any lock in the way, however old, until somebody runs its ``unlock``.
We pass over a lock of which it is certain that nobody holds it any more, by evidence that our own
locks carry: its process has ended; or it was taken on this machine, in another container or before
the last start, and was not replaced for half an hour by the clock that is ours too. By the clock of
another machine, which may be off by a day, nobody is ever taken for dead; `unlock` is for that.
"""

from __future__ import annotations

import getpass
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from holdfast.errors import HoldfastError, RepositoryLocked, RepositoryLockLost

from . import holders
from .damage import DamagedError, damage_in
from .gotext import SECOND, time_of, time_text
from .holders import Holder
from .repository import Repository
from .unpacked import from_json, to_json

FOLDER = "locks"
LARGEST = 64 << 10
STALE = 30 * 60.0  # seconds after which restic takes a lock for stale
REFRESHED = 5 * 60.0  # seconds between two replacements
LOST = STALE - 1.5 * REFRESHED  # seconds without one after which its holder must stop
LATE = 0.2  # seconds that a listing of a distant store may lag behind; restic waits as long
_ASKED_AGAIN = 1.0  # seconds between two looks, while it waits for others to end


@dataclass(frozen=True, slots=True)
class Lock:
    """What a lock file says."""

    name: str
    time: int  # nanoseconds since 1970
    exclusive: bool
    username: str
    holder: Holder

    def __str__(self) -> str:
        """Say who holds it, since when."""
        who = f"process {self.holder.pid} of {self.username or 'somebody'} on {self.holder.host}"
        return f"{who} since {time_text(self.time // SECOND * SECOND)}{self._how}"

    @property
    def _how(self) -> str:
        return ", exclusively" if self.exclusive else ""


@dataclass(frozen=True, slots=True)
class Times:
    """Where time comes from, so that tests need not wait for it."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    passed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)  # also asleep
    sleep: Callable[[float], None] = time.sleep
    refreshed: float = REFRESHED


class HeldLock:
    """A lock of this process, replaced by younger ones in a thread of its own.

    ``lost`` is called, from that thread, when the lock is gone or could not be replaced in time:
    others may take what we hold from then on. `check` raises after that.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        exclusive: bool,
        lost: Callable[[RepositoryLockLost], None],
        times: Times,
    ) -> None:
        self._repository = repository
        self._exclusive = exclusive
        self._tell = lost
        self._times = times
        self._ended = threading.Event()
        self._error: RepositoryLockLost | None = None
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._since = times.passed()
        self.name = _store(repository, exclusive=exclusive, now=times.now())

    def start(self) -> None:
        """Begin to replace it."""
        self._thread.start()

    def check(self) -> None:
        """Raise `RepositoryLockLost` if the lock is not ours any more."""
        if self._error is None and self._times.passed() - self._since > LOST:
            self._lose(f"it could not be renewed for {LOST / 60:.0f} minutes")
        if self._error is not None:
            raise self._error

    def confirm(self) -> None:
        """Raise `RepositoryLockLost` if the lock is not ours any more, by a look at the store.

        For what others could not bear if they had come meanwhile: somebody may remove a lock that
        their clock takes for old, and `check` learns of that minutes later.
        """
        self.check()
        if not (self._is_there(self.name) or self._is_there(self.name)):  # it may be replaced now
            self._lose("somebody removed it")
            self.check()

    def _is_there(self, name: str) -> bool:
        try:
            self._repository.store.part(f"{FOLDER}/{name}", 0, 1)
        except FileNotFoundError:
            return False
        return True

    def end(self) -> None:
        """Give the lock up."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        _delete(self._repository, self.name)

    def _keep(self) -> None:
        while not self._ended.wait(self._times.refreshed):
            try:
                self._replace()
                self.check()
            except RepositoryLockLost:
                return
            except HoldfastError:
                continue  # the store is away: in time it is back, or the lock is lost

    def _replace(self) -> None:
        """Store a younger lock, then delete the old one: there is one at any time."""
        self.check()
        if self.name not in self._repository.names(FOLDER):
            self._lose("somebody removed it")
            self.check()
        begun = self._times.passed()
        younger = _store(self._repository, exclusive=self._exclusive, now=self._times.now())
        older, self.name = self.name, younger
        self._since = begun
        _delete(self._repository, older)

    def _lose(self, reason: str) -> None:
        self._error = RepositoryLockLost(where=self._repository.where, reason=reason)
        self._tell(self._error)


def _ignore(_lost: RepositoryLockLost) -> None:
    """Hear that a lock is lost, and leave it to `HeldLock.check` to say so."""


@contextmanager
def locked(
    repository: Repository,
    *,
    exclusive: bool = False,
    patience: float = 0.0,
    lost: Callable[[RepositoryLockLost], None] = _ignore,
    times: Times = Times(),
) -> Iterator[HeldLock]:
    """Hold a lock; wait ``patience`` seconds at most for others that are in the way.

    Raises:
        RepositoryLocked: others are still in the way.
        RepositoryDamaged: a lock cannot be read: nobody knows what it protects.

    """
    held = _take(repository, exclusive=exclusive, patience=patience, lost=lost, times=times)
    try:
        held.start()
        yield held
    except BaseException:
        with suppress(HoldfastError):  # not what went wrong first; others find that we are gone
            held.end()
        raise
    held.end()


def _take(
    repository: Repository,
    *,
    exclusive: bool,
    patience: float,
    lost: Callable[[RepositoryLockLost], None],
    times: Times,
) -> HeldLock:
    until = times.passed() + patience
    while True:
        try:
            _refuse_if_locked(repository, exclusive=exclusive, own="", now=times.now())
            held = HeldLock(repository, exclusive=exclusive, lost=lost, times=times)
            try:
                if repository.store.path(FOLDER) is None:
                    times.sleep(LATE)
                _refuse_if_locked(repository, exclusive=exclusive, own=held.name, now=times.now())
            except BaseException:
                held.end()
                raise
        except RepositoryLocked:
            if times.passed() >= until:
                raise
            times.sleep(_ASKED_AGAIN)
        else:
            return held


def _refuse_if_locked(repository: Repository, *, exclusive: bool, own: str, now: datetime) -> None:
    for lock in locks(repository, own):
        if not (exclusive or lock.exclusive):
            continue
        if is_dead(lock, now):
            _delete(repository, lock.name)
            continue
        raise RepositoryLocked(where=repository.where, holder=lock)


def is_dead(lock: Lock, now: datetime) -> bool:
    """Tell whether it is certain that nobody holds a lock any more."""
    if holders.is_known(lock.holder):
        return holders.is_over(lock.holder)
    return holders.is_of_this_machine(lock.holder) and _age(lock, now) > STALE


def is_stale(lock: Lock, now: datetime) -> bool:
    """Tell whether restic takes a lock for stale: old, or of a process that this host lacks.

    Never one of a process that is known to live: the clock was set since it wrote the time.
    """
    if holders.is_known(lock.holder):
        return holders.is_over(lock.holder)
    if is_dead(lock, now) or _age(lock, now) > STALE:
        return True
    on_this_host = lock.holder.host == holders.this_holder().host
    return on_this_host and holders.number_is_free(lock.holder)


def unlock(repository: Repository, now: datetime, *, everything: bool = False) -> list[str]:
    """Remove stale locks, or all of them; returns what each said.

    With ``everything`` also those that cannot be read. Whoever asks for that has made sure that
    nobody works on the repository.
    """
    removed = []
    for name in repository.names(FOLDER):
        try:
            lock = _load(repository, name)
        except FileNotFoundError:
            continue
        except HoldfastError as error:
            if not everything:
                raise
            _delete(repository, name)
            removed.append(str(error))
            continue
        if everything or is_stale(lock, now):
            _delete(repository, name)
            removed.append(str(lock))
    return removed


def remove_dead(repository: Repository, now: datetime) -> list[Lock]:
    """Remove every lock of which it is certain that nobody holds it; returns them."""
    dead = [lock for lock in locks(repository) if is_dead(lock, now)]
    for lock in dead:
        _delete(repository, lock.name)
    return dead


def locks(repository: Repository, own: str = "") -> Iterator[Lock]:
    """Give every lock there is but our ``own``.

    One that is gone before it was read may have been replaced by a younger one, which is looked for
    then: no live lock is missed.

    Raises:
        RepositoryDamaged: one cannot be read.

    """
    seen = {own}
    again = True
    while again:
        again = False
        for name in set(_names(repository)) - seen:
            seen.add(name)
            try:
                yield _load(repository, name)
            except FileNotFoundError:
                again = True


def _names(repository: Repository) -> list[str]:
    """Return the names of locks; an empty file is what a writer left that died at once."""
    return [
        name.removeprefix(f"{FOLDER}/") for name, size in repository.store.sizes(FOLDER) if size
    ]


def _load(repository: Repository, name: str) -> Lock:
    document = repository.load(FOLDER, name, LARGEST)
    with damage_in(repository.where, f"{FOLDER}/{name}"):
        return decode_lock(document, name)


def decode_lock(document: bytes, name: str) -> Lock:
    """Return what a lock file says.

    Raises:
        DamagedError: it is not a lock.

    """
    found = from_json(document)
    host, username, pid = (found.get(field) for field in ("hostname", "username", "pid"))
    exclusive = found.get("exclusive")
    if not (isinstance(host, str) and isinstance(pid, int) and isinstance(exclusive, bool)):
        raise DamagedError("it does not say whose lock it is")
    holder = holders.holder_of(host, pid, found.get("holdfast"))
    return Lock(name, time_of(found.get("time")), exclusive, str(username or ""), holder)


def encode_lock(*, exclusive: bool, now: datetime) -> bytes:
    """Return the document of a lock of this process."""
    holder = holders.this_holder()
    nanoseconds = int(now.timestamp()) * SECOND + now.microsecond * 1000
    return to_json(
        {
            "time": time_text(nanoseconds),
            "exclusive": exclusive,
            "hostname": holder.host,
            "username": _username(),
            "pid": holder.pid,
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "holdfast": holder.evidence(),
        }
    )


def _username() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return str(os.geteuid())


def _age(lock: Lock, now: datetime) -> float:
    return now.timestamp() - lock.time / SECOND


def _store(repository: Repository, *, exclusive: bool, now: datetime) -> str:
    return repository.save(FOLDER, encode_lock(exclusive=exclusive, now=now))


def _delete(repository: Repository, name: str) -> None:
    repository.store.delete(f"{FOLDER}/{name}")
