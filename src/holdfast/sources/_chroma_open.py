"""Opening a scratch copy of a Chroma folder with Chroma's own code, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from holdfast.errors import ExtraMissing

from ._chroma_database import Collection

OPENER = Path(__file__).with_name("_chroma_opener.py")
QUIET = {"ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}
LONGEST = 300  # characters of what the program complained of


def require(package: str, what: str) -> None:
    """Raise `ExtraMissing` unless a Python package is installed."""
    if find_spec(package) is None:
        raise ExtraMissing(what=what, package=package, extra="chroma")


def ask_chroma(
    folder: Path, counts: Sequence[tuple[Collection, int]], workspace: Path, seconds: float
) -> list[str]:
    """Let Chroma open ``folder``, which this changes, and return one line for each problem.

    Every collection must count as expected, give records back, and answer a query.

    Raises:
        ExtraMissing: Chroma is not installed.

    """
    require("chromadb", "opening a Chroma backup")
    answer, complaints = workspace / "opened.json", workspace / "opened.err"
    job = {
        "path": str(folder),
        "answer": str(answer),
        "collections": [_wanted(collection, count) for collection, count in counts],
    }
    # -P: nothing that happens to lie in a folder is imported in place of a library.
    command = [sys.executable, "-P", str(OPENER), json.dumps(job)]
    with complaints.open("wb") as stderr:
        try:
            ended = subprocess.run(
                command,
                check=False,
                timeout=seconds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **QUIET},
            )
        except subprocess.TimeoutExpired:
            return [f"Chroma did not open the copy within {seconds:g} s"]
    if ended.returncode or not answer.exists():
        return [f"Chroma could not open the copy: {_outcome(ended.returncode, complaints)}"]
    found: dict[str, list[str]] = json.loads(answer.read_text(encoding="utf-8"))
    return [f"collection {title}: {line}" for title, lines in found.items() for line in lines]


def _wanted(collection: Collection, count: int) -> dict[str, object]:
    return {
        "tenant": collection.tenant,
        "database": collection.database,
        "name": collection.name,
        "title": collection.title,
        "count": count,
    }


def _outcome(status: int, complaints: Path) -> str:
    """Say how the program ended, and the last thing that it complained of."""
    lines = complaints.read_text(errors="replace").strip().splitlines()
    last = lines[-1][:LONGEST] if lines else "it said nothing"
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}: {last}"
    return f"it ended with {status}: {last}"
