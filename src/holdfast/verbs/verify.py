"""Verify: read a backup as a restore would, and write down what was proved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import HoldfastError
from ..model.events import Progress
from ..model.facts import differences
from ..model.manifest import Component
from ..model.marks import Level, Proof
from ..ports import Clock, Observer, Source
from .observe import counted, observed
from .select import Listed


def verify(
    listed: Listed,
    level: Level,
    source_of: Callable[[Component], Source],
    clock: Clock,
    observe: Observer,
) -> Proof:
    """Verify one backup and mark it with the proof, whatever it is. Reads each byte once.

    ``checksums`` compares every byte with what was sworn; ``native`` also opens each artifact with
    its store's own means and compares what it counts with what was counted then.
    """
    problems = _problems(listed, level, source_of, clock, observe)
    proof = Proof(level, clock.now(), not problems, tuple(problems))
    listed.vault.mark(listed.manifest.id, lambda marks: marks.with_proof(proof))
    return proof


def _problems(
    listed: Listed,
    level: Level,
    source_of: Callable[[Component], Source],
    clock: Clock,
    observe: Observer,
) -> list[str]:
    native = level is not Level.CHECKSUMS
    manifest = listed.manifest
    total = 0 if native else manifest.size
    with observed(observe, clock, "read", manifest.id, total):
        told = partial(_tell, observe, "read", manifest.id)
        problems = listed.vault.verify(manifest, told, artifacts=not native)
    if native:
        for component in manifest.components:
            if component.status == "completed":
                with observed(observe, clock, "inspect", component.name):
                    problems += _inspect(listed, component, source_of, observe)
    return problems


def _inspect(
    listed: Listed,
    component: Component,
    source_of: Callable[[Component], Source],
    observe: Observer,
) -> list[str]:
    told = partial(_tell, observe, "inspect", component.name)
    artifacts = [
        counted(listed.vault.artifact(listed.manifest, stored), told)
        for stored in listed.manifest.of(component.name)
    ]
    with tempfile.TemporaryDirectory(prefix="holdfast-verify-") as workspace:
        try:
            inspection = source_of(component).inspect(artifacts, Path(workspace))
        except HoldfastError as error:
            return [str(error)]
    found = [] if component.evidence else list(inspection.problems)
    found += differences(component.facts, inspection.facts)
    return [f"{component.name}: {problem}" for problem in found]


def _tell(observe: Observer, step: str, subject: str, done: int) -> None:
    observe(Progress(step, subject, done))


