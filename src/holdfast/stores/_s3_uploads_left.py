"""Uploads in parts whose writers died: no list of objects shows them, and yet they cost room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from ..s3.http import Client
from ..s3.xml import parse

MISSING = 404
UPLOADS_AFTER = {"NextKeyMarker": "key-marker", "NextUploadIdMarker": "upload-id-marker"}
PARTS_AFTER = {"NextPartNumberMarker": "part-number-marker"}
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def remove_left(client: Client, prefix: str, before: datetime) -> list[str]:
    """Abort the uploads below ``prefix`` that got no part since ``before``; returns their keys."""
    removed = []
    for key, upload, begun in _uploads(client, prefix):
        if begun < before and _last_part(client, key, upload) < before:
            client.call("DELETE", key, [("uploadId", upload)], accept=(MISSING,))
            removed.append(key)
    return removed


def _uploads(client: Client, prefix: str) -> Iterator[tuple[str, str, datetime]]:
    """Give key, id and beginning of every upload that is not complete."""
    query = [("uploads", ""), ("prefix", prefix), ("encoding-type", "url")]
    for page in _pages(client, "", query, UPLOADS_AFTER):
        encoded = _texts(page).get("EncodingType") == "url"
        for found in _below(page, "Upload"):
            key = unquote(found.get("Key", "")) if encoded else found.get("Key", "")
            if key.startswith(prefix):
                yield key, found.get("UploadId", ""), _time(found.get("Initiated", ""))


def _last_part(client: Client, key: str, upload: str) -> datetime:
    """Return when the last part came, or the far past without any."""
    pages = _pages(client, key, [("uploadId", upload)], PARTS_AFTER)
    times = [_time(f.get("LastModified", "")) for page in pages for f in _below(page, "Part")]
    return max(times, default=LONG_AGO)


def _pages(
    client: Client, key: str, query: list[tuple[str, str]], after: Mapping[str, str]
) -> Iterator[ET.Element]:
    """Give the pages of a list; ``after`` says which element is which parameter of the next."""
    marker: list[tuple[str, str]] = []
    while True:
        answer = client.call("GET", key, [*query, *marker], accept=(MISSING,))
        if answer.status == MISSING:
            return  # complete, or aborted, since it was listed
        page = parse(bytes(answer.body))
        yield page
        texts = _texts(page)
        following = [(after[name], texts[name]) for name in after if texts.get(name)]
        if texts.get("IsTruncated") != "true" or following == marker:
            return  # a server that always says the same would keep us for ever
        marker = following


def _below(page: ET.Element, name: str) -> Iterator[dict[str, str]]:
    return (_texts(element) for element in page if element.tag.rpartition("}")[2] == name)


def _texts(element: ET.Element) -> dict[str, str]:
    return {child.tag.rpartition("}")[2]: child.text or "" for child in element}


def _time(text: str) -> datetime:
    """Return the time that a server says; one that makes no sense is now: nothing is swept then."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return datetime.now(UTC)
