"""What writing a folder's files into a repository costs: `python -m benchmarks.write_blobs FOLDER`.

Without the command line around it, without its metadata, and with the peers left out: to see where
time goes while the pipeline is worked on. Walls lie on a busy machine; processor seconds less so.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from holdfast.model.artifact import CHUNK
from holdfast.stores.local import LocalStore
from holdfast.vaults.repository import gear
from holdfast.vaults.repository.opening import init_repository
from holdfast.vaults.repository.write import Writer

PROGRAMS: dict[str, Callable[[], gear.Search]] = {
    "compiled": gear.compiled,
    "numpy": gear.vectorized,
    "python": lambda: gear.plain,
}


def main() -> None:
    """Read the command line, write, and say what it took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.write_blobs")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", choices=PROGRAMS, default="compiled", help="that cuts")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder.parent) as place:
        _measure(options.folder, Path(place), PROGRAMS[options.program]())


def _measure(folder: Path, place: Path, program: gear.Search) -> None:
    repository = init_repository(LocalStore(place), "here", "secret", datetime.now(UTC))
    began, cpu, reader = time.perf_counter(), time.process_time(), time.thread_time()
    with Writer(repository) as writer:
        writer._chunker._search = program  # noqa: SLF001 - what is to be compared
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                writer.file(_read(path))
        reader = time.thread_time() - reader
        writer.finish()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    written = writer.written
    print(f"{written.data_blobs} blobs, {written.size / 1e6:.0f} MB in {written.stored / 1e6:.0f}")
    print(f"{wall:.2f} s, {cpu:.2f} s of processors, {reader:.2f} s of them reading and cutting")
    print(f"{_peak_memory() >> 20} MiB at the peak")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _peak_memory() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) << 10 if found else 0


if __name__ == "__main__":
    main()
