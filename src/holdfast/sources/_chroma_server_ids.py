"""The ids in a listing, as they arrive: a listing of millions is never held as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from pydantic_core import from_json

from holdfast.model.artifact import Chunks

_BEGINNING = re.compile(rb'"ids"\s*:\s*\[')
_STRING = re.compile(rb'\s*("(?:[^"\\]|\\.)*+")\s*([,\]])', re.DOTALL)
_NOTHING = re.compile(rb"\s*\]")
_LONGEST_BEGINNING = 1 << 16  # bytes before the list: other fields, which are empty
_LONGEST_STRING = 1 << 20


def strings(chunks: Chunks) -> Iterator[list[str]]:
    """Give the texts of the list ``ids`` of a JSON document as it arrives, some at a time.

    Raises ``ValueError`` for a document without such a list, or with other things in it.
    """
    pieces = _list(chunks)
    rest = b""
    for piece in pieces:
        rest += piece
        if _NOTHING.match(rest):
            break
        texts, rest, ended = _texts(rest)
        if texts:
            yield cast("list[str]", from_json(b"[" + b",".join(texts) + b"]"))
        if ended:
            break
        if len(rest) > _LONGEST_STRING:
            raise ValueError("they are no list of texts")
    else:
        raise ValueError("their list does not end")
    for _piece in pieces:  # to its end: the connection can then be used again
        pass


def _list(chunks: Chunks) -> Iterator[bytes]:
    """Give what follows the opening bracket of the list."""
    head = b""
    for chunk in chunks:
        head += chunk
        if found := _BEGINNING.search(head):
            yield head[found.end() :]
            break
        if len(head) > _LONGEST_BEGINNING:
            break
    for chunk in chunks:
        yield bytes(chunk)


def _texts(data: bytes) -> tuple[list[bytes], bytes, bool]:
    """Return the whole texts at the beginning, what is left, and whether the list ended."""
    texts = []
    place, last = 0, b","
    while last == b"," and (match := _STRING.match(data, place)):
        text, last = match.groups()
        texts.append(text)
        place = match.end()
    return texts, data[place:], last == b"]"
