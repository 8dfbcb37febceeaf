"""The XML documents that S3 speaks: lists, errors, tags; read with indulgence, written exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object, a version of one, or a mark that it was deleted, as a bucket lists it."""

    key: str
    size: int = 0
    etag: str = ""
    changed: str = ""  # when, as the server says it
    version: str = ""
    latest: bool = True
    deleted: bool = False  # a mark, without content


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list. ``after`` asks for the next one; None: there is none."""

    items: Sequence[Listed]
    after: tuple[tuple[str, str], ...] | None


def problem_in(body: bytes | bytearray) -> tuple[str, str, str]:
    """Return code, message and region of an error document; empty ones if it is none."""
    if not body or b"<Error" not in body[:1000]:
        return "", "", ""
    try:
        root = parse(bytes(body))
    except ValueError:
        return "", "", ""
    if _name(root) != "Error":
        return "", "", ""
    return _text(root, "Code"), _text(root, "Message"), _text(root, "Region")


def parse(body: bytes) -> ET.Element:
    """Return the root of a document; raises ``ValueError`` where it is none."""
    try:
        return ET.fromstring(body)  # noqa: S314 - expat 2.4 and newer bounds what entities grow to
    except ET.ParseError as error:
        raise ValueError(f"it is not XML: {error}") from error


def page_of(body: bytes) -> Page:
    """Return a page of objects or of versions. Raises ``ValueError`` where it is neither."""
    root = parse(body)
    encoded = _text(root, "EncodingType") == "url"
    items = [
        _listed(element, encoded=encoded)
        for element in root
        if _name(element) in {"Contents", "Version", "DeleteMarker"}
    ]
    if _text(root, "IsTruncated") != "true":
        return Page(items, None)
    if token := _text(root, "NextContinuationToken"):
        return Page(items, (("continuation-token", token),))
    key = _key(_text(root, "NextKeyMarker"), encoded=encoded)
    version = _text(root, "NextVersionIdMarker")
    after = [("key-marker", key)]
    if version:
        after.append(("version-id-marker", version))
    if not key:
        raise ValueError("it does not say where it goes on")
    return Page(items, tuple(after))


def _listed(element: ET.Element, *, encoded: bool) -> Listed:
    texts = {_name(child): child.text or "" for child in element}
    return Listed(
        key=_key(texts.get("Key", ""), encoded=encoded),
        size=int(texts.get("Size") or 0),
        etag=texts.get("ETag", ""),
        changed=texts.get("LastModified", ""),
        version=texts.get("VersionId", ""),
        latest=texts.get("IsLatest") != "false",
        deleted=_name(element) == "DeleteMarker",
    )


def _key(text: str, *, encoded: bool) -> str:
    if not encoded:
        return text
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "surrogateescape")


def tags_of(body: bytes) -> dict[str, str]:
    """Return the tags of an object."""
    return {
        _text(element, "Key"): _text(element, "Value")
        for element in parse(body).iter()
        if _name(element) == "Tag"
    }


def value_of(body: bytes, name: str) -> str:
    """Return the text of the first element of that name; empty without one."""
    return next((e.text or "" for e in parse(body).iter() if _name(e) == name), "")


def uploads_of(body: bytes) -> list[tuple[str, str]]:
    """Return key and id of each upload in parts that is not complete."""
    root = parse(body)
    encoded = _text(root, "EncodingType") == "url"
    return [
        (_key(_text(element, "Key"), encoded=encoded), _text(element, "UploadId"))
        for element in root
        if _name(element) == "Upload"
    ]


def failure_of(body: bytes) -> tuple[str, str] | None:
    """Return key and reason of the first one that was not deleted."""
    for element in parse(body):
        if _name(element) == "Error":
            return _text(element, "Key"), f"{_text(element, 'Code')} {_text(element, 'Message')}"
    return None


def deletion(keys: Iterable[tuple[str, str]]) -> bytes:
    """Return the document that deletes keys, or single versions of them."""
    inside = "".join(
        f"<Object><Key>{_written(key)}</Key>"
        + (f"<VersionId>{escape(version)}</VersionId>" if version else "")
        + "</Object>"
        for key, version in keys
    )
    return _document("Delete", f"<Quiet>true</Quiet>{inside}")


def writable(key: str) -> bool:
    """Tell whether XML 1.0 can say a key at all: it knows no control characters."""
    return all(c >= " " or c in "\t\n\r" for c in key) and not any(
        "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in key
    )


def _written(key: str) -> str:
    return escape(key, {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})


def completion(parts: Iterable[tuple[int, str]]) -> bytes:
    """Return the document that makes one object of its parts."""
    inside = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in parts
    )
    return _document("CompleteMultipartUpload", inside)


def location(region: str) -> bytes:
    """Return the document that makes a bucket in a region."""
    return _document(
        "CreateBucketConfiguration",
        f"<LocationConstraint>{escape(region)}</LocationConstraint>",
    )


def versioning(status: str) -> bytes:
    """Return the document that says whether a bucket keeps versions."""
    return _document("VersioningConfiguration", f"<Status>{escape(status)}</Status>")


def nanoseconds(changed: str) -> int:
    """Return the time that a list says as nanoseconds since 1970; 0 without one."""
    if not changed:
        return 0
    try:
        return int(datetime.fromisoformat(changed).timestamp() * 1000) * 1_000_000
    except ValueError:
        return 0


def _document(name: str, inside: str) -> bytes:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{NAMESPACE}">{inside}</{name}>'
    return text.encode()


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: ET.Element, name: str) -> str:
    return next((child.text or "" for child in element if _name(child) == name), "")
