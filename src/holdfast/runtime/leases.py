"""Leases: one writing run per stack, also between processes, containers and machines.

A lease is a small file in the state folder, readable by people, and not a row of the catalog: a
restore must be alone even when the catalog is damaged, and the fencing token must go on growing
when the catalog was rebuilt. ``leases/<stack>.held`` tells who holds it; when it is given back the
file becomes ``<stack>.free`` by a rename, which works on a full disk too.

A holder in our own boot and space of process numbers is judged by whether its process lives, and
by nothing else: no clock, however it jumps, takes a lease from it, and its death frees it at once.
Any other holder shows that it lives by touching its file every few seconds. Whoever wants the lease
watches the file for a change, for as long as it takes on its own monotonic clock.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import HoldfastError, LeaseLost, NoSpace, StackLocked
from ..model.names import safe_name
from ..model.runs import Process
from ..ports import Clock
from .files import lock_file, private_folder, replace_file, sync_folder, writing
from .processes import Liveness, liveness, this_process

HEARTBEAT = 10.0  # seconds between two signs of life
EXPIRY = 60.0  # seconds without one, after which a holder we cannot judge is taken for dead
_POLL = 0.5  # seconds between two looks at such a holder

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holding:
    """Who holds a stack, or held it last. ``token`` grows with each holder of the stack."""

    stack: str
    token: int
    verb: str
    run: str
    process: Process
    since: str  # by the holder's clock; only ever shown

    def __str__(self) -> str:
        """Say who that is, as an error does."""
        return f"process {self.process.pid} on {self.process.host} since {self.since}"


class Lease:
    """The right to change a stack, while the context of `Leases.acquire` lasts.

    ``predecessor`` is the run that died holding the stack, if one did. `check` may be called from
    several threads.
    """

    def __init__(self, path: Path, holding: Holding, predecessor: Holding | None) -> None:
        self.stack = holding.stack
        self.run = holding.run
        self.token = holding.token
        self.predecessor = predecessor
        self._path = path
        self._holding = holding

    def check(self) -> None:
        """Raise `LeaseLost` if another run has taken over; call it before what cannot be undone."""
        found = _read(self._path)
        if found != self._holding:
            holder = str(found) if found else "its lease is gone"
            raise LeaseLost(stack=self.stack, holder=holder)


class Leases:
    """The leases of a state folder."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        heartbeat: float = HEARTBEAT,
        expiry: float = EXPIRY,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Look after ``folder / "leases"``; nothing is touched before a lease is wanted."""
        self._folder = folder
        self._clock = clock
        self._heartbeat = heartbeat
        self._expiry = expiry
        self._pause = pause

    def holder(self, stack: str) -> Holding | None:
        """Return who holds a stack, for showing; None also if that process is dead."""
        holding = _read(self._path(stack, "held"))
        if holding is None or liveness(holding.process) is Liveness.DEAD:
            return None
        return holding

    @contextmanager
    def acquire(self, stack: str, verb: str, run: str) -> Iterator[Lease]:
        """Hold a stack; given back on every way out.

        A dead holder is taken over at once. For one of another machine or container this waits
        until its next sign of life, or until there was none for long enough.

        Raises:
            StackLocked: another run holds it and lives.
            StateUnwritable: the state folder does not allow leases.

        """
        private_folder(private_folder(self._folder) / "leases")
        lease = self._take(stack, verb, run)
        try:
            with _beating(self._path(stack, "held"), lease, self._heartbeat):
                yield lease
        except BaseException as error:
            try:
                self._give_back(lease)
            except HoldfastError as another:
                error.add_note(f"the lease could not be given back: {another}")
            raise
        self._give_back(lease)

    def _take(self, stack: str, verb: str, run: str) -> Lease:
        held = self._path(stack, "held")
        watch = _Watch(self._clock, self._expiry)
        while True:
            with lock_file(self._path(stack, "lock")):
                found = _read(held)
                if not held.exists() or self._may_take(held, found, watch):
                    return self._write(stack, verb, run, found)
            self._pause(_POLL)

    def _may_take(self, held: Path, found: Holding | None, watch: _Watch) -> bool:
        """Judge a lease that is held: True to take it over, False to watch it for longer."""
        state = Liveness.UNKNOWN if found is None else liveness(found.process)
        if state is Liveness.DEAD:
            return True
        if state is Liveness.ALIVE or watch.saw_life(held):
            verb, run = (found.verb, found.run) if found else ("", "")
            raise StackLocked(verb=verb, run=run, holder=str(found or "an unreadable lease"))
        return watch.expired

    def _write(self, stack: str, verb: str, run: str, predecessor: Holding | None) -> Lease:
        held, free = self._path(stack, "held"), self._path(stack, "free")
        with writing(held):
            if predecessor is not None:
                held.rename(free)
        # The free lease is the one before the held one: if that cannot be read, skip its token.
        unreadable = held.exists()
        last = _read(free)
        token = (last.token if last else 0) + (2 if unreadable else 1)
        since = self._clock.now().isoformat(timespec="seconds")
        holding = Holding(stack, token, verb, run, this_process(), since)
        data = json.dumps(asdict(holding), indent=1).encode() + b"\n"
        try:
            replace_file(held, data)
        except NoSpace:
            if last is None:
                raise
            _reuse(free, held, data)
        return Lease(held, holding, predecessor)

    def _give_back(self, lease: Lease) -> None:
        with lock_file(self._path(lease.stack, "lock")):
            try:
                lease.check()
            except LeaseLost as error:
                _log.warning("%s", error)  # nothing is ours any more
                return
            held = self._path(lease.stack, "held")
            with writing(held):
                held.rename(self._path(lease.stack, "free"))

    def _path(self, stack: str, suffix: str) -> Path:
        return self._folder / "leases" / f"{safe_name(stack, 'stack')}.{suffix}"


class _Watch:
    """Looks for signs of life of one holder, by our own monotonic clock."""

    def __init__(self, clock: Clock, expiry: float) -> None:
        self._clock = clock
        self._expiry = expiry
        self._sign: tuple[int, int] | None = None
        self._since = 0.0

    def saw_life(self, held: Path) -> bool:
        status = held.stat()
        sign = (status.st_ino, status.st_mtime_ns)
        if self._sign is None:
            _log.warning("%s: waiting up to %g s for a sign of life", held, self._expiry)
            self._sign, self._since = sign, self._clock.monotonic()
        return sign != self._sign

    @property
    def expired(self) -> bool:
        return self._clock.monotonic() - self._since >= self._expiry


@contextmanager
def _beating(held: Path, lease: Lease, seconds: float) -> Iterator[None]:
    """Give signs of life from a thread of its own, until the context is left."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(seconds):
            try:
                lease.check()
                _touch(held)
            except LeaseLost as error:
                _log.warning("%s", error)  # `check` stops the run where it matters
                return
            except (HoldfastError, OSError) as error:
                _log.warning("%s: no sign of life could be given: %s", held, error)

    thread = threading.Thread(target=beat, name=f"lease {lease.stack}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _touch(path: Path) -> None:
    """Change a file's time, also where the clock stands still or was set back."""
    now = max(time.time_ns(), path.stat().st_mtime_ns + 1)
    os.utime(path, ns=(now, now))


def _reuse(free: Path, held: Path, data: bytes) -> None:
    """Write a lease into the space of the one before: on a full disk, pruning needs a lease too."""
    with writing(held):
        with free.open("r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        free.rename(held)
        sync_folder(held.parent)


def _read(path: Path) -> Holding | None:
    """Return what a lease file says; None if there is none, or it cannot be understood."""
    try:
        with writing(path):
            data = _bytes_of(path)
        document = json.loads(data or b"null")
        return document and Holding(**{**document, "process": Process(**document["process"])})
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("%s cannot be understood: %s", path, error)
        return None


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
