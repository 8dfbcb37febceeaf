"""Verify: read a backup as a restore would, and write down what was proved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ..errors import HoldfastError
from ..model.facts import differences
from ..model.manifest import Component
from ..model.marks import Level, Proof
from ..ports import Source
from .select import Listed
from .surroundings import Surroundings, counted


def verify(
    listed: Listed, level: Level, source_of: Callable[[Component], Source], around: Surroundings
) -> Proof:
    """Verify one backup and mark it with the proof, whatever it is. Reads each byte once.

    ``checksums`` compares every byte with what was sworn; ``native`` also opens each artifact with
    its store's own means and compares what it counts with what was counted then.
    """
    problems = _read(listed, level, around)
    if level is not Level.CHECKSUMS:
        for component in listed.manifest.components:
            if component.status == "completed":
                problems += _inspect(listed, component, source_of, around)
    proof = Proof(level, around.clock.now(), not problems, tuple(problems))
    listed.vault.mark(listed.manifest.id, lambda marks: marks.with_proof(proof))
    return proof


def _read(listed: Listed, level: Level, around: Surroundings) -> list[str]:
    """Read what no inspection will read."""
    everything = level is Level.CHECKSUMS
    manifest = listed.manifest
    with around.step("read", manifest.id, manifest.size if everything else 0):
        progress = around.progress("read", manifest.id)
        return listed.vault.verify(manifest, progress, artifacts=everything)


def _inspect(
    listed: Listed,
    component: Component,
    source_of: Callable[[Component], Source],
    around: Surroundings,
) -> list[str]:
    stored = listed.manifest.of(component.name)
    progress = around.progress("inspect", component.name)
    try:
        with (
            around.step("inspect", component.name, sum(one.content_size for one in stored)),
            TemporaryDirectory(prefix="verify-", dir=around.scratch) as workspace,
        ):
            artifacts = [
                counted(listed.vault.artifact(listed.manifest, one), progress) for one in stored
            ]
            inspection = source_of(component).inspect(artifacts, Path(workspace))
    except HoldfastError as error:
        return [str(error)]
    found = [] if component.evidence else list(inspection.problems)
    found += differences(component.facts, inspection.facts)
    return [f"{component.name}: {problem}" for problem in found]
