"""The text of marks: JSON with a checksum of its own."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..model.marks import Level, Marks, Proof
from ._digest import digest_of

UNREADABLE = "marks unreadable"  # nobody knows whether it was pinned, so it counts as pinned
FORMAT = 1


def encode_marks(marks: Marks) -> bytes:
    """Return marks as JSON: the marks, and the SHA-256 of their text."""
    proofs = [
        asdict(proof) | {"at": proof.at.astimezone(UTC).isoformat()} for proof in marks.proofs
    ]
    text = json.dumps({"format": FORMAT, "pinned": marks.pinned, "proofs": proofs})
    return f'{{"marks": {text}, "sha256": "{digest_of(text.encode())}"}}\n'.encode()


def decode_marks(data: bytes) -> Marks:
    """Return the marks in ``data``; raises ``ValueError`` and its kin where they are not whole."""
    document: dict[str, Any] = json.loads(data)
    found = document["marks"]
    marks = Marks(found["pinned"], tuple(_proof(proof) for proof in found["proofs"]))
    if encode_marks(marks) != data:
        problem = "the checksum differs"
        raise ValueError(problem)
    return marks


def _proof(document: dict[str, Any]) -> Proof:
    return Proof(
        level=Level(document["level"]),
        at=datetime.fromisoformat(document["at"]),
        passed=document["passed"],
        problems=tuple(document["problems"]),
    )
