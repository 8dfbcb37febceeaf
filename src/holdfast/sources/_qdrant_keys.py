"""The keys that other stores refer to: ids of points, or values of their payload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._qdrant_api import Qdrant


def keys_of(qdrant: Qdrant, collection: str, payload: str | None) -> Iterator[str]:
    """Give the id of each point, or with ``payload`` the values under that key.

    ``a.b`` is b in a, ``a[].b`` is b in each of the list a. A list gives each of its values; points
    without the key give nothing.
    """
    asked = {} if payload is None else {"with_payload": {"include": [payload]}}
    for page in qdrant.pages(collection, asked):
        for point in page:
            if payload is None:
                yield str(point["id"])
            else:
                yield from _values(point.get("payload") or {}, payload.replace("[]", ""))


def _values(payload: Any, key: str) -> Iterator[str]:
    if isinstance(payload, list):
        for each in payload:
            yield from _values(each, key)
    elif key and isinstance(payload, dict):
        if key in payload:
            yield from _values(payload[key], "")
        else:
            first, _dot, rest = key.partition(".")
            if rest and first in payload:
                yield from _values(payload[first], rest)
    elif not key and payload is not None and not isinstance(payload, dict):
        yield str(payload)
