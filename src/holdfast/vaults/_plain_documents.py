"""The small files of a backup beside its artifacts: what they must say, and reading them back.

``SHA256SUMS`` follows from the manifest and the guide alone, byte by byte, so whatever is changed
in one of the three no longer agrees with the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC

from ..errors import BackupDamaged, BackupNotFound, BackupTooNew, UnsafeName
from ..model.manifest import Manifest, Stored, decode, encode
from ..model.names import safe_backup_id
from ..ports import Damaged, Store
from ._digest import digest_of
from ._plain_layout import (
    DRAFTS,
    GUIDE,
    MANIFESTS,
    META_SUFFIX,
    METADATA,
    OWN,
    SUMS,
    TRASH,
    TRASH_LIST,
    check_places,
    from_home,
    homes,
)

MOST_DOCUMENT = 16 << 20  # bytes; a manifest has a few hundred for each artifact
_LINE = re.compile(rb"([0-9a-f]{64})  (.+)\n")


@dataclass(frozen=True, slots=True)
class Sealed:
    """A backup as its documents describe it, and the folder that they lie in."""

    manifest: Manifest
    home: str
    metadata: bytes  # as they lie there
    sums: bytes

    @property
    def guide_sha256(self) -> str:
        """The SHA-256 that ``RESTORE.md`` must have."""
        return _listed(self.sums, GUIDE)

    @property
    def flat(self) -> bool:
        """Whether the artifacts lie elsewhere than the documents."""
        return self.home != self.manifest.id

    def names(self) -> list[str]:
        """Return every name that belongs to the backup, the manifest last."""
        artifacts = [stored.path for stored in self.manifest.artifacts]
        beside = list(metas(self.manifest)) if self.flat else []
        documents = [f"{self.home}/{name}" for name in (GUIDE, SUMS, METADATA)]
        return [*artifacts, *beside, *documents]


def documents(manifest: Manifest, guide: str, home: str) -> dict[str, bytes]:
    """Return the documents of a backup by their names in the vault, the manifest last."""
    metadata, text = encode(manifest), guide.encode("utf-8", "backslashreplace")
    found = metas(manifest) if home != manifest.id else {}
    found[f"{home}/{GUIDE}"] = text
    found[f"{home}/{SUMS}"] = sums(manifest, home, digest_of(text), digest_of(metadata))
    found[f"{home}/{METADATA}"] = metadata
    return found


def sums(manifest: Manifest, home: str, guide_sha256: str, metadata_sha256: str) -> bytes:
    """Return ``SHA256SUMS`` as ``sha256sum -c`` reads it in the folder of the documents."""
    lines = [(stored.sha256, from_home(stored.path, home)) for stored in manifest.artifacts]
    lines += [(guide_sha256, GUIDE), (metadata_sha256, METADATA)]
    return "".join(f"{sha256}  {path}\n" for sha256, path in lines).encode(
        "utf-8", "surrogateescape"
    )


def metas(manifest: Manifest) -> dict[str, bytes]:
    """Return the ``.meta`` documents that lie beside the artifacts of a flat layout."""
    return {stored.path + META_SUFFIX: _meta(manifest, stored) for stored in manifest.artifacts}


def _meta(manifest: Manifest, stored: Stored) -> bytes:
    document = {
        "format": 1,
        "backup": manifest.id,
        "stack": manifest.stack,
        "component": stored.component,
        "part": stored.part,
        "timestamp": manifest.created_at.astimezone(UTC).isoformat(timespec="seconds"),
        "size": stored.size,
        "sha256": stored.sha256,
        "encoding": stored.encoding,
        "labels": dict(stored.labels),
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _listed(lines: bytes, name: str) -> str:
    """Return the SHA-256 that a list of sums gives for a name; empty if it has none."""
    for sha256, path in _LINE.findall(lines):
        if path == name.encode():
            return str(sha256, "ascii")
    return ""


# --- reading ---


def read_document(store: Store, name: str, backup_id: str) -> bytes:
    """Return a document whole, if it is no larger than any may be.

    Raises ``FileNotFoundError`` where there is none.
    """
    data = bytearray()
    with store.get(name) as chunks:
        for chunk in chunks:
            data += chunk
            if len(data) > MOST_DOCUMENT:
                raise BackupDamaged(backup=backup_id, path=name, reason="it is far too large")
    return bytes(data)


def read_sealed(store: Store, backup_id: str, vault: str) -> Sealed:
    """Return a sealed backup.

    Raises:
        BackupNotFound: there is none of that id.
        BackupDamaged: its documents do not agree with each other.
        BackupTooNew: a later version of Holdfast wrote it.

    """
    safe_backup_id(backup_id)
    for home in homes(backup_id):
        try:
            metadata = read_document(store, f"{home}/{METADATA}", backup_id)
        except FileNotFoundError:
            continue
        return _checked(store, backup_id, home, metadata)
    raise BackupNotFound(backup=backup_id, where=vault)


def _checked(store: Store, backup_id: str, home: str, metadata: bytes) -> Sealed:
    def damaged(path: str, reason: str) -> BackupDamaged:
        return BackupDamaged(backup=backup_id, path=f"{home}/{path}", reason=reason)

    try:
        found = read_document(store, f"{home}/{SUMS}", backup_id)
    except FileNotFoundError:
        raise damaged(SUMS, "it is missing") from None
    digest = digest_of(metadata)
    if _listed(found[-200:], METADATA) != digest:
        raise damaged(METADATA, f"its checksum is not the one in {SUMS}")
    manifest = decode(metadata, backup_id)
    sealed = Sealed(manifest, home, metadata, found)
    try:
        check_places(backup_id, home, (stored.path for stored in manifest.artifacts))
    except UnsafeName as error:
        raise damaged(METADATA, str(error)) from error
    if found != sums(manifest, home, sealed.guide_sha256, digest):
        raise damaged(SUMS, "it does not say what the manifest says")
    return sealed


def has_manifest(store: Store, home: str) -> bool:
    """Tell whether there is a manifest in a folder."""
    try:
        with store.get(f"{home}/{METADATA}"):
            return True
    except FileNotFoundError:
        return False


def is_sealed(store: Store, backup_id: str) -> bool:
    """Tell whether a backup of this id exists, whole or damaged."""
    return any(has_manifest(store, home) for home in homes(backup_id))


def remove_empty_homes(store: Store, backup_id: str) -> None:
    """Remove the folders of a backup that is no more, where nothing is left in them."""
    for home in homes(backup_id):
        if next(iter(store.names(home)), None) is None:
            store.delete(home)


def candidates(store: Store) -> list[str]:
    """Return the ids of all that may be a backup: folders, at the root and of documents."""
    boxes = [name for name in store.folders() if name not in {OWN, MANIFESTS}]
    return sorted({*boxes, *store.folders(MANIFESTS)})


def read_all(store: Store, vault: str) -> tuple[list[Damaged], list[Sealed]]:
    """Return every backup: those that cannot be trusted, and the good ones by sequence."""
    damaged: list[Damaged] = []
    good: list[Sealed] = []
    for backup_id in candidates(store):
        try:
            good.append(read_sealed(store, backup_id, vault))
        except (BackupDamaged, BackupTooNew) as error:
            damaged.append(Damaged(backup_id, str(error)))
        except (BackupNotFound, UnsafeName):
            if reason := _remains(store, backup_id):
                damaged.append(Damaged(backup_id, reason))
    good.sort(key=lambda s: (s.manifest.sequence, s.manifest.created_at, s.manifest.id))
    return damaged, good


def _remains(store: Store, backup_id: str) -> str:
    """Return why a folder without a manifest looks like a backup; empty for any other folder."""
    if f"{backup_id}{TRASH_LIST}" in store.folders(TRASH) or backup_id in store.folders(DRAFTS):
        return ""  # it is being made, or deleted
    for home in homes(backup_id):
        names = set(_names_right_in(store, home))
        if METADATA in names:
            return f"{home} is not a name that a backup can have"
        if {SUMS, GUIDE} <= names:
            return f"{home}/{METADATA} is missing"
    return ""


def _names_right_in(store: Store, folder: str) -> Iterator[str]:
    start = len(folder) + 1
    return (rest for name in store.names(folder) if "/" not in (rest := name[start:]))
