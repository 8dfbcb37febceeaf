"""Reading a stored tree of objects without writing it anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.errors import TreeUnsafe
from holdfast.model.artifact import Artifact, Chunks, Entry, EntryKind, Tree
from holdfast.model.facts import Facts, Inspection

from ._objects_entry import Described
from ._objects_keys import NotAKeyError, key_of, versioned_key
from ._objects_tally import Tally

MOST_PROBLEMS = 100


def inspect_objects(artifacts: Sequence[Artifact], component: str, *, versions: bool) -> Inspection:
    """Read one tree to its end, count it, and see whether each file is an object."""
    if len(artifacts) != 1 or not isinstance(artifacts[0], Tree):
        return Inspection(Facts(), ("it does not hold one tree of objects",))
    tally = Tally(versions=0 if versions else None)
    problems: list[str] = []
    with artifacts[0].open() as items:
        for entry, chunks in items:
            problem = _against(entry, chunks, tally, component)
            if problem and len(problems) < MOST_PROBLEMS:
                problems.append(f"{entry.path}: {problem}")
    return Inspection(tally.facts(), tuple(problems))


def _against(entry: Entry, chunks: Chunks, tally: Tally, component: str) -> str:
    """Count one entry; returns what is wrong with it."""
    if entry.kind is EntryKind.FOLDER:
        return ""
    size = sum(len(chunk) for chunk in chunks)
    if entry.kind is not EntryKind.FILE or size != entry.size:
        return f"it is a {entry.kind} with {size} bytes of data instead of {entry.size}"
    try:
        old = versioned_key(entry.path)
        if old is None:
            key_of(entry.path)
        described = Described.from_entry(entry, component)
    except NotAKeyError:
        return "no object has this path"
    except TreeUnsafe as error:
        return str(error)
    if old is None:
        tally.add(entry.size, tagged=bool(described.attributes.tags))
    elif tally.versions is not None:
        tally.add_version()
    return ""
