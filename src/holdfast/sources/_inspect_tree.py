"""Reading a stored tree without writing it anywhere."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.model.artifact import Artifact, Entry, EntryKind, Tree
from holdfast.model.facts import Facts, Inspection

from ._survey import Survey

MOST_PROBLEMS = 100


def inspect_tree(artifacts: Sequence[Artifact]) -> Inspection:
    """Read one tree to its end, count it, and see whether every entry has its folder."""
    if len(artifacts) != 1 or not isinstance(artifacts[0], Tree):
        return Inspection(Facts(), ("it does not hold one file tree",))
    survey = Survey()
    folders: set[str] = set()
    problems: list[str] = []
    with artifacts[0].open() as items:
        for entry, chunks in items:
            size = sum(len(chunk) for chunk in chunks)
            survey.count(entry)
            problem = _against(entry, size, folders)
            if problem and len(problems) < MOST_PROBLEMS:
                problems.append(f"{entry.path}: {problem}")
            if entry.kind is EntryKind.FOLDER:
                folders.add(entry.path)
    if not folders:
        problems.append("it has no folder at all")
    return Inspection(survey.facts(), tuple(problems))


def _against(entry: Entry, size: int, folders: set[str]) -> str:
    if size != entry.stored_size:
        return f"it has {size} bytes of data instead of {entry.stored_size}"
    folder = entry.path.rpartition("/")[0] or "."
    if entry.path != "." and folder not in folders:
        return "its folder did not come before it"
    return ""
