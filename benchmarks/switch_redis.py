"""The switch alone: `python -m benchmarks.switch_redis PORT RDB WORKSPACE`.

Stages an RDB for a live server as a restore does, and prints the seconds that the server then takes
to have it instead of its own data. It shows how long an application has to wait.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast.model.artifact import CHUNK, Chunks, Stream
from holdfast.runtime.registry import source_class


def main() -> None:
    """Stage, switch and forget what was there before."""
    port, rdb, workspace = sys.argv[1:]

    @contextmanager
    def opened() -> Iterator[Chunks]:
        with Path(rdb).open("rb") as file:
            yield iter(lambda: file.read(CHUNK), b"")

    kind = source_class("redis")
    source = kind("measured", kind.options_model(url=f"redis://127.0.0.1:{port}"))
    staged = source.staging("measured", Path(workspace))
    staged.fill([Stream("dump.rdb", opened, part="rdb")])
    begun = time.perf_counter()
    staged.activate()
    print(time.perf_counter() - begun)
    staged.settle(None)


if __name__ == "__main__":
    main()
