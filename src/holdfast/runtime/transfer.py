"""Export a backup as one file, and take such a file in again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageInvalid
from ..model.artifact import CHUNK, Chunk, Chunks
from ..model.manifest import Manifest
from ..ports import Observer
from .files import new_file
from .runs import run
from .session import Session

STANDARD = Path("-")  # standard output or input


def export_backup(
    session: Session, wanted: str, vaults: Sequence[str], file: Path, observe: Observer
) -> tuple[Manifest, int]:
    """Write a backup as one ``.tar``; returns its manifest and the size. Never overwrites.

    The file ``-`` is standard output.
    """
    listed = session.find(wanted, vaults or None)
    with run(session, "export", observe) as current:
        current.backup = listed.manifest.id
        size = 0
        with (
            current.around.step("export", listed.manifest.id, listed.manifest.size),
            listed.vault.export(listed.manifest) as chunks,
            _opened(file) as write,
        ):
            progress = current.around.progress("export", listed.manifest.id)
            for chunk in chunks:
                write(chunk)
                progress(len(chunk))
                size += len(chunk)
        return listed.manifest, size


def import_backup(
    session: Session, file: Path, vault_name: str | None, observe: Observer
) -> Manifest:
    """Take an exported backup into a vault, checking every byte. ``-`` is standard input."""
    names = list(session.stack.vaults)
    if vault_name is None and len(names) != 1:
        raise UsageInvalid(problem=f"name the vault to import into: {', '.join(names)}")
    vault = session.vault(vault_name or names[0])
    with run(session, "import", observe) as current:
        with current.around.step("import", file.name):
            manifest = vault.take(_chunks(file))
        current.backup, current.vault = manifest.id, vault.name
        return manifest


def _chunks(file: Path) -> Chunks:
    try:
        with sys.stdin.buffer if file == STANDARD else file.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except OSError as error:
        raise UsageInvalid(problem=f"{file} cannot be read: {error.strerror}") from error


@contextmanager
def _opened(file: Path) -> Iterator[Callable[[Chunk], object]]:
    if file == STANDARD:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    with new_file(file) as write:
        yield write
