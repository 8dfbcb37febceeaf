"""The repository's config file: its format's version, its id, and restic's polynomial.

The polynomial decides where restic cuts files. We cut by other means, but restic refuses a config
whose polynomial is not irreducible, and appends to our repositories with it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from .crypto import Key
from .damage import DamagedError
from .unpacked import decode, encode, from_json, to_json

NAME = "config"
VERSION = 2
READABLE = (1, 2)  # of version 1 everything is read; what we add would be refused by it
LARGEST = 1 << 20

_DEGREE = 53
_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Config:
    """What is fixed when a repository is made."""

    version: int
    id: str  # 32 random bytes in hexadecimal
    polynomial: int  # over GF(2), a bit for each power


def new_config() -> Config:
    """Return the config of a new repository."""
    return Config(VERSION, os.urandom(32).hex(), _random_polynomial())


def encode_config(key: Key, config: Config) -> bytes:
    """Return the bytes of the file. It is never compressed: programs of version 1 must read it."""
    document = {
        "version": config.version,
        "id": config.id,
        "chunker_polynomial": f"{config.polynomial:x}",
    }
    return encode(key, to_json(document), compressed=False)[1]


def decode_config(key: Key, stored: bytes) -> Config:
    """Return the config that a file holds, of whatever version.

    Raises:
        DamagedError: it is not a config that was written with this key.

    """
    found = from_json(decode(key, stored, None, LARGEST))
    version, id_, polynomial = (found.get(k) for k in ("version", "id", "chunker_polynomial"))
    if not isinstance(version, int) or not isinstance(id_, str) or not _ID.match(id_):
        raise DamagedError("it holds no version and id of a repository")
    try:
        return Config(version, id_, int(str(polynomial), 16))
    except ValueError as error:
        raise DamagedError("it holds no polynomial") from error


def _random_polynomial() -> int:
    """Return a random irreducible polynomial; one in some thirty tries is one."""
    while True:
        candidate = 1 << _DEGREE | int.from_bytes(os.urandom(8)) % (1 << _DEGREE) | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Tell whether a polynomial over GF(2) has no factor, by Ben-Or's test.

    A factor of degree n divides x^(2^n) - x; so none may be common up to half the degree.
    """
    power = 2  # the polynomial x
    for _ in range((polynomial.bit_length() - 1) // 2):
        power = _remainder(_square(power), polynomial)
        if _common(polynomial, power ^ 2) != 1:
            return False
    return True


def _square(polynomial: int) -> int:
    """Square over GF(2): the bits spread out, because mixed terms cancel each other."""
    return int(f"{polynomial:b}", 4)


def _remainder(dividend: int, divisor: int) -> int:
    size = divisor.bit_length()
    while (more := dividend.bit_length() - size) >= 0:
        dividend ^= divisor << more
    return dividend


def _common(one: int, other: int) -> int:
    """Return the greatest common divisor."""
    while other:
        one, other = other, _remainder(one, other)
    return one
