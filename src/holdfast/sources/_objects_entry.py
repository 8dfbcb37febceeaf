"""What is known of an object, as the attributes of a file in a tree, and back.

The names and forms of the attributes are described in ``docs/formats/objects.md``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from holdfast.errors import TreeUnsafe
from holdfast.model.artifact import Entry, EntryKind

XATTR = "user.s3."
HEADERS = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
)
META = "x-amz-meta-"
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What describes an object besides its content."""

    kept: Mapping[str, str] = field(default_factory=dict)  # of `HEADERS`
    metadata: Mapping[str, str] = field(default_factory=dict)  # the user's own, names in lower case
    tags: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, headers: Mapping[str, str], tags: Mapping[str, str]) -> Attributes:
        """Return what the headers of an answer say."""
        kept = {name: headers[name] for name in HEADERS if headers.get(name)}
        metadata = {
            name.removeprefix(META): value
            for name, value in sorted(headers.items())
            if name.startswith(META)
        }
        return cls(kept, metadata, dict(sorted(tags.items())))

    def headers(self) -> dict[str, str]:
        """Return the headers that give an object these attributes."""
        sent = {**self.kept, **{META + name: value for name, value in self.metadata.items()}}
        if self.tags:
            pairs = (
                f"{quote(key, safe='')}={quote(tag, safe='')}" for key, tag in self.tags.items()
            )
            sent["x-amz-tagging"] = "&".join(pairs)
        return sent


@dataclass(frozen=True, slots=True)
class Described:
    """An object or an old version of one, without its content."""

    size: int
    etag: str = ""
    changed_ns: int = 0
    attributes: Attributes = Attributes()
    part_size: int = 0  # of its upload, where that was in several parts
    version: str = ""
    deleted: bool = False  # a mark that it was deleted

    def entry(self, path: str) -> Entry:
        """Return the file that stands for it in a tree."""
        values = {"etag": self.etag.strip('"'), **self.attributes.kept}
        if self.attributes.metadata:
            values["metadata"] = _json(self.attributes.metadata)
        if self.attributes.tags:
            values["tags"] = _json(self.attributes.tags)
        if self.part_size:
            values["part-size"] = str(self.part_size)
        if self.version:
            values["version"] = self.version
        if self.deleted:
            values["deleted"] = "true"
        return Entry(
            path,
            EntryKind.FILE,
            mtime_ns=self.changed_ns,
            size=self.size,
            uid=os.geteuid(),
            gid=os.getegid(),
            xattrs={
                XATTR + name: value.encode("utf-8", "surrogateescape")
                for name, value in values.items()
                if value
            },
        )

    @classmethod
    def from_entry(cls, entry: Entry, component: str) -> Described:
        """Return what a file of a tree says of its object.

        Raises:
            TreeUnsafe: it says something that no object has.

        """
        values = {
            name.removeprefix(XATTR): value.decode("utf-8", "surrogateescape")
            for name, value in entry.xattrs.items()
            if name.startswith(XATTR)
        }
        try:
            attributes = Attributes(
                {name: _value(values[name]) for name in HEADERS if name in values},
                {_name(n): _value(v) for n, v in _mapping(values.get("metadata", "")).items()},
                _mapping(values.get("tags", "")),
            )
            part_size = int(values.get("part-size", 0))
        except ValueError as error:
            reason = f"its attributes are not those of an object: {error}"
            raise TreeUnsafe(component=component, path=entry.path, reason=reason) from error
        etag = values.get("etag", "")
        return cls(
            size=entry.size,
            etag=f'"{etag}"' if etag else "",
            changed_ns=entry.mtime_ns,
            attributes=attributes,
            part_size=part_size,
            version=values.get("version", ""),
            deleted=values.get("deleted") == "true",
        )


def http_time(headers: Mapping[str, str]) -> int:
    """Return when an object was changed, as headers say it, in nanoseconds since 1970, or 0."""
    try:
        return int(parsedate_to_datetime(headers["last-modified"]).timestamp()) * 1_000_000_000
    except (KeyError, ValueError):
        return 0


def _json(values: Mapping[str, str]) -> str:
    return json.dumps(values, separators=(",", ":"), sort_keys=True)


def _mapping(text: str) -> dict[str, str]:
    if not text:
        return {}
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("they are not names with values")
    return found


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name")
    return name


def _value(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("there are control characters in it")
    return value
