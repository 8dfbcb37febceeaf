"""What the tests of bad days share: a small stack to spoil, and how a failure must be said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.crash_world import Ran, World


def says(ran: Ran, status: int, *words: str) -> None:
    """Assert that a command failed with this status, in one line with a hint, naming the thing."""
    assert ran.status == status, f"{ran.status}\n{ran.out}\n{ran.err}"
    lines = [line for line in ran.err.splitlines() if line.startswith("holdfast: ")]
    assert len(lines) == 1, ran.err
    for word in words:
        assert word in lines[0], ran.err
    assert "  hint: " in ran.err or status == 130, ran.err


def told(ran: Ran, status: int, *words: str) -> None:
    """Assert that a command ended with this status and its report has these words."""
    assert ran.status == status, f"{ran.status}\n{ran.out}\n{ran.err}"
    for word in words:
        assert word in ran.out + ran.err, ran.out + ran.err


def newest(world: World) -> Path:
    """Return the folder of the newest backup."""
    return world.folder / "backups" / max(world.backups())


def rewrite_manifest(backup: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest as somebody would who also knows how to mend the sums."""
    path = backup / "metadata.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    mend_sums(backup)


def mend_sums(backup: Path) -> None:
    """Make SHA256SUMS agree with the files again."""
    sums = backup / "SHA256SUMS"
    names = [line.split("  ", 1)[1] for line in sums.read_text().splitlines()]
    lines = [f"{hashlib.sha256((backup / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    sums.write_text("".join(lines))


@contextmanager
def spoilt(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Have other content in a file for a while."""
    content = path.read_bytes()
    path.write_bytes(change(content))
    try:
        yield
    finally:
        path.write_bytes(content)


def flipped(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return change
