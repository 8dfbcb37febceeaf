"""Files that are not packs: index, snapshots, locks and the config ("Unpacked Data Format").

Each is one JSON document. In version 2 a byte before it says how it is encoded: 2 is zstd; ``{`` or
``[`` are the document itself, not compressed, as version 1 wrote it and as the config is kept. The
file's name is the SHA-256 of what is stored.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from holdfast.model.artifact import Chunk

from .compression import compress, expand
from .crypto import Key, seal, unseal
from .damage import DamagedError

_ZSTD = b"\x02"
_PLAIN = (b"{", b"[")


def encode(key: Key, document: bytes, *, compressed: bool = True) -> tuple[str, bytes]:
    """Return the name and the bytes of a file that holds a JSON document."""
    sealed = seal(key, _ZSTD + compress(document) if compressed else document)
    return name_of(sealed), sealed


def name_of(stored: Chunk) -> str:
    """Return the name that a file of these bytes has."""
    return sha256(stored).hexdigest()


def decode(key: Key, stored: Chunk, name: str | None, limit: int) -> bytes:
    """Return the document of a file; ``name`` is what it was stored under, where that matters.

    Raises:
        DamagedError: its bytes are not those that its name says, were not sealed with this key,
            cannot be unpacked, or unpack to more than ``limit`` bytes.

    """
    if name is not None and name_of(stored) != name:
        raise DamagedError("its bytes are not those it was named for")
    plain = unseal(key, stored)
    if plain.startswith(_PLAIN):
        return plain
    if not plain.startswith(_ZSTD):
        raise DamagedError("its encoding is not known: a newer format?")
    return expand(memoryview(plain)[1:], limit)


def to_json(value: object) -> bytes:
    """Return a value as the compact JSON that Go's encoder writes too."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def from_json(document: Chunk) -> dict[str, Any]:
    """Return the object that a document holds.

    Raises:
        DamagedError: it is not JSON, nested too deeply, or not an object.

    """
    try:
        value = json.loads(bytes(document))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedError("it is not a JSON object")
    return value
