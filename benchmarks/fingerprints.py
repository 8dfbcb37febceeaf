"""What sizes of blobs tell about files: `python -m benchmarks.fingerprints`.

Somebody who sees a repository's storage, and when blobs are read also where each begins, compares
sizes with those that files they know would have. Tried with and without the secret, and with
planted files that are to reveal the secret. `docs/formats/repository.md` quotes the result.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from random import Random

import numpy as np

from holdfast.vaults.repository.chunks import MOST, Chunker
from holdfast.vaults.repository.crypto import OVERHEAD
from holdfast.vaults.repository.gear import GEAR

MIB = 1 << 20
KNOWN = 100  # files that the observer has, of which every second is backed up
NO_SECRET = bytes(range(256))
NEAR = 64  # bytes before a boundary that make up its hash
MASK = (1 << 19) - 1

Sizes = list[int]


class _Repository:
    """Cuts as a repository does; without a secret, as all of them would."""

    def __init__(self, *, secret: bool) -> None:
        self._chunker = Chunker(secrets.randbits(53))
        if not secret:
            self._chunker._permutation = NO_SECRET  # noqa: SLF001 - what is to be compared with

    def sizes(self, content: bytes) -> Sizes:
        """Return how large the sealed blobs are of a file that cannot be compressed."""
        return [len(chunk) + OVERHEAD for chunk in self._chunker.cut(iter((content,)))]

    def order(self, value: int) -> int:
        """Return what the hash sees a byte as: the secret itself."""
        return self._chunker._permutation[value]  # noqa: SLF001 - what is to be guessed


def _file(number: int, smallest: int, largest: int) -> bytes:
    seeded = Random(number)
    return seeded.randbytes(seeded.randint(smallest, largest))


def _recognized(smallest: int, largest: int, *, secret: bool) -> tuple[int, int]:
    """Return how many files were recognized rightly, and how many wrongly."""
    theirs, ours = _Repository(secret=False), _Repository(secret=secret)
    seen: Sizes = []
    for number in range(0, KNOWN, 2):
        seen += ours.sizes(_file(KNOWN + number, smallest, largest))  # one that nobody knows
        seen += ours.sizes(_file(number, smallest, largest))
    found = [number for number in range(KNOWN) if _occurs(theirs, number, seen, smallest, largest)]
    rightly = sum(number % 2 == 0 for number in found)
    return rightly, len(found) - rightly


def _occurs(theirs: _Repository, number: int, seen: Sizes, smallest: int, largest: int) -> bool:
    wanted = theirs.sizes(_file(number, smallest, largest))
    return any(seen[at : at + len(wanted)] == wanted for at in range(len(seen)))


def _by_total(smallest: int, largest: int) -> int:
    """Return how many are recognized with the secret by somebody who knows where files end."""
    ours = _Repository(secret=True)
    totals = {}
    for number in range(0, KNOWN, 2):
        sizes = ours.sizes(_file(number, smallest, largest))
        totals[sum(sizes) - OVERHEAD * len(sizes)] = number
    return sum(totals.get(len(_file(n, smallest, largest))) == n for n in range(0, KNOWN, 2))


def _planted(megabytes: int) -> tuple[int, float]:
    """Plant a file of two byte values; return how many guesses at their places remain, and when."""
    ours = _Repository(secret=True)
    one, other = 0, 1
    content = bytes(Random(0).choices((one, other), k=megabytes * MIB))
    sizes = [size - OVERHEAD for size in ours.sizes(content)]
    ends = [
        end
        for size, end in zip(sizes, itertools.accumulate(sizes), strict=True)
        if size != MOST and end != len(content)
    ]
    began = time.process_time()
    left = _guesses([content[end - NEAR : end] for end in ends])
    took = time.process_time() - began
    if ends and (ours.order(one), ours.order(other)) not in left:
        raise AssertionError("the truth is among what remains")
    return len(left), took


def _guesses(windows: Sequence[bytes]) -> set[tuple[int, int]]:
    """Return all pairs of places with which every window ends in a boundary."""
    gear = np.array(GEAR, np.int64)
    one, other = np.meshgrid(gear, gear, indexing="ij")
    fits = ~np.eye(256, dtype=bool)
    for window in windows:
        hashed = np.zeros((256, 256), np.int64)
        for byte in window:
            hashed = (hashed >> 1) + (other if byte else one)
        fits &= hashed & MASK == 0
    return {(int(a), int(b)) for a, b in np.argwhere(fits)}


def report() -> Iterator[str]:
    """Give the lines of the result."""
    half = KNOWN // 2
    for name, smallest, largest in (
        ("4 to 12 MiB", 4 * MIB, 12 * MIB),
        ("1 to 4 MiB", MIB, 4 * MIB),
        ("10 to 500 KiB", 10 << 10, 500 << 10),
    ):
        for secret in (False, True):
            rightly, wrongly = _recognized(smallest, largest, secret=secret)
            how = "with the secret" if secret else "without it"
            yield f"{name}, {how}: {rightly} of {half} recognized, {wrongly} wrongly"
        yield f"{name}, with the secret, by total size: {_by_total(smallest, largest)} of {half}"
    for megabytes in (2, 4, 8, 16):
        left, took = _planted(megabytes)
        yield f"{megabytes} MiB planted: {left} guesses left of {256 * 255} after {took:.1f} s"


def main() -> None:
    """Print the result."""
    for line in report():
        print(line, flush=True)


if __name__ == "__main__":
    main()
