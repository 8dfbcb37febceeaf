"""Encryption and authentication, as restic's design has it in "Keys, Encryption and MAC".

AES-256 in counter mode, then Poly1305-AES over the ciphertext: ``IV || ciphertext || MAC``. The IV
is random and serves as the nonce of both. All functions may be called from several threads; the
interpreter's lock is released while large values are worked on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
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
    ciphers = _ciphers(key)
    for number, plain in enumerate(plains):
        yield _sealed(ciphers, random[number * IV_SIZE : (number + 1) * IV_SIZE], plain)


def _sealed(ciphers: _Ciphers, iv: bytes, plain: Chunk) -> memoryview:
    sealed = memoryview(bytearray(len(plain) + OVERHEAD))
    sealed[:IV_SIZE] = iv
    ciphers.stream(iv).update_into(plain, sealed[IV_SIZE:])
    tag = Poly1305.generate_tag(ciphers.one_time(iv), sealed[IV_SIZE:-MAC_SIZE])
    sealed[-MAC_SIZE:] = tag
    return sealed.toreadonly()


def unseal(key: Key, sealed: Chunk) -> bytes:
    """Return what was sealed; nothing is decrypted before all of it is authenticated.

    Raises:
        DamagedError: it is too short, or not what was sealed with this key.

    """
    stream, encrypted = _authenticated(key, sealed)
    return stream.update(encrypted)


def unseal_into(key: Key, sealed: Chunk, room: memoryview) -> None:
    """Put what was sealed into memory, which is `OVERHEAD` bytes less; raises as `unseal`."""
    stream, encrypted = _authenticated(key, sealed)
    stream.update_into(encrypted, room)


def _authenticated(key: Key, sealed: Chunk) -> tuple[CipherContext, memoryview]:
    """Return what decrypts a value that was sealed with this key, and its ciphertext."""
    if len(sealed) < OVERHEAD:
        raise DamagedError(f"{len(sealed)} bytes are too few to be encrypted")
    view = memoryview(sealed)
    iv, encrypted, mac = bytes(view[:IV_SIZE]), view[IV_SIZE:-MAC_SIZE], bytes(view[-MAC_SIZE:])
    try:
        ciphers = _ciphers(key)
        Poly1305.verify_tag(ciphers.one_time(iv), encrypted, mac)
    except InvalidSignature:
        raise DamagedError("it is not what was written: its signature does not match") from None
    return ciphers.stream(iv), encrypted


class _Ciphers:
    """The ciphers of one key, for one thread: to make them anew takes longer than a small value."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self._stream = Cipher(algorithms.AES(key.encrypt), modes.CTR(bytes(IV_SIZE))).encryptor()
        # One block, as Poly1305-AES says.
        self._block = Cipher(algorithms.AES(key.sign_k), modes.ECB()).encryptor()  # noqa: S305

    def stream(self, iv: bytes) -> CipherContext:
        """Return what encrypts, or decrypts, from this IV on; good until the next is asked for."""
        self._stream.reset_nonce(iv)
        return self._stream

    def one_time(self, nonce: bytes) -> bytes:
        """Return the key of one Poly1305: r, and the nonce encrypted with k."""
        return self.key.sign_r + self._block.update(nonce)


_of_thread = threading.local()


def _ciphers(key: Key) -> _Ciphers:
    found: _Ciphers | None = getattr(_of_thread, "ciphers", None)
    if found is None or found.key is not key:
        found = _of_thread.ciphers = _Ciphers(key)
    return found
