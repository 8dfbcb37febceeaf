"""Objects in an S3 server on this machine: many small ones, and few large ones, against rclone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from servers.s3 import KEY, SECRET, s3_server

from ..measure import Command, alternate
from ..stack import Options, Stack, remove
from ..table import Row, Section, seconds_row

MOST = 0.5  # of the time of rclone


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a bucket."""

    bucket: str
    title: str
    count: int
    size: int  # bytes of each object


SMALL = Content("small", "10,000 x 20 KB", 10_000, 20_000)
LARGE = Content("large", "20 x 64 MB", 20, 64_000_000)


def measure(work: Path, options: Options) -> Section:
    """Measure backups of a bucket of each kind, and restores of one that did not change."""
    work.mkdir()
    rows: list[Row] = []
    with s3_server(volume_megabytes=1024) as server:
        for content in (SMALL, LARGE):
            count = max(4, content.count // 50) if options.small else content.count
            _fill(server.endpoint, content, count)
            rows += _compared(work, server.endpoint, content, options)
    return Section(
        "Objects in S3",
        "A SeaweedFS server on the same machine, which needs as much of it as its clients do. "
        "rclone copies into a folder, with its defaults; Holdfast writes an archive into a plain "
        "vault, with content type, metadata and tags, hashes every byte, counts, seals and syncs. "
        "The contents are random, so there is nothing to compress.",
        tuple(rows),
    )


def _fill(endpoint: str, content: Content, count: int) -> None:
    argv = [sys.executable, "-m", "benchmarks.fill_bucket", endpoint, content.bucket]
    subprocess.run([*argv, str(count), str(content.size)], check=True)


def _compared(work: Path, endpoint: str, content: Content, options: Options) -> Iterator[Row]:
    component = {
        "source": "objects",
        "url": f"s3://{content.bucket}",
        "endpoint": endpoint,
        "access_key": KEY,
        "secret_key": SECRET,
    }
    stack = Stack(work / content.bucket, {"attachments": component})
    stack.write()
    alone = _alone(work / "alone", endpoint, content)
    ours = stack.backup(f"Holdfast backup, {content.title}")
    verified = stack.verify(f"Holdfast verify, {content.title}", "native")
    if shutil.which("rclone") is None:
        copied, measured, checked = alternate([alone, ours, verified], options.fewer(3))
        yield Row(f"rclone copy, {content.title}", "not installed")
        yield seconds_row(copied, ours=True)
        yield seconds_row(measured, ours=True)
    else:
        peer = _rclone(work / "copied", endpoint, content)
        commands = [peer, alone, ours, verified]
        theirs, copied, measured, checked = alternate(commands, options.fewer(3))
        yield seconds_row(theirs)
        yield seconds_row(copied, peer=theirs, ours=True)
        yield seconds_row(measured, peer=theirs, most=MOST, ours=True)
    yield seconds_row(checked, ours=True)


def _alone(folder: Path, endpoint: str, content: Content) -> Command:
    empty = partial(remove, folder)
    program = [sys.executable, "-m", "benchmarks.copy_objects"]
    return Command(
        f"Holdfast, the copy alone, {content.title}",
        [*program, endpoint, content.bucket, str(folder)],
        before=empty,
        after=empty,
        output=folder,
    )


def _rclone(folder: Path, endpoint: str, content: Content) -> Command:
    empty = partial(remove, folder)
    return Command(
        f"rclone copy, {content.title}",
        ["rclone", "--config", "", "copy", f"measured:{content.bucket}", str(folder)],
        before=empty,
        after=empty,
        environment={
            "RCLONE_CONFIG_MEASURED_TYPE": "s3",
            "RCLONE_CONFIG_MEASURED_PROVIDER": "Other",
            "RCLONE_CONFIG_MEASURED_ENDPOINT": endpoint,
            "RCLONE_CONFIG_MEASURED_ACCESS_KEY_ID": KEY,
            "RCLONE_CONFIG_MEASURED_SECRET_ACCESS_KEY": SECRET,
            "AWS_CA_BUNDLE": "",  # rclone 1.60 does not start with another one
        },
        output=folder,
    )
