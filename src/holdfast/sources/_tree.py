"""File trees: a folder as a `Tree`, and a `Tree` as a folder again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.model.artifact import Tree, TreeItems

from ._plant import Planter
from ._survey import Survey
from ._walk import Exclude, walk


def tree_of(
    root: Path, name: str, *, exclude: Exclude | None = None, survey: Survey | None = None
) -> Tree:
    """Return what lies in a folder (or is a single file) as a tree, read when it is opened.

    Entries come in a stable order, ``.`` first and each folder before what is in it. ``exclude``
    is asked with the path below the root and whether it is a folder. ``survey`` learns what was
    read and what could not be kept; each reading adds to it. Reading raises `SourceMissing` or
    `SourceUnreadable`, which call the component ``name``.
    """
    met = survey or Survey()

    @contextmanager
    def opened() -> Iterator[TreeItems]:
        items = walk(root, component=name, survey=met, exclude=exclude)
        try:
            yield items
        finally:
            items.close()

    return Tree(name, opened)


def write_tree(tree: Tree, root: Path, *, component: str = "") -> list[str]:
    """Write a tree into the folder ``root``, which must be new or empty; durable on return.

    Returns one line for each attribute that could not be kept here, an owner for example. On
    failure what was written stays: whoever owns ``root`` removes it.

    Raises:
        TreeUnsafe: an entry leads out of ``root``, comes twice, or does not fit the others.
        NoSpace: the file system is full.
        TargetUnfit: the file system refuses it for another reason.

    """
    with (
        tree.open() as items,
        Planter(root, component or tree.name, apart=tree.apart) as planter,
    ):
        for entry, chunks in items:
            planter.add(entry, chunks)
        planter.finish()
    return planter.notes


__all__ = ["Exclude", "Planter", "Survey", "tree_of", "walk", "write_tree"]
