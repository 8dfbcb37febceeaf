"""Objects to measure with: `python -m benchmarks.fill_bucket ENDPOINT BUCKET COUNT BYTES`.

In a process of its own, so that what it needs of memory is not counted for others. Seeded, and
written by Amazon's own library, as applications do: large objects in parts of 8 MiB.
"""

from __future__ import annotations

import argparse
import io
import random
from concurrent.futures import ThreadPoolExecutor

from tests.objects_world import client

THREADS = 8
PER_FOLDER = 100


def main() -> None:
    """Read the command line, and make a bucket with so many objects of one size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fill_bucket")
    parser.add_argument("endpoint")
    parser.add_argument("bucket")
    parser.add_argument("count", type=int)
    parser.add_argument("size", type=int)
    options = parser.parse_args()
    api = client(options.endpoint)
    api.create_bucket(Bucket=options.bucket)

    def upload(number: int) -> None:
        body = io.BytesIO(random.Random(number).randbytes(options.size))
        api.upload_fileobj(body, options.bucket, f"{number // PER_FOLDER:04}/{number:06}.bin")

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(upload, range(options.count)))


if __name__ == "__main__":
    main()
