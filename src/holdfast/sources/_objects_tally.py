"""How much of what was read of a bucket, and what a person should know of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from holdfast.model.facts import Facts, Json

from ._survey import Survey


@dataclass(slots=True)
class Tally(Survey):
    """Counts and notes of one reading of a bucket or of its tree.

    ``versions`` counts what was current once, marks of deletion included; None: they are not kept.
    Their bytes are not among ``size``. ``tagged`` objects are counted only where they are read.
    """

    objects: int = 0
    size: int = 0
    versions: int | None = None
    tagged: int | None = None
    details: dict[str, Json] = field(default_factory=dict)

    def add(self, size: int, *, tagged: bool = False) -> None:
        """Count one object."""
        self.objects += 1
        self.size += size
        if self.tagged is not None:
            self.tagged += tagged

    def add_version(self) -> None:
        """Count one old version."""
        self.versions = (self.versions or 0) + 1

    def facts(self) -> Facts:
        """Return what was counted."""
        counts = {"objects": self.objects, "bytes": self.size}
        if self.versions is not None:
            counts["versions"] = self.versions
        details = self.details if self.tagged is None else {**self.details, "tagged": self.tagged}
        # `super()` without arguments does not work in a dataclass with slots.
        return replace(Survey.facts(self), counts=counts, details=details)
