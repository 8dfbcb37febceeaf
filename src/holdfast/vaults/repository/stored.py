"""What lies in a store, read with bounds: nothing there is believed to be of a decent size."""

from __future__ import annotations

import re

from holdfast.ports import Store

from .damage import DamagedError

_ID = re.compile(r"[0-9a-f]{64}\Z")


def read_bounded(store: Store, name: str, limit: int) -> bytes:
    """Return a value whole, unless it is larger than anything of its kind.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it has more than ``limit`` bytes.

    """
    found = bytearray()
    with store.get(name) as chunks:
        for chunk in chunks:
            found += chunk
            if len(found) > limit:
                raise DamagedError(f"it has more than {limit} bytes")
    return bytes(found)


def ids_in(store: Store, folder: str) -> list[str]:
    """Return the names of a folder's files that are ids, sorted; other things may lie there too."""
    names = (name.removeprefix(f"{folder}/") for name in store.names(folder))
    return sorted(filter(_ID.match, names))
