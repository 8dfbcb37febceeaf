"""The program ``holdfast``."""

from __future__ import annotations

import gc
import sys

# Objects made between two looks for those that only hold each other. Python's own 700 is for
# programs that begin with little: here a look for each 700 of all that is loaded takes 30 ms.
_BETWEEN_LOOKS = 10_000
# Seconds until a thread that computes gives way to one that waits: Python's own 5 ms are as long as
# our threads hash, encrypt or write for between two steps that need the interpreter.
_GIVE_WAY = 0.0005


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:] == ["--version"]:
        # Answered without loading the command line: scripts ask this often.
        from . import __version__

        print(f"holdfast {__version__}")  # noqa: T201 - there is no face loaded yet to print it
        raise SystemExit(0)
    gc.set_threshold(_BETWEEN_LOOKS)
    sys.setswitchinterval(_GIVE_WAY)
    from .cli.app import run

    status = run(sys.argv[1:])
    gc.freeze()  # or the interpreter looks through everything once more on its way out: 50 ms
    raise SystemExit(status)


if __name__ == "__main__":
    main()
