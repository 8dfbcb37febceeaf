"""Where things lie in a plain vault: pure functions from templates and names to paths."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from ..errors import ConfigInvalid, UnsafeName
from ..model.artifact import Artifact, Stream
from ..model.manifest import FILE_NAME
from ..model.names import (
    fill,
    safe_name,
    safe_path,
    template_fields,
)
from ._naming import DEFAULT_NAME, NAME_FIELDS, Naming, cleaned, safe_or_value_error

DEFAULT_LAYOUT = "{backup_id}/{artifact}"
LAYOUT_FIELDS = (*NAME_FIELDS, "backup_id", "component", "artifact", "part", "stem", "suffix")

METADATA = FILE_NAME
SUMS = "SHA256SUMS"
GUIDE = "RESTORE.md"
DOCUMENTS = (METADATA, SUMS, GUIDE)
META_SUFFIX = ".meta"
MANIFESTS = "manifests"  # the documents of backups that have no folder of their own
OWN = ".holdfast"  # drafts, marks, locks and trash: the vault's own affairs

DRAFTS = f"{OWN}/drafts"
TRASH = f"{OWN}/trash"
TRASH_LIST = ".names"  # ends the folder in the trash that lists what is still to be deleted

_BOX = "{backup_id}/"
_SAMPLE = {
    "stack": "stack",
    "timestamp": "20260204_120000",
    "backup_id": "backup_20260204_120000",
    "component": "component",
    "artifact": "component.db",
    "part": "part",
    "stem": "name",
    "suffix": ".db",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The templates of a vault, checked.

    With a ``layout`` that begins with ``{backup_id}/`` each backup is one folder with everything in
    it. Every other layout is *flat*: artifacts lie where the template says, each with a ``.meta``
    beside it, and the documents in ``manifests/<backup id>/``. Fields that are not among
    `LAYOUT_FIELDS` are labels of the artifacts, such as ``{database}``.

    Raises:
        ValueError: a template would make unsafe or colliding paths, or is malformed.

    """

    layout: str = DEFAULT_LAYOUT
    name: str = DEFAULT_NAME
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        Naming(self.name, self.timezone)
        self._check_layout()

    def _check_layout(self) -> None:
        fields = template_fields(self.layout)
        for field in sorted(fields - set(LAYOUT_FIELDS)):
            if near := difflib.get_close_matches(field, LAYOUT_FIELDS, 1, 0.75):
                problem = f"unknown field {{{field}}}; did you mean {{{near[0]}}}?"
                raise ValueError(problem)
        if not fields & {"backup_id", "timestamp"}:
            problem = "{backup_id} or {timestamp} is needed, or two backups would have one path"
            raise ValueError(problem)
        labels = dict.fromkeys(fields, "label")
        path = fill(self.layout, labels | _SAMPLE)
        for part in path.split("/"):
            safe_or_value_error(part)
        if is_reserved(path, str(_SAMPLE["backup_id"])):
            problem = f"it leads to {path}, a place that the vault keeps for itself"
            raise ValueError(problem)

    @property
    def boxed(self) -> bool:
        """Whether each backup is one folder with everything in it."""
        return self.layout.startswith(_BOX)

    @property
    def needs_stack(self) -> bool:
        """Whether the paths of artifacts contain the name of the stack."""
        return "stack" in template_fields(self.layout)

    @property
    def naming(self) -> Naming:
        """How backups are called here."""
        return Naming(self.name, self.timezone)

    def backup_id(self, stack: str, instant: datetime, taken: Callable[[str], bool]) -> str:
        """Return the first id for this instant that is not taken: a second one ends in ``_2``."""
        return self.naming.backup_id(stack, instant, taken)

    def place(self, draft: Placing, component: str, artifact: Artifact) -> str:
        """Return the path of an artifact in the vault."""
        suffix = self._suffix(draft, artifact)
        part = f"_{artifact.part}" if artifact.part else ""
        values = dict(artifact.labels) | {
            "stack": draft.stack,
            "timestamp": self._timestamp_within(draft.backup_id, draft.instant),
            "backup_id": draft.backup_id,
            "component": component,
            "artifact": f"{component}{part}{suffix}",
            "part": artifact.part,
            "stem": artifact.stem,
            "suffix": suffix,
        }
        if missing := template_fields(self.layout) - values.keys():
            raise self._unfit(draft, f"{artifact.name} of {component} has no {{{min(missing)}}}")
        path = fill(self.layout, {field: cleaned(value) for field, value in values.items()})
        path = "/".join(_visible(part) for part in path.split("/"))
        if is_reserved(path, draft.backup_id):
            raise self._unfit(draft, f"{artifact.name} of {component} would lie at {path}")
        return path

    def compresses(self, artifact: Artifact) -> bool:
        """Tell whether a stream is compressed: where its name can say so, if it is worth it."""
        named = template_fields(self.layout) & {"artifact", "suffix"}
        return isinstance(artifact, Stream) and artifact.compressible and bool(named)

    def _suffix(self, draft: Placing, artifact: Artifact) -> str:
        if not isinstance(artifact, Stream):
            return f".{draft.archive}"
        packed = draft.archive.removeprefix("tar") if self.compresses(artifact) else ""
        return artifact.suffix + packed

    def _unfit(self, draft: Placing, problem: str) -> ConfigInvalid:
        advice = "choose another `layout` for this vault"
        return ConfigInvalid(place=f"vaults.{draft.vault}.layout", problem=problem, advice=advice)

    def clash(self, draft: Placing, one: str, other: str) -> ConfigInvalid:
        """Return the error for two artifacts whose paths collide."""
        return self._unfit(draft, f"two artifacts would collide: {one} and {other}")

    def _timestamp_within(self, backup_id: str, instant: datetime) -> str:
        """Return the timestamp as the id has it: with the number of a second one in that second."""
        stamp = self.naming.timestamp(instant)
        found = re.search(re.escape(stamp) + r"(_\d{1,3}(?!\d))?", backup_id)
        return found.group() if found else stamp


