"""The names of a store as keys of a bucket, and back.

Most names are their own keys, so that whoever looks into the bucket finds what a folder would show.
What XML cannot say (control characters), what is no UTF-8, and what servers and libraries treat in
ways of their own is written as ``%XX`` for each byte, and so is the percent sign itself.
"""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from ..errors import UnsafeName

LONGEST_KEY = 1024  # bytes
_ESCAPED = frozenset("%\"'<>&*?^`[]{}|#\\")


def key_of(prefix: str, name: str) -> str:
    """Return the key of a name; ``prefix`` is what all keys of the store begin with.

    Raises:
        UnsafeName: the key would be longer than S3 allows.

    """
    key = prefix + "".join(c if _is_plain(c) else _escaped(c) for c in name)
    if len(key.encode()) > LONGEST_KEY:
        reason = f"its key would be longer than the {LONGEST_KEY} bytes that S3 allows"
        raise UnsafeName(what="name", name=name, reason=reason)
    return key


def name_of(prefix: str, key: str) -> str:
    """Return the name whose key it is."""
    return unquote_to_bytes(key.removeprefix(prefix)).decode("utf-8", "surrogateescape")


def _is_plain(character: str) -> bool:
    return character not in _ESCAPED and character.isprintable()


def _escaped(character: str) -> str:
    return quote(character.encode("utf-8", "surrogateescape"), safe="")
