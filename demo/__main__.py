"""`python -m demo`: break a small application and bring it back, to see what Holdfast does."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .screen import Screen
from .story import Story


def main() -> int:
    """Run the demonstration; returns 0 only if every claim it made was true."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--sabotage",
        choices=("rows", "vectors", "uploads", "settings"),
        default="",
        help="spoil one store after the restore, to see that the demonstration can fail",
    )
    options = parser.parse_args()
    screen = Screen()
    screen.title("Holdfast: lose an application's memory, and bring it back")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
        Story(Path(folder), screen, options.sabotage).tell()
    return screen.verdict(time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
