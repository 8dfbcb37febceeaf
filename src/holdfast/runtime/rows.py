"""The rows of the catalog: how runs, steps and backups are written into it and read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..errors import printable
from ..model.manifest import Manifest, encode
from ..model.runs import Process, Run, RunState, Step
from .database import Values


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant.astimezone(UTC).isoformat(timespec="microseconds")


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def run_values(run: Run) -> Values:
    """Return a run as a row of ``runs``."""
    return {
        "id": run.id,
        "verb": run.verb,
        "stack": printable(run.stack),
        "plan": printable(run.plan),
        "backup": printable(run.backup),
        "vault": printable(run.vault),
        "state": run.state,
        "partial": int(run.partial),
        "started_at": _text(run.started_at),
        "ended_at": _text(run.ended_at),
        "error_code": run.error_code,
        "error_text": printable(run.error_text),
        "figures": json.dumps(run.figures),
        "process": json.dumps(asdict(run.process)),
        "holdfast": run.holdfast,
    }


def run_of(row: Mapping[str, Any]) -> Run:
    """Return the run that a row tells of."""
    values = {name: value for name, value in row.items() if name != "number"}
    values |= {
        "state": RunState(row["state"]),
        "partial": bool(row["partial"]),
        "started_at": _instant(row["started_at"]),
        "ended_at": _instant(row["ended_at"]),
        "figures": json.loads(row["figures"]),
        "process": Process(**json.loads(row["process"])),
    }
    return Run(**values)


def step_values(run: str, step: Step) -> Values:
    """Return a step of a run as a row of ``steps``."""
    return {
        "run": run,
        "number": step.number,
        "step": printable(step.step),
        "subject": printable(step.subject),
        "state": step.state,
        "started_at": _text(step.started_at),
        "ended_at": _text(step.ended_at),
        "seconds": step.seconds,
        "detail": printable(step.detail),
    }


def step_of(row: Mapping[str, Any]) -> Step:
    """Return the step that a row tells of."""
    values = {name: value for name, value in row.items() if name != "run"}
    values |= {
        "state": RunState(row["state"]),
        "started_at": _instant(row["started_at"]),
        "ended_at": _instant(row["ended_at"]),
    }
    return Step(**values)


def backup_values(vault: str, manifest: Manifest) -> Values:
    """Return a manifest as a row of ``backups``."""
    return {
        "vault": vault,
        "id": manifest.id,
        "stack": manifest.stack,
        "sequence": manifest.sequence,
        "manifest": encode(manifest),
    }
