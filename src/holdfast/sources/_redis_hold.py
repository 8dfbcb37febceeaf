"""Making the writers of a server wait for a moment. They are let go by themselves if we die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from holdfast.errors import HoldfastError

from ._redis_wire import Access, Said

_HELD = 5000  # milliseconds that one request lasts
_AGAIN = 1.0  # seconds after which it is made again


@contextmanager
def writers_held(access: Access) -> Iterator[None]:
    """Let no write be answered while the context lasts.

    Redis 6.0 and servers that forbid it know no such thing: there a write that comes just before
    the switch may be lost if the restore is undone.
    """
    with access.connect() as wire:
        held = not isinstance(wire.ask("CLIENT", "PAUSE", _HELD, "WRITE"), Said)
        over = threading.Event()

        def hold() -> None:
            while not over.wait(_AGAIN):
                try:
                    wire.ask("CLIENT", "PAUSE", _HELD, "WRITE")
                except HoldfastError:  # whoever uses the server meets it too, and says so
                    return

        thread = threading.Thread(target=hold, name="hold", daemon=True)
        if held:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if held:
                thread.join()
                with suppress(HoldfastError):  # nobody is held for longer than the request said
                    wire.ask("CLIENT", "UNPAUSE")
