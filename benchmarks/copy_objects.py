"""The copy of a bucket alone: `python -m benchmarks.copy_objects ENDPOINT BUCKET FOLDER`.

What rclone does, and no more: objects become files. Nothing is hashed for a vault, compressed or
sealed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from holdfast.model.artifact import Tree
from holdfast.sources._tree import write_tree
from holdfast.sources.objects import ObjectsOptions, ObjectsSource
from servers.s3 import KEY, SECRET


def main() -> None:
    """Read the command line and copy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copy_objects")
    parser.add_argument("endpoint")
    parser.add_argument("bucket")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    options = ObjectsOptions(
        url=f"s3://{given.bucket}", endpoint=given.endpoint, access_key=KEY, secret_key=SECRET
    )
    source = ObjectsSource("measured", options)
    with tempfile.TemporaryDirectory() as workspace, source.freeze(Path(workspace)) as frozen:
        for artifact in frozen.artifacts:
            if isinstance(artifact, Tree):
                write_tree(artifact, given.folder)


if __name__ == "__main__":
    main()
