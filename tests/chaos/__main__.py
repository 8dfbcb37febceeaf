"""``python -m tests.chaos``: see the package."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from tests.chaos.trial import Trial


class _Both:
    """Writes what is said to a log as well."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def main() -> int:
    """Run a trial; returns the exit status: 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="commands to kill")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--log", type=Path, help="also write what is said to this file")
    asked = parser.parse_args()
    if asked.log is None:
        return trial(asked.kills, asked.seed)
    with asked.log.open("a") as log, redirect_stdout(_Both(sys.stdout, log)):
        return trial(asked.kills, asked.seed)


def trial(kills: int, seed: int) -> int:
    """Run one trial in a folder of its own, which stays if something went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-chaos-"))
    print(f"seed {seed}: {kills} kills in {folder}", flush=True)
    since = time.monotonic()
    one = Trial(folder, seed)
    try:
        one.run(kills)
    except AssertionError as violation:
        print(
            f"VIOLATION after {one.tally}\n{violation}\nseed {seed}; look at {folder}", flush=True
        )
        return 1
    minutes = (time.monotonic() - since) / 60
    shutil.rmtree(folder)
    print(f"seed {seed}: no violation in {minutes:.1f} minutes: {one.tally}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
