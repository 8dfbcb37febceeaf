from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES, COLUMNS = 40, 100  # one screen

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def run_demo(scratch: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch), "COLUMNS": "80", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=150,
        check=False,
    )


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A scratch folder that other users may enter: PostgreSQL refuses to run as root."""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-demo-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("stack", ["small", "full"])
def test_every_claim_of_the_demonstration_holds_on_one_screen_and_nothing_is_left(
    open_path: Path, stack: str
) -> None:
    done = run_demo(open_path, "--stack", stack)

    shown = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert len(shown) <= LINES
    assert max(map(len, shown)) <= COLUMNS
    assert "\x1b" not in done.stdout
    claims = sum(line.startswith("  ✓ ") for line in shown)
    assert claims > 10
    assert f"All {claims} claims" in shown[-1]
    assert list(open_path.iterdir()) == []


@pytest.mark.parametrize("store", ["rows", "uploads"])
def test_a_store_that_did_not_come_back_right_fails_the_demonstration(
    tmp_path: Path, store: str
) -> None:
    done = run_demo(tmp_path, "--sabotage", store)

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(rf"NOT TRUE: every row, vector, file.*\n.*different: .*{store}", done.stdout)
    assert "claims did NOT hold" in done.stdout.splitlines()[-1]
