"""The program ``holdfast``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:] == ["--version"]:
        # Answered without loading the command line: scripts ask this often.
        from . import __version__

        print(f"holdfast {__version__}")  # noqa: T201 - there is no face loaded yet to print it
        raise SystemExit(0)
    from .cli.app import run

    raise SystemExit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
