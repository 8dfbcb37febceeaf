"""`python -m demo`: break a small application and bring it back, to see what Holdfast does."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .screen import Screen
from .stages import stage
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
    parser.add_argument(
        "--stack",
        choices=("small", "full"),
        default="small",
        help="full: on PostgreSQL, Qdrant, Redis and S3, which are started for it and end with it",
    )
    options = parser.parse_args()
    screen = Screen()
    screen.title("Holdfast: lose an application's memory, and bring it back")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as folder:
        home = Path(folder, "library")
        home.mkdir()
        with stage(options.stack, home) as chosen:
            Story(home, chosen, screen, options.sabotage).tell()
    return screen.verdict(time.monotonic() - begun)


if __name__ == "__main__":
    sys.exit(main())
