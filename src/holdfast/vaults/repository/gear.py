"""The gear hash: one window of bytes searched for a boundary, by three programs that agree.

The hash is FastCDC's as the package `fastcdc` computes it: from 0, for each byte, ``hash =
(hash >> 1) + GEAR[byte]``; a byte ends a chunk where the low 19 bits of the hash are zero. The
first 64 bytes of a window are not hashed, because the package skips as many at least, and its last
byte ends nothing, because the package does not tell that from finding nothing.

Boundaries decide what is found again in older backups, never what is stored: a program that
disagreed would cost room, not data. So the compiled one is tried on a sample before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import shake_128
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WINDOW = 64 << 10  # bytes; larger ones leave the processor's nearest cache, and more is in vain

Search = Callable[[bytes], int]  # a window to the length up to its first boundary; all if none

_SKIPPED = 64
_BITS = 19
_MASK = (1 << _BITS) - 1
_TOP = (1 << 32) - 1  # no hash is larger
_SPAN = 32  # bytes after which a byte is shifted out of the hash, but for the carry
_ERROR = 7  # what `vectorized` may miss of a hash
_MOST_TRIED = 200  # places in a window, of which a random one has one; periodic bytes may have all
_SAMPLE, _SAMPLE_BOUNDARY = b"holdfast 0", 55_806

# FastCDC's table, in hexadecimal, 31 bits for each byte value (github.com/iscc/fastcdc-py, MIT).
# It is written down because boundaries must not move where the package is missing, or changes.
_TABLE = bytes.fromhex("""
    5c95c078224089892d48a21412842087530f8afb474536b92963b4f144cb738b4ea7403d4d606b6e
    074ec5d33af39d18726003ca37a62a7451a2f58e7506358e5d4ab1284d4ae17b41e85924470c36f7
    4741cbe101bb7f30617c1de32b0c3a1f50c48f7321a82d376095ace0419167a03caf49b040cea62d
    66bc1c66545e1dad2bfa77cd6e85da245fb0bdc5652cfc293a0ae1ab2837e0f36387b70e13176012
    4362c2bb66d8f4b137fce8342c9cd38621144296627268a8650df5372805d5793b21ebbd7357ed34
    3f58b5837150ddca7362225e620a60702c5ef5297b522466768b78c04b54e51e75fa07e506a35fc6
    30b710241c8626e1296ad57828d7be2e1490a05a7cee43bd698b56e309dc01264ed6df6e02c1bfc7
    2a59ad5329c0e4347d6c5278507940a75ef6ba9368b6af1e46537276611bc766155c587d301ba847
    2cc9dda70a438e2c0a69d514744c72d34f326b9b7ef342864a0ef8a76ae06ebe669c537212402dcb
    5feae99d76c7f4a76abdb79c0dfaa03820e2282c730ed48b069dac2f168ecf3e2610e61f2c512c8e
    15fb8c065e62bc76695551350adb864c4268f914349ab3aa20edfdb25172798137b4b3d85dd17522
    6b2cbfe45c47cf9f30fa1ccd23dedb5613d1f50a64eddee70820b0f746e073081e2d1dfd17b06c32
    250036d8284dbf3468292ee0362ec87c087cb1eb76b46720104130db71966387482dc43f2388ef25
    524144e144bd834e448e7da33fa6eaf93cda215c3a500cf3395cb4325195129f43945f8751862ca4
    56ea8ff1201034dc4d328ff57d73a9096234d37964cfbf9c36f6589a0a2ce98a5fe4d97103bc15c5
    44021d3316c1932b375036141acaf69d3f03b77949e61a031f52d7ea1c6ddd5c062218ce07e7a11a
    1905757a7ce00a5349f44f294bcc70b539feea555242cee83ce56b8500b8167246beeccc3ca0ad56
    2396cee878547f406b08089b66a56751781e7e461e2cf8563bc13591494a4202520494d72d87459a
    757555b642284cc11f47850775c95dff35ff8dd74e4757ed2e11f88c5e1b5048420e6699226b0695
    4d1679b45a22646f161d1131125c68d91313e32e4aa8572421dc7ec14ffa29fe729683821ca8eef3
    3f3b1c2839c2fb6c6d76493f7a22a62e789b1c2a16e0cb537deceeeb0dc7e1c65c75bf3d52218333
    106de4d67dc6442265590ff42c02ec3064a9ac6759cab2e94a21d2f30f616e5723b54ee802730aaa
    2f3c634d7117fc6c01ac6f055a9ed20c158c4e2a42b699f00c7c14b302bd964115ad56fc1c722f60
    7da1af9123e0dbcb0e93e12b64b2791d440d2476588ea8dd4665a6587446c4181877a7745626407e
    7f63bd4632d2dbd83c790f4a772b72396f8b2826677ff6090dc82c1123ffe3542eac53a616139e09
    0afd0dbc2a4d423756a368c7234325e42dce918732e8ea7e
