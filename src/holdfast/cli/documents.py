"""Results as JSON documents. Their fields are interface: they may grow, and never change."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..runtime.backups import BackupReport
    from ..runtime.restores import RestorePlan, RestoreReport
    from ..verbs.select import Listed


def show(document: object) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(document, default=_plain, ensure_ascii=False, indent=2))


FORMS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    (datetime, lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    (Enum, lambda value: value.value),
    (Path, str),
    (Mapping, dict),
    ((tuple, set, frozenset), list),
)


def _plain(value: object) -> object:
    for kind, form in FORMS:
        if isinstance(value, kind):
            return form(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def plain(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, those within it too."""
    return asdict(value)


def backup_row(listed: Listed) -> dict[str, Any]:
    """Return one backup as `list` shows it."""
    manifest, marks = listed.manifest, listed.marks
    return {
        "id": manifest.id,
        "vault": listed.vault.name,
        "stack": manifest.stack,
        "created_at": manifest.created_at,
        "sequence": manifest.sequence,
        "status": manifest.status,
        "good": listed.good,
        "plan": manifest.plan,
        "description": manifest.description,
        "size": manifest.size,
        "components": [c.name for c in manifest.components if c.status == "completed"],
        "failed": [c.name for c in manifest.components if c.status != "completed"],
        "verified": marks.verified,
        "pinned": marks.pinned,
    }


def backup_document(listed: Listed) -> dict[str, Any]:
    """Return one backup as `show` shows it: all of its manifest, and its marks."""
    return {
        **backup_row(listed),
        "manifest": asdict(listed.manifest),
        "marks": asdict(listed.marks),
    }


def backup_report(report: BackupReport) -> dict[str, Any]:
    """Return what a backup came to."""
    manifest = report.manifest
    return {
        "run": report.run,
        "id": manifest.id,
        "status": "completed" if report.result.complete else "partial",
        "created_at": manifest.created_at,
        "seconds": round(report.seconds, 3),
        "size": manifest.size,
        "skew_seconds": manifest.skew_seconds,
        "vaults": {name: sealed.id for name, sealed in report.result.sealed.items()},
        "components": {
            c.name: {
                "status": c.status,
                "instant": c.instant,
                "seconds": c.seconds,
                "exact": c.exact,
                "counts": dict(c.facts.counts),
                "error": c.error,
            }
            for c in manifest.components
        },
        "lost_vaults": {name: str(error) for name, error in report.result.lost_vaults.items()},
        "verified": {
            name: {"level": proof.level, "passed": proof.passed, "problems": list(proof.problems)}
            for name, proof in report.proofs.items()
        },
        "pruned": report.pruned,
    }


def restore_plan(plan: RestorePlan) -> dict[str, Any]:
    """Return what a restore would change."""
    return {
        "backup": plan.listed.manifest.id,
        "vault": plan.listed.vault.name,
        "created_at": plan.listed.manifest.created_at,
        "components": {
            change.component: {
                "target": change.target,
                "now": counts(change.now),
                "then": counts(change.then),
                "replaces": change.replaces,
                "in_use_by": list(change.occupants),
                "notes": list(change.now.notes),
            }
            for change in plan.changes
        },
    }


def restore_report(report: RestoreReport) -> dict[str, Any]:
    """Return what a restore came to."""
    return {
        "run": report.run,
        "backup": report.backup,
        "status": "completed",
        "seconds": round(report.seconds, 3),
        "components": {name: counts(facts) for name, facts in report.result.facts.items()},
        "violations": [asdict(violation) for violation in report.result.violations],
        "replaced": dict(report.result.kept),
    }


def counts(facts: Facts) -> dict[str, int]:
    """Return the counts of facts."""
    return dict(facts.counts)
