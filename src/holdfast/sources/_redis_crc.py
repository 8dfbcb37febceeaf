"""The CRC-64 that RDB files end with: Jones' polynomial, bits reflected, nothing added.

A table of 256 entries takes a loop turn for each byte, some 10 MB/s. But a CRC is the remainder of
a division of polynomials over GF(2), and x^2510 leaves a remainder of only 20 terms: everything
above that power can be moved down by 20 shifts of one large integer, which the interpreter does at
once. Squaring keeps the number of terms, so that the same 20 serve every doubling of the span.
"""

from __future__ import annotations

_POLYNOMIAL = 0x95AC9329AC4BC9B5  # 0xAD93D23594C935A9 with its bits reflected
_SPAN = 2510  # bits
_POWERS = (
    0,
    2,
    4,
    16,
    22,
    25,
    28,
    30,
    31,
    32,
    34,
    36,
    41,
    43,
    47,
    52,
    58,
    60,
    62,
    63,
)  # of x^_SPAN
BLOCK = 1 << 16  # bytes: larger integers leave the processor's cache


def _entry(value: int) -> int:
    for _bit in range(8):
        value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
    return value


_TABLE = tuple(_entry(value) for value in range(256))
# From 20,080 bytes downwards: (bits, powers that the next bit beyond them is the sum of).
_FOLDS = tuple((_SPAN << n, tuple(power << n for power in _POWERS)) for n in range(7, -1, -1))


def crc64(data: bytes | memoryview, crc: int = 0) -> int:
    """Return the checksum of ``data`` that comes after what ``crc`` is the checksum of."""
    view = memoryview(data)
    for start in range(0, len(view), BLOCK):
        crc = _block(bytes(view[start : start + BLOCK]), crc)
    return crc


def _block(data: bytes, crc: int) -> int:
    if len(data) * 8 > 2 * _SPAN:
        data, crc = _shortened(data, crc), 0
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def _shortened(data: bytes, crc: int) -> bytes:
    """Return a short message of the same remainder. Its lowest bit has the highest power."""
    value, bits = int.from_bytes(data, "little") ^ crc, len(data) * 8
    for span, powers in _FOLDS:
        highest = powers[-1]
        while bits > span:
            above = value & ((1 << (bits - span)) - 1)
            below = value >> (bits - span)
            moved = 0
            for power in powers:
                moved ^= above << (highest - power)
            length = bits - span + highest
            bits = max(length, span)
            value = (below << (bits - span)) ^ (moved << (bits - length))
    padding = -bits % 8
    return (value << padding).to_bytes((bits + padding) // 8, "little")
