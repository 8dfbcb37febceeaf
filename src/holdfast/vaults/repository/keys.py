"""Key files: the repository's keys, sealed with what scrypt makes of a password.

There may be several, one for each password; each holds the same master key ("Keys, Encryption and
MAC"). Removing one does not take the master key from whoever had opened it: only copying everything
into a new repository does.
"""

from __future__ import annotations

import os
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import scrypt
from typing import Any

from .crypto import Key, key_of, seal, unseal
from .damage import DamagedError
from .unpacked import from_json, name_of, to_json

FOLDER = "keys"
LARGEST = 64 << 10  # bytes of a key file
MOST_TRIED = 20  # as restic: a folder full of keys must not cost minutes

_SALT_SIZE = 64
_DERIVED_SIZE = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """What deriving a key costs: 128·n·r bytes of memory, and time that grows with n·r·p."""

    n: int
    r: int
    p: int


# 32 MiB and a fifth of a second: OWASP's advice for scrypt. restic aims at half a second.
OURS = Cost(1 << 15, 8, 3)
_MOST_MEMORY = 512 << 20
_MOST_TIME = 1 << 24  # n·r·p: some twenty times ours


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What a key file says to everybody."""

    name: str
    created: str
    username: str
    hostname: str


def make_key_file(password: str, master: Key, now: datetime, username: str) -> tuple[str, bytes]:
    """Return the name and the bytes of a file that gives the master key for a password."""
    salt = os.urandom(_SALT_SIZE)
    plain = {
        "mac": {"k": _to_base64(master.sign_k), "r": _to_base64(master.sign_r)},
        "encrypt": _to_base64(master.encrypt),
    }
    document = {
        "created": now.isoformat(),
        "username": username,
        "hostname": socket.gethostname(),
        "kdf": "scrypt",
        "N": OURS.n,
        "r": OURS.r,
        "p": OURS.p,
        "salt": _to_base64(salt),
        "data": _to_base64(seal(_derive(password, salt, OURS), to_json(plain))),
    }
    stored = to_json(document)
    return name_of(stored), stored


def describe(name: str, stored: bytes) -> KeyFile:
    """Return what a key file says without a password.

    Raises:
        DamagedError: it is not a key file, or not the one that was stored under this name.

    """
    found = _document(name, stored)
    return KeyFile(name, *(str(found.get(k, "")) for k in ("created", "username", "hostname")))


def open_key_file(name: str, stored: bytes, password: str) -> Key | None:
    """Return the master key, or nothing if the password is not this file's.

    Raises:
        DamagedError: it is not a key file, not the one that was stored under this name, or asks for
            more memory or time than a key is worth.

    """
    found = _document(name, stored)
    if found.get("kdf") != "scrypt":
        raise DamagedError("its key is derived by other means than scrypt")
    salt, sealed = _from_base64(found.get("salt")), _from_base64(found.get("data"))
    if len(salt) != _SALT_SIZE:
        raise DamagedError(f"its salt has {len(salt)} bytes")
    derived = _derive(password, salt, _cost(found))
    try:
        plain = unseal(derived, sealed)
    except DamagedError:
        return None  # the file is whole, by its name: so it is the password
    return _master(plain)


def opened_by(
    password: str, names: Iterable[str], read: Callable[[str], bytes]
) -> Iterator[tuple[str, Key]]:
    """Give the keys that a password opens, with their names; at most `MOST_TRIED` are tried.

    Raises:
        DamagedError: none opened, and one of those that were tried is damaged.

    """
    damage, opened = None, False
    for name in sorted(names)[:MOST_TRIED]:
        try:
            key = open_key_file(name, read(name), password)
        except FileNotFoundError:  # it was removed just now
            continue
        except DamagedError as error:
            damage = DamagedError(f"{name}: {error}")
            continue
        if key is not None:
            opened = True
            yield name, key
    if damage and not opened:
        raise damage


def _document(name: str, stored: bytes) -> dict[str, Any]:
    if name_of(stored) != name:
        raise DamagedError("its bytes are not those it was named for")
    return from_json(stored)


def _cost(found: dict[str, Any]) -> Cost:
    n, r, p = (found.get(letter) for letter in "Nrp")
    if not (isinstance(n, int) and isinstance(r, int) and isinstance(p, int)):
        raise DamagedError("it does not say what scrypt needs")
    if n <= 1 or n.bit_count() != 1 or r < 1 or p < 1:
        raise DamagedError(f"scrypt cannot take N={n}, r={r}, p={p}")
    if 128 * n * r > _MOST_MEMORY or n * r * p > _MOST_TIME:
        raise DamagedError(f"scrypt with N={n}, r={r}, p={p} would take too much")
    return Cost(n, r, p)


def _derive(password: str, salt: bytes, cost: Cost) -> Key:
    secret = password.encode("utf-8", "surrogateescape")
    derived = scrypt(
        secret,
        salt=salt,
        n=cost.n,
        r=cost.r,
        p=cost.p,
        maxmem=2 * _MOST_MEMORY,
        dklen=_DERIVED_SIZE,
    )
    return key_of(derived)


def _master(plain: bytes) -> Key:
    found = from_json(plain)
    mac = found.get("mac")
    if not isinstance(mac, dict):
        raise DamagedError("it holds no master key")
    return Key(*map(_from_base64, (found.get("encrypt"), mac.get("k"), mac.get("r"))))


def _to_base64(data: bytes) -> str:
    return b64encode(data).decode()


def _from_base64(text: object) -> bytes:
    try:
        return b64decode(str(text), validate=True)
    except ValueError as error:
        raise DamagedError("it holds what is not base64") from error
