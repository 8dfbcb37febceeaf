"""The copy alone: `python -m benchmarks.copy_sqlite DATABASE FOLDER`.

What the SQLite source gives while it is held still, written to files and synced: no hashing, no
counting, no seal. It shows what of a backup's time is the copy.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from holdfast.runtime.registry import source_class


def main() -> None:
    """Copy a database."""
    database, folder = map(Path, sys.argv[1:])
    kind = source_class("sqlite")
    source = kind("measured", kind.options_model(path=database))
    folder.mkdir()
    with (
        tempfile.TemporaryDirectory(dir=folder) as workspace,
        source.freeze(Path(workspace)) as frozen,
    ):
        for artifact in frozen.artifacts:
            with artifact.open() as chunks, (folder / artifact.name).open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())


if __name__ == "__main__":
    main()
