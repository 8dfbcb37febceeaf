"""Backups on the way: to a file and from one, and from one vault to another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from ..errors import BackupExists, UnknownName, UsageInvalid
from ..model.artifact import CHUNK, Chunk, Chunks
from ..model.manifest import Manifest
from ..model.marks import Marks
from ..ports import Exporting, Observer, Source, Vault
from ..verbs.copy import copy
from ..verbs.select import Listed
from ..verbs.surroundings import Surroundings
from .files import new_file
from .registry import scratch_vault
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
            _exporting(session, listed, current.around) as (vault, manifest),
            current.around.step("export", manifest.id, manifest.size),
            vault.export(manifest) as chunks,
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
            manifest = _taken(session, vault, _chunks(file), current.around)
        current.backup, current.vault = manifest.id, vault.name
        return manifest


@contextmanager
def _exporting(
    session: Session, listed: Listed, around: Surroundings
) -> Iterator[tuple[Exporting, Manifest]]:
    """Give a vault that can export a backup: its own, or a plain one that it is copied to."""
    if isinstance(listed.vault, Exporting):
        yield listed.vault, listed.manifest
        return
    with _plain_vault(session) as vault:
        copied = copy(listed, vault, _readers(session, listed.manifest), around)
        assert copied is not None  # noqa: S101 - the vault was empty
        yield vault, copied


def _taken(session: Session, vault: Vault, chunks: Chunks, around: Surroundings) -> Manifest:
    if isinstance(vault, Exporting):
        return vault.take(chunks)
    with _plain_vault(session) as plain:
        manifest = plain.take(chunks)
        listed = Listed(plain, manifest, Marks())
        copied = copy(listed, vault, _readers(session, manifest), around)
    if copied is None:
        raise BackupExists(path=f"backup {manifest.id}")
    return copied


@contextmanager
def _plain_vault(session: Session) -> Iterator[Exporting]:
    """Give an empty plain vault, which ends with the context."""
    with TemporaryDirectory(prefix="export-", dir=session.scratch()) as folder:
        yield cast("Exporting", scratch_vault(Path(folder)))


def copy_backups(
    session: Session, wanted: Sequence[str], source: str, target: str, observe: Observer
) -> list[Manifest]:
    """Copy backups from one vault to another, oldest first; without ``wanted``, all that lack.

    Returns those that were not there yet.
    """
    vault = session.vault(target)
    if source == target:
        raise UsageInvalid(problem=f"{source} cannot be copied to itself")
    if wanted:
        chosen = [session.find(name, [source]) for name in wanted]
    else:
        chosen = list(session.listings([source])[0].backups)
    copied = []
    for listed in chosen:
        with run(session, "copy", observe) as current:
            current.backup, current.vault = listed.manifest.id, target
            readers = _readers(session, listed.manifest)
            if manifest := copy(listed, vault, readers, current.around):
                copied.append(manifest)
    return copied


def _readers(session: Session, manifest: Manifest) -> list[Source]:
    """Return a source for each component, for what its guide says; not for unknown ones."""
    readers = []
    for component in manifest.components:
        with suppress(UnknownName):
            readers.append(session.reader(component))
    return readers


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
