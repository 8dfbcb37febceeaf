"""The workspace of stagings that need none: stores that are files are staged beside themselves."""

from __future__ import annotations

from pathlib import Path

NOWHERE = Path("/nowhere")
