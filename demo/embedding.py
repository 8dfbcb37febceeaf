"""Texts as vectors without a model: every word is hashed to a direction.

Texts that share words point the same way, which is all that a demonstration of search needs. It is
deterministic, so a restored vector can be compared with the one its text must have, bit for bit.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 256
_WORD = re.compile(r"[a-z]{4,}")  # shorter ones are "the" and "of"

Vector = NDArray[np.float32]


def embed(text: str) -> Vector:
    """Return the unit vector of a text; without a single word it points along the first axis."""
    vector = np.zeros(DIMENSIONS, np.float64)
    for word, times in Counter(_WORD.findall(text.lower())).items():
        digest = zlib.crc32(word.encode())
        sign = 1.0 if digest & 0x8000_0000 else -1.0
        vector[digest % DIMENSIONS] += sign * (1.0 + math.log(times))
    length = float(np.linalg.norm(vector))
    if not length:
        vector[0] = length = 1.0
    return (vector / length).astype(np.float32)
