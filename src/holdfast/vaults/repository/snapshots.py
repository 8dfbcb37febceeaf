"""Snapshot files: which tree was what, when ("Snapshots").

Ours say by their tags what they are: ``stack:NAME`` and ``backup:ID``. A snapshot is made last of
all that belongs to a backup, and removing it is what removes a backup.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from holdfast.errors import RepositoryDamaged

from .blobs import ID_SIZE
from .damage import DamagedError, damage_in
from .gotext import SECOND, time_of, time_text
from .repository import Repository
from .unpacked import from_json, to_json

FOLDER = "snapshots"
LARGEST = 16 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot; ``name`` is that of its file, empty before it is stored."""

    time: int  # nanoseconds since 1970
    tree: bytes
    paths: Sequence[str]
    tags: Sequence[str] = ()
    parent: str = ""  # the name of the snapshot that files were compared with
    hostname: str = ""
    username: str = ""
    program: str = ""
    original: str = ""  # the name it had before its tags were changed
    name: str = ""

    @property
    def instant(self) -> datetime:
        """When it was made, to the microsecond."""
        return datetime.fromtimestamp(self.time // SECOND, UTC).replace(
            microsecond=self.time % SECOND // 1000
        )


def new_snapshot(
    instant: datetime, tree: bytes, paths: Sequence[str], tags: Sequence[str], program: str
) -> Snapshot:
    """Return a snapshot of this machine and user."""
    try:
        username = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        username = str(os.geteuid())
    nanoseconds = int(instant.timestamp()) * SECOND + instant.microsecond * 1000
    return Snapshot(nanoseconds, tree, paths, tags, "", socket.gethostname(), username, program)


def save_snapshot(repository: Repository, snapshot: Snapshot) -> str:
    """Store a snapshot, durably; from then on it exists. Returns its name."""
    return repository.save(FOLDER, encode_snapshot(snapshot))


def load_snapshot(repository: Repository, name: str) -> Snapshot:
    """Return a snapshot.

    Raises:
        FileNotFoundError: there is none of this name.
        RepositoryDamaged: it is not what was stored.

    """
    document = repository.load(FOLDER, name, LARGEST)
    with damage_in(repository.where, f"{FOLDER}/{name}"):
        return decode_snapshot(document, name)


def snapshots(repository: Repository) -> Iterator[Snapshot | RepositoryDamaged]:
    """Give every snapshot there is, in no order; of a damaged one the error that names it.

    Index files must be looked for after this, not before: a snapshot that is stored meanwhile would
    refer to what no index known by then lists.
    """
    for name in repository.names(FOLDER):
        try:
            yield load_snapshot(repository, name)
        except FileNotFoundError:
            continue  # it was removed just now
        except RepositoryDamaged as error:
            yield error


def delete_snapshot(repository: Repository, name: str) -> None:
    """Remove a snapshot: its backup stops to exist. Its blobs stay until they are pruned."""
    repository.store.delete(f"{FOLDER}/{name}")


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the document of a snapshot file."""
    document: dict[str, Any] = {"time": time_text(snapshot.time)}
    if snapshot.parent:
        document["parent"] = snapshot.parent
    document |= {
        "tree": snapshot.tree.hex(),
        "paths": list(snapshot.paths),
        "hostname": snapshot.hostname,
        "username": snapshot.username,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "tags": list(snapshot.tags),
        "original": snapshot.original,
        "program_version": snapshot.program,
    }
    return to_json({name: value for name, value in document.items() if value})


def decode_snapshot(document: bytes, name: str) -> Snapshot:
    """Return what a snapshot file says.

    Raises:
        DamagedError: it is not a snapshot.

    """
    found = from_json(document)
    tree = _id(found.get("tree"))
    return Snapshot(
        time=time_of(found.get("time")),
        tree=tree,
        paths=_texts(found.get("paths")),
        tags=_texts(found.get("tags")),
        name=name,
        parent=_text(found.get("parent")),
        hostname=_text(found.get("hostname")),
        username=_text(found.get("username")),
        program=_text(found.get("program_version")),
        original=_text(found.get("original")),
    )


def _id(value: object) -> bytes:
    try:
        id_ = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        id_ = b""
    if len(id_) != ID_SIZE:
        raise DamagedError("it refers to no tree")
    return id_


def _texts(value: object) -> Sequence[str]:
    return tuple(_text(one) for one in value) if isinstance(value, list) else ()


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DamagedError(f"{value!r} is not text")
    return value
