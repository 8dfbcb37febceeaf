"""LZF, as Redis compresses strings of more than 20 bytes with it."""

from __future__ import annotations

_LITERAL = 32  # control bytes below it announce that many bytes and one more
_FAR = 7  # a length that goes on in the next byte


def expanded(data: bytes, size: int) -> bytes:
    """Return what ``data`` was before it was compressed. Raises ``ValueError`` where it is none."""
    try:
        out = _expanded(data)
    except IndexError:
        raise ValueError("a compressed string does not add up") from None
    if len(out) != size:
        raise ValueError("a compressed string has another length than it says")
    return out


def _expanded(data: bytes) -> bytes:
    out = bytearray()
    place = 0
    while place < len(data):
        control = data[place]
        place += 1
        if control < _LITERAL:
            out += data[place : place + control + 1]
            place += control + 1
            continue
        length = control >> 5
        if length == _FAR:
            length += data[place]
            place += 1
        start = len(out) - ((control & 0x1F) << 8 | data[place]) - 1
        place += 1
        if start < 0:
            raise IndexError
        for step in range(start, start + length + 2):  # may read what it has just written
            out.append(out[step])
    return bytes(out)