@dataclass(frozen=True, slots=True)
class Placing:
    """What the paths of one backup's artifacts are made from, besides the artifacts."""

    vault: str
    stack: str
    backup_id: str
    instant: datetime
    archive: str


def _visible(part: str) -> str:
    """Return a part of a path that is neither hidden nor taken for an option."""
    return safe_name(f"_{part}" if part.startswith((".", "-")) else part, "artifact path")


def is_reserved(path: str, backup_id: str) -> bool:
    """Tell whether a path is one that the vault needs for itself."""
    first, _slash, rest = path.partition("/")
    if first == MANIFESTS or first.startswith("."):
        return True
    if first == backup_id:
        return rest in {"", *DOCUMENTS}
    return path.rpartition("/")[2] in DOCUMENTS


def homes(backup_id: str) -> tuple[str, str]:
    """Return the two folders in which the documents of a backup may lie."""
    return backup_id, f"{MANIFESTS}/{backup_id}"


def home_of(backup_id: str, paths: Iterable[str], *, boxed: bool) -> str:
    """Return the folder for the documents; ``boxed`` decides for a backup without artifacts."""
    inside = [path.startswith(f"{backup_id}/") for path in paths]
    box, manifests = homes(backup_id)
    return box if (all(inside) if inside else boxed) else manifests


def from_home(path: str, home: str) -> str:
    """Return the path of an artifact as seen from the folder of the documents."""
    if home.startswith(f"{MANIFESTS}/"):
        return f"../../{path}"
    return path.removeprefix(f"{home}/")


def check_places(backup_id: str, home: str, paths: Iterable[str]) -> None:
    """Raise `UnsafeName` if a manifest claims paths that no backup at this home may have."""
    for path in paths:
        safe_path(path, "artifact path")
        boxed = path.startswith(f"{backup_id}/")
        if is_reserved(path, backup_id) or boxed != (home == backup_id):
            raise UnsafeName(what="artifact path", name=path, reason="it is not this backup's")
