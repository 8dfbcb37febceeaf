"""Marks: what is learned of a sealed backup later. They lie beside it and never change it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Level(StrEnum):
    """How thoroughly a backup was verified; each level includes the ones before it."""

    CHECKSUMS = "checksums"
    NATIVE = "native"
    REHEARSE = "rehearse"


@dataclass(frozen=True, slots=True)
class Proof:
    """One verification: what was done, when, and whether everything held."""

    level: Level
    at: datetime
    passed: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one backup. ``pinned`` is the reason it is kept for ever; None: not pinned."""

    pinned: str | None = None
    proofs: tuple[Proof, ...] = ()

    @property
    def verified(self) -> Level | None:
        """The highest level that passed, if the newest verification did; otherwise None."""
        if not self.proofs or not self.proofs[-1].passed:
            return None
        order = list(Level)
        return max((p.level for p in self.proofs if p.passed), key=order.index)

    @property
    def failed(self) -> bool:
        """Whether the newest verification found a problem: such a backup is no longer good."""
        return bool(self.proofs) and not self.proofs[-1].passed

    def with_proof(self, proof: Proof, keep: int = 20) -> Marks:
        """Return the marks with one more proof; only the newest ``keep`` are kept."""
        return replace(self, proofs=(*self.proofs, proof)[-keep:])
