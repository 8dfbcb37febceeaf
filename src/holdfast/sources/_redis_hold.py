"""Making the writers of a server wait for a moment. They are let go by themselves if we die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holdfast.errors import HoldfastError

from ._redis_wire import Access, Said, Wire

_HELD = 5000  # milliseconds that one request lasts
_AGAIN = 1.0  # seconds after which it is made again


class Held:
    """The writers of one server, until they are let go."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, name="hold", daemon=True)
        self._held = self._pause()
        if self._held:
            self._thread.start()

    def _pause(self) -> bool:
        return not isinstance(self._wire.ask("CLIENT", "PAUSE", _HELD, "WRITE"), Said)

    def _hold(self) -> None:
        # A connection that is lost is met by whoever uses the server too, who says so.
        with suppress(HoldfastError):
            while not self._over.wait(_AGAIN):
                self._pause()

    def release(self) -> None:
        """Let them go; doing it again does nothing."""
        self._over.set()
        if self._held:
            self._held = False
            self._thread.join()
            with suppress(HoldfastError):  # nobody is held for longer than the request said
                self._wire.ask("CLIENT", "UNPAUSE")


@contextmanager
def writers_held(access: Access) -> Iterator[Held]:
    """Let no write be answered while the context lasts, or until they are let go.

    Redis 6.0 and servers that forbid it know no such thing: there a write that comes just before
    the switch may be lost if the restore is undone.
    """
    with access.connect() as wire:
        held = Held(wire)
        try:
            yield held
        finally:
            held.release()