""")
GEAR = [int.from_bytes(_TABLE[at : at + 4]) for at in range(0, len(_TABLE), 4)]


@cache
def fastest() -> tuple[Search, str]:
    """Return the fastest program that there is here, and why it is not the compiled one, if so."""
    reason = _why_not_compiled()
    if not reason:
        return compiled(), ""
    if find_spec("numpy") is not None:
        return vectorized(), f"the compiled `fastcdc` {reason}; NumPy cuts in its place"
    return plain, f"the compiled `fastcdc` {reason}, and there is no NumPy to cut in its place"


def _why_not_compiled() -> str:
    if not _has_compiled():
        return "is not installed"
    try:
        boundary = compiled()(shake_128(_SAMPLE).digest(WINDOW))
    except ImportError as error:
        return f"cannot be loaded ({error})"
    return "" if boundary == _SAMPLE_BOUNDARY else "cuts differently in this version"


def compiled() -> Search:
    """Return the compiled program: 3 GB/s, holding the interpreter's lock."""
    from fastcdc.fastcdc_cy import fastcdc_cy  # type: ignore[import-untyped]

    average = 1 << (_BITS - 1)  # its first mask has one bit more, and windows end before its second

    def search(window: bytes) -> int:
        for chunk in fastcdc_cy(window, _SKIPPED, average, WINDOW):
            length: int = chunk.length
            return length
        return 0

    return search


def _has_compiled() -> bool:
    """Look without importing: where the package has no compiled part, it says so on stdout."""
    package = find_spec("fastcdc")
    if package is None or package.submodule_search_locations is None:
        return False
    inside = list(package.submodule_search_locations)
    return PathFinder.find_spec("fastcdc.fastcdc_cy", inside) is not None


def plain(window: bytes) -> int:
    """Search in Python alone: 15 MB/s."""
    hashed = 0
    for at in range(_SKIPPED, len(window) - 1):
        hashed = (hashed >> 1) + GEAR[window[at]]
        if not hashed & _MASK:
            return at + 1
    return len(window)


def vectorized() -> Search:
    """Return a program for NumPy: 0.6 GB/s, and mostly without the interpreter's lock.

    Written out, the hash is the sum of ``GEAR[byte] / 2**age`` over the bytes before, rounded down.
    Doubling sums 32 of them in five steps. What was rounded off on the way, and what is older, is
    less than 7; so few places remain where the hash may have 19 zero bits, and those are tried.
    """
    import numpy as np

    table = np.array(GEAR, np.uint32)

    def search(window: bytes) -> int:
        if len(window) <= _SKIPPED:
            return len(window)
        sums = _sums(table[np.frombuffer(window, np.uint8)[_SKIPPED:]])
        possible = np.flatnonzero(((sums + _ERROR) & _MASK) <= _ERROR).tolist()
        if len(possible) > _MOST_TRIED:
            return plain(window)
        ends = (_SKIPPED + at + 1 for at in possible)
        return next((end for end in ends if _is_boundary(window, end)), len(window))

    return search


def _sums(sums: NDArray[np.uint32]) -> NDArray[np.uint32]:
    age = 1
    while age < _SPAN:
        older = sums[:-age] >> age
        sums = sums.copy()
        sums[age:] += older
        age *= 2
    return sums


def _is_boundary(window: bytes, end: int) -> bool:
    """Hash what is near, from the least and the greatest hash there may have been before it."""
    start = max(_SKIPPED, end - 4 * _SPAN)
    hashed = _hash(window[start:end], 0)
    if start > _SKIPPED and _hash(window[start:end], _TOP) != hashed:
        hashed = _hash(window[_SKIPPED:end], 0)
    return not hashed & _MASK


def _hash(part: bytes, hashed: int) -> int:
    for byte in part:
        hashed = (hashed >> 1) + GEAR[byte]
    return hashed
