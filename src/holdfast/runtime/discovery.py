"""Looking for stores in a folder: every kind of source looks for its own."""

from __future__ import annotations

from pathlib import Path

from ..errors import ExtraMissing, UsageInvalid
from ..i18n import _
from ..model.facts import Discovery
from .registry import SOURCES, source_class


def discover(folder: Path) -> list[Discovery]:
    """Return what all kinds of source find below a folder; nothing there is changed.

    A kind whose driver is not installed is passed over: `holdfast backup` will name what it needs
    when a configuration asks for it.

    Raises:
        UsageInvalid: it is no folder.

    """
    if not folder.is_dir():
        raise UsageInvalid(problem=_("{folder} is not a folder").format(folder=folder))
    found: list[Discovery] = []
    for kind in sorted(SOURCES):
        try:
            source = source_class(kind)
        except ExtraMissing:
            continue
        found += source.discover(folder)
    return found
