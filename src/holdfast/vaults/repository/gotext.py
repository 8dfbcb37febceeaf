"""Text as Go writes it into restic's trees: quoted names, JSON strings, times.

Trees are found again by the hash of their JSON, and restic refuses to rewrite one that it would
have written otherwise; so every character is as Go's ``strconv.Quote``, ``encoding/json`` and
``time.RFC3339Nano`` have it.
"""

from __future__ import annotations

import json
import re
from datetime import date
from functools import lru_cache

from .damage import DamagedError

SECOND = 1_000_000_000
_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
EARLIEST = (date.min.toordinal() - _EPOCH) * _DAY * SECOND
LATEST = (date.max.toordinal() + 1 - _EPOCH) * _DAY * SECOND - 1

_USUAL = re.compile(r"[ !#-%'-;=?-\[\]-~]*")  # what neither quoting nor JSON changes
_ESCAPED = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_ESCAPES = str.maketrans(_ESCAPED | {chr(0xDC80 + n): "\\ufffd" for n in range(128)})
_TO_ESCAPE = re.compile("[<>&\u2028\u2029\udc80-\udcff]")
_LETTERS = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}
_LETTER_OF = {chr(code): "\\" + letter for letter, code in _LETTERS.items()}
_SEQUENCE = re.compile(
    r'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.|\Z))',
    re.DOTALL,
)
_UNDECODABLE = range(0xDC80, 0xDD00)  # as `os.fsdecode` gives bytes that are not UTF-8
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))\Z", re.ASCII
)


def string(text: str) -> str:
    """Return text as a JSON string; undecodable bytes become U+FFFD each, as Go has it."""
    if _USUAL.fullmatch(text):
        return f'"{text}"'
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted.translate(_ESCAPES) if _TO_ESCAPE.search(quoted) else quoted


def quoted(name: str) -> str:
    """Return a name as ``strconv.Quote`` has it, without the quotation marks around it."""
    if _USUAL.fullmatch(name):
        return name
    return "".join(map(_quoted, name))


def _quoted(character: str) -> str:
    code = ord(character)
    if character in _LETTER_OF:
        return _LETTER_OF[character]
    if character.isprintable():
        return character
    if code in _UNDECODABLE:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:  # noqa: PLR2004 - the control characters of ASCII
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - four digits


def unquoted(text: str) -> str:
    """Return the name that was quoted, undecodable bytes as ``surrogateescape`` gives them.

    Raises:
        DamagedError: it is not what ``strconv.Unquote`` takes.

    """
    if "\\" not in text and '"' not in text:
        return text
    raw, end = bytearray(), 0
    try:
        for found in _SEQUENCE.finditer(text):
            raw += text[end : found.start()].encode()
            raw += _unquoted(found)
            end = found.end()
        raw += text[end:].encode()
    except ValueError as error:
        raise DamagedError(f"the name {text!r} cannot be read") from error
    return raw.decode("utf-8", "surrogateescape")


def _unquoted(found: re.Match[str]) -> bytes:
    letter, hexadecimal, octal, short, long, _wrong = found.groups()
    if letter:
        return bytes((_LETTERS[letter],))
    if hexadecimal:
        return bytes.fromhex(hexadecimal)
    if octal:
        return bytes((int(octal, 8),))
    return chr(int(short or long or "", 16)).encode()


def time_text(nanoseconds: int) -> str:
    """Return a time since 1970 as text; times outside the years 1 to 9999 as the nearest inside."""
    seconds, fraction = divmod(min(max(nanoseconds, EARLIEST), LATEST), SECOND)
    days, seconds = divmod(seconds, _DAY)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    below = f".{fraction:09}".rstrip("0") if fraction else ""
    return f"{_date_text(days)}T{hours:02}:{minutes:02}:{seconds:02}{below}Z"


@lru_cache(maxsize=1024)
def _date_text(days: int) -> str:
    return date.fromordinal(_EPOCH + days).isoformat()


def time_of(text: object) -> int:
    """Return nanoseconds since 1970.

    Raises:
        DamagedError: it is not a time in the form of RFC 3339.

    """
    found = _TIME.match(text) if isinstance(text, str) else None
    if found is None:
        raise DamagedError(f"{text!r} is not a time")
    day, hours, minutes, seconds, fraction, sign, off_hours, off_minutes = found.groups()
    total = _days(day) * _DAY + int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    if sign:
        off = int(off_hours) * 3600 + int(off_minutes) * 60
        total += off if sign == "-" else -off
    return total * SECOND + (int(fraction.ljust(9, "0")) if fraction else 0)


@lru_cache(maxsize=1024)
def _days(text: str) -> int:
    year, month, day = (int(part) for part in text.split("-"))
    try:
        # Python has no year 0, to which restic sets earlier times: one cycle of the calendar later.
        return (
            date(year + 400, month, day).toordinal() - _EPOCH - 146_097
            if year < 1
            else (date(year, month, day).toordinal() - _EPOCH)
        )
    except ValueError as error:
        raise DamagedError(f"there is no day {text}") from error
