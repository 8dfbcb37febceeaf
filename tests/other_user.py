"""Becoming another user in a test: root may, if that user can run this Python at all."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

NOBODY = 65534


def can_run_python() -> bool:
    """Tell whether another user may get at this interpreter: not if it lies in root's home."""
    places = {Path(sys.executable).resolve(), Path(sys.base_prefix).resolve()}
    folders = {parent for place in places for parent in place.parents}
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)


as_other_user = pytest.mark.skipif(
    os.geteuid() != 0 or not can_run_python(),
    reason="only root becomes another user, who must be able to run this Python",
)
