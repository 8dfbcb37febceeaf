"""Which kinds of source and vault the configuration may name, and their options.

The adapters are neighbours that this package may not import, so whoever wires everything gives
them here; each is imported only when a file names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..model.options import Options

OptionsOf = Mapping[str, Callable[[], type[Options]]]


@dataclass(frozen=True, slots=True)
class Kinds:
    """For each kind: how to get the model of its options."""

    sources: OptionsOf
    vaults: OptionsOf


PLANNED_VAULTS = frozenset({"repository"})
PLANNED_KEYS = frozenset({"notify"})
"""Part of the design and refused by name, so that nobody looks for a typing mistake."""
