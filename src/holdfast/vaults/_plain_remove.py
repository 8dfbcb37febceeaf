"""Deleting backups from a plain vault, and sweeping up after runs that died.

A backup ends to exist in one step: its folder, or the folder of its documents, is renamed into the
trash; on a store without renames its manifest is removed. Before that the names of everything that
lies outside are written down in the trash, so that a sweep can finish what a crash cut short.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from ..errors import AppendOnly, BackupDamaged, BackupTooNew, RetentionHolds
from ..ports import Store
from ._plain_documents import (
    candidates,
    has_manifest,
    is_sealed,
    read_all,
    read_sealed,
    remove_empty_homes,
)
from ._plain_draft import clear_draft
from ._plain_layout import DRAFTS, METADATA, TRASH, TRASH_LIST, homes
from ._plain_locks import Locks
from ._plain_marks import MarkBook


def remove_backup(store: Store, backup_id: str, vault: str) -> None:
    """Delete a backup whose lock is held. A damaged one can go where it lies in its own folder."""
    box, manifests = homes(backup_id)
    home = box if has_manifest(store, box) else manifests
    if store.renames and home == box:
        store.rename(home, f"{TRASH}/{backup_id}")
    else:
        store.replace(_list_name(backup_id), json.dumps(_names(store, backup_id, vault)).encode())
        _end(store, home, backup_id)
    _empty(store, backup_id)


def _names(store: Store, backup_id: str, vault: str) -> list[str]:
    """Return every name that belongs to a backup."""
    try:
        return read_sealed(store, backup_id, vault).names()
    except (BackupDamaged, BackupTooNew):
        if not has_manifest(store, backup_id):
            raise  # its artifacts lie among those of others, and nothing says which they are
        return list(store.names(backup_id))


def _end(store: Store, home: str, backup_id: str) -> None:
    """Let a backup end to exist."""
    if store.renames:
        store.rename(home, f"{TRASH}/{backup_id}")
    else:
        store.delete(f"{home}/{METADATA}")


def _list_name(backup_id: str) -> str:
    return f"{TRASH}/{backup_id}{TRASH_LIST}/list"


def _listed_names(store: Store, backup_id: str) -> list[str]:
    try:
        names: list[str] = json.loads(store.read(_list_name(backup_id)))
    except FileNotFoundError:
        return []  # it lay in one folder, or the deletion had not begun
    return names


def _empty(store: Store, backup_id: str, owned: Collection[str] = ()) -> None:
    """Remove the bytes of a backup that has ended to exist, but no name that another one owns."""
    store.delete(f"{TRASH}/{backup_id}")
    for name in _listed_names(store, backup_id):
        if name not in owned:
            store.delete(name)
    remove_empty_homes(store, backup_id)
    store.delete(f"{TRASH}/{backup_id}{TRASH_LIST}")


def sweep(store: Store, vault: str, locks: Locks, marks: MarkBook) -> list[str]:
    """Remove what dead runs left; whatever a living process works on stays.

    So does, and is told, what the store keeps under a retention or because it is append-only.
    """
    lines = store.sweep()
    for backup_id in sorted({*store.folders(DRAFTS), *locks.ids()}):
        with locks.tried(backup_id) as mine, _told(f"unfinished backup {backup_id}", lines):
            if mine and clear_draft(store, backup_id):
                lines.append(f"unfinished backup {backup_id}")
    for backup_id in sorted({name.removesuffix(TRASH_LIST) for name in store.folders(TRASH)}):
        with locks.tried(backup_id) as mine, _told(f"half-deleted backup {backup_id}", lines):
            if mine:
                _finish_removing(store, vault, backup_id)
                lines.append(f"half-deleted backup {backup_id}")
    known = set(candidates(store))
    for backup_id in marks.ids():
        if backup_id not in known:
            marks.forget(backup_id)
            lines.append(f"marks of {backup_id}, which is no more")
    return lines


@contextmanager
def _told(what: str, lines: list[str]) -> Iterator[None]:
    """Go on where the store keeps something for now, and say so."""
    try:
        yield
    except (RetentionHolds, AppendOnly) as error:
        lines.append(f"{what} stays: {error}")


def _finish_removing(store: Store, vault: str, backup_id: str) -> None:
    """Finish a deletion that had begun; one that had not gets no further."""
    if is_sealed(store, backup_id):
        store.delete(f"{TRASH}/{backup_id}{TRASH_LIST}")
        store.delete(f"{TRASH}/{backup_id}")
        return
    _damaged, good = read_all(store, vault)
    owned = {name for sealed in good for name in sealed.names()}
    _empty(store, backup_id, owned)
