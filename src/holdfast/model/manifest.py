"""The manifest, ``metadata.json``: what a backup holds, and what makes it exist.

Versioned: a reader refuses a format newer than its own, and reads every older one. The form is
written down in ``docs/formats/manifest.md``. Decoding trusts nothing: every field is checked for
its type, every name and path for where it leads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast

from holdfast.errors import BackupDamaged, BackupTooNew, UnsafeName

from .facts import Facts, Json
from .names import safe_backup_id, safe_name, safe_path

FORMAT = 1
FILE_NAME = "metadata.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Status(StrEnum):
    """How much of the stack a sealed backup holds."""

    COMPLETED = "completed"
    PARTIAL = "partial"  # some components failed: kept, but never counted as a good backup


class Form(StrEnum):
    """What an artifact is."""

    STREAM = "stream"
    TREE = "tree"


@dataclass(frozen=True, slots=True)
class Stored:
    """One artifact as a vault keeps it.

    ``path`` is where it lies, relative to the vault's root; ``size`` and ``sha256`` are those of
    the bytes that lie there. ``encoding`` says how to read them: ``identity``, ``zstd``,
    ``gzip``, ``tar+zstd`` or ``tar+gzip``. ``content_size`` counts the bytes inside, and
    ``entries`` those of a tree: a reader that finds more stops, so that an archive cannot blow up.
    """

    component: str
    name: str
    form: Form
    path: str
    size: int
    sha256: str
    encoding: str
    content_size: int
    entries: int = 0
    part: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Component:
    """One component of the stack as it was backed up, or the reason why it was not."""

    name: str
    source: str
    status: str  # completed | failed
    instant: datetime | None = None  # the moment whose content was copied
    seconds: float = 0.0  # how long it was held still
    exact: bool = True  # False: "fuzzy", not the state of one single instant
    evidence: bool = False  # True: known to be damaged and kept on request
    version: str = ""
    tools: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A sealed backup."""

    id: str
    stack: str
    created_at: datetime
    sequence: int  # grows by one with each backup of a vault; orders them even if a clock jumps
    status: Status
    components: tuple[Component, ...]
    artifacts: tuple[Stored, ...]
    holdfast: str  # version that wrote it
    plan: str = ""
    host: str = ""
    description: str = ""
    skew_seconds: float = 0.0  # between the first and the last component's instant
    notes: tuple[str, ...] = ()

    def component(self, name: str) -> Component | None:
        """Return the record of one component, or None if the backup has none of that name."""
        return next((c for c in self.components if c.name == name), None)

    def of(self, component: str) -> list[Stored]:
        """Return the artifacts of one component."""
        return [stored for stored in self.artifacts if stored.component == component]

    @property
    def size(self) -> int:
        """How many bytes the artifacts take in the vault."""
        return sum(stored.size for stored in self.artifacts)

    @property
    def good(self) -> bool:
        """Whether it counts as a good backup: whole, and not kept as evidence of damage."""
        return self.status is Status.COMPLETED and not any(c.evidence for c in self.components)


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as JSON text for people and programs: UTF-8, indented."""
    document: dict[str, Any] = {"format": FORMAT}
    document |= {f.name: getattr(manifest, f.name) for f in fields(manifest)}
    document["created_at"] = _instant_text(manifest.created_at)
    document["components"] = [_component_document(c) for c in manifest.components]
    document["artifacts"] = [asdict(stored) for stored in manifest.artifacts]
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _component_document(component: Component) -> dict[str, Any]:
    document = asdict(component)
    document["instant"] = component.instant and _instant_text(component.instant)
    return document


def _instant_text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def decode(data: bytes, backup: str) -> Manifest:
    """Return the manifest in ``data``.

    Raises:
        BackupTooNew: a later version of Holdfast wrote it.
        BackupDamaged: it is not a manifest, or says what cannot be.

    """
    try:
        document = json.loads(data.decode("utf-8", "surrogatepass"))
        _check_format(document, backup)
        manifest = _manifest(document)
    except (ValueError, TypeError, KeyError, RecursionError, UnsafeName) as error:
        raise BackupDamaged(
            backup=backup, path=FILE_NAME, reason=f"not a manifest: {error}"
        ) from error
    if manifest.id != backup:
        reason = f"it is the manifest of {manifest.id}"
        raise BackupDamaged(backup=backup, path=FILE_NAME, reason=reason)
    return manifest


def _check_format(document: Any, backup: str) -> None:
    found = _take(document, "format", int)
    if found > FORMAT:
        raise BackupTooNew(backup=backup, found=found, known=FORMAT)
    if found < 1:
        problem = f"format {found}"
        raise ValueError(problem)


def _manifest(document: dict[str, Any]) -> Manifest:
    artifacts = tuple(_stored(item) for item in _take(document, "artifacts", list))
    components = tuple(_component(item) for item in _take(document, "components", list))
    names = {component.name for component in components}
    if len(names) != len(components) or not {a.component for a in artifacts} <= names:
        problem = "components and artifacts do not belong together"
        raise ValueError(problem)
    if len({a.path for a in artifacts}) != len(artifacts):
        problem = "two artifacts at one path"
        raise ValueError(problem)
    return Manifest(
        id=safe_backup_id(_take(document, "id", str)),
        stack=_take(document, "stack", str),
        created_at=_instant(_take(document, "created_at", str)),
        sequence=_natural(document, "sequence"),
        status=Status(_take(document, "status", str)),
        components=components,
        artifacts=artifacts,
        holdfast=_take(document, "holdfast", str),
        plan=_take(document, "plan", str),
        host=_take(document, "host", str),
        description=_take(document, "description", str),
        skew_seconds=float(_take(document, "skew_seconds", int, float)),
        notes=_strings(_take(document, "notes", list)),
    )


def _component(document: Any) -> Component:
    instant = _take(document, "instant", str, type(None))
    status = _take(document, "status", str)
    if status not in {"completed", "failed"}:
        problem = f"status {status!r}"
        raise ValueError(problem)
    return Component(
        name=safe_name(_take(document, "name", str), "component"),
        source=_take(document, "source", str),
        status=status,
        instant=None if instant is None else _instant(instant),
        seconds=float(_take(document, "seconds", int, float)),
        exact=_take(document, "exact", bool),
        evidence=_take(document, "evidence", bool),
        version=_take(document, "version", str),
        tools=_string_map(_take(document, "tools", dict)),
        facts=_facts(_take(document, "facts", dict)),
        error=_take(document, "error", str),
    )


def _stored(document: Any) -> Stored:
    sha256 = _take(document, "sha256", str)
    if not _SHA256.fullmatch(sha256):
        problem = "sha256 is not 64 hexadecimal digits"
        raise ValueError(problem)
    return Stored(
        component=safe_name(_take(document, "component", str), "component"),
        name=safe_path(_take(document, "name", str), "artifact"),
        form=Form(_take(document, "form", str)),
        path=safe_path(_take(document, "path", str), "artifact path"),
        size=_natural(document, "size"),
        sha256=sha256,
        encoding=_take(document, "encoding", str),
        content_size=_natural(document, "content_size"),
        entries=_natural(document, "entries"),
        part=_take(document, "part", str),
        labels=_string_map(_take(document, "labels", dict)),
    )


def _facts(document: dict[str, Any]) -> Facts:
    counts = _take(document, "counts", dict)
    if not all(isinstance(k, str) and type(v) is int for k, v in counts.items()):
        problem = "counts are not whole numbers"
        raise ValueError(problem)
    details = cast("dict[str, Json]", _take(document, "details", dict))
    return Facts(counts, details, _strings(_take(document, "notes", list)))


def _take(document: Any, key: str, *types: type) -> Any:
    value = document[key]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        problem = f"{key} is of the wrong type"
        raise TypeError(problem)
    return value


def _natural(document: Any, key: str) -> int:
    value: int = _take(document, key, int)
    if value < 0:
        problem = f"{key} is negative"
        raise ValueError(problem)
    return value


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        problem = f"{text} has no time zone"
        raise ValueError(problem)
    return instant


def _strings(items: list[Any]) -> tuple[str, ...]:
    if not all(isinstance(item, str) for item in items):
        problem = "not a list of strings"
        raise TypeError(problem)
    return tuple(items)


def _string_map(items: dict[Any, Any]) -> dict[str, str]:
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in items.items()):
        problem = "not a map of strings"
        raise TypeError(problem)
    return items
