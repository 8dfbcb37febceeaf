"""Encryption and authentication, as restic's design has it in "Keys, Encryption and MAC".

AES-256 in counter mode, then Poly1305-AES over the ciphertext: ``IV || ciphertext || MAC``. The IV
is random and serves as the nonce of both. All functions may be called from several threads; the
interpreter's lock is released while large values are worked on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from holdfast.model.artifact import Chunk

from .damage import DamagedError

IV_SIZE = 16
MAC_SIZE = 16
OVERHEAD = IV_SIZE + MAC_SIZE  # bytes that sealing adds


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """One encryption key and one signing key; 32, 16 and 16 bytes. Never shown, never logged."""

    encrypt: bytes
    sign_k: bytes  # the AES-128 key that a nonce is encrypted with
    sign_r: bytes  # the multiplier of Poly1305; the bits it must not have are masked when used

    def __post_init__(self) -> None:
        """Refuse what restic refuses too: keys of other sizes, and keys that are all zero."""
        sizes = (len(self.encrypt), len(self.sign_k), len(self.sign_r))
        if sizes != (32, 16, 16):
            raise DamagedError("its keys have other sizes than the format's")
        if not (any(self.encrypt) and any(self.sign_k) and any(self.sign_r)):
            raise DamagedError("one of its keys is zero")


def random_key() -> Key:
    """Return new keys from the system's source of randomness."""
    return Key(os.urandom(32), os.urandom(16), os.urandom(16))


def key_of(derived: bytes) -> Key:
    """Return the keys that 64 derived bytes are: encrypt, then k, then r."""
    return Key(derived[:32], derived[32:48], derived[48:64])


def seal(key: Key, plain: Chunk) -> bytes:
    """Return ``plain`` encrypted and authenticated; `OVERHEAD` bytes longer."""
    [sealed] = seal_all(key, [plain])
    return bytes(sealed)


def seal_all(key: Key, plains: Sequence[Chunk]) -> Iterator[memoryview]:
    """Give each of several values sealed, as `seal` would, but faster.

    Large ones are made where they stay: joining their parts takes longer than encrypting does. For
    small ones randomness is asked for once: asking lets go of the interpreter's lock.
    """
    random = os.urandom(IV_SIZE * len(plains))
    for number, plain in enumerate(plains):
        yield _sealed(key, random[number * IV_SIZE : (number + 1) * IV_SIZE], plain)


def _sealed(key: Key, iv: bytes, plain: Chunk) -> memoryview:
    sealed = memoryview(bytearray(len(plain) + OVERHEAD))
    sealed[:IV_SIZE] = iv
    _cipher(key, iv).encryptor().update_into(plain, sealed[IV_SIZE:])
    tag = Poly1305.generate_tag(_one_time(key, iv), sealed[IV_SIZE:-MAC_SIZE])
    sealed[-MAC_SIZE:] = tag
    return sealed.toreadonly()


def unseal(key: Key, sealed: Chunk) -> bytes:
    """Return what was sealed; nothing is decrypted before all of it is authenticated.

    Raises:
        DamagedError: it is too short, or not what was sealed with this key.

    """
    if len(sealed) < OVERHEAD:
        raise DamagedError(f"{len(sealed)} bytes are too few to be encrypted")
    view = memoryview(sealed)
    iv, encrypted, mac = bytes(view[:IV_SIZE]), view[IV_SIZE:-MAC_SIZE], bytes(view[-MAC_SIZE:])
    try:
        Poly1305.verify_tag(_one_time(key, iv), encrypted, mac)
    except InvalidSignature:
        raise DamagedError("it is not what was written: its signature does not match") from None
    return _cipher(key, iv).decryptor().update(encrypted)


def _cipher(key: Key, iv: bytes) -> Cipher[modes.CTR]:
    return Cipher(algorithms.AES(key.encrypt), modes.CTR(iv))


def _one_time(key: Key, nonce: bytes) -> bytes:
    """Return the key of one Poly1305: r, and the nonce encrypted with k."""
    block = Cipher(algorithms.AES(key.sign_k), modes.ECB())  # noqa: S305 - one block, as Poly1305-AES says
    return key.sign_r + block.encryptor().update(nonce)
