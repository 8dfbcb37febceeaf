"""Backups on their way out of a plain vault and into one, as a ``.tar``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

from ..errors import BackupDamaged, NoSpace, UnsafeName
from ..model.artifact import Chunks
from ..model.manifest import Manifest, Stored, decode
from ..model.names import safe_backup_id
from ..ports import Store
from ._digest import digest_of, verified
from ._plain_documents import Sealed, metas, read_document, sums
from ._plain_draft import PlainDraft
from ._plain_export import Members, ending, header, padding, unusable
from ._plain_layout import GUIDE, META_SUFFIX, METADATA, SUMS, Placing, check_places, homes
from ._plain_read import bytes_of

Drafting = Callable[[Placing], AbstractContextManager[PlainDraft]]


def export(store: Store, sealed: Sealed) -> Chunks:
    """Give a backup as a tar. Raises `BackupDamaged` when a byte is not as was sworn."""
    backup_id, home = sealed.manifest.id, sealed.home
    total = 0
    documents = {f"{home}/{METADATA}": sealed.metadata, f"{home}/{SUMS}": sealed.sums}
    documents[f"{home}/{GUIDE}"] = _guide(store, sealed)
    for name, text in documents.items():
        total += len(part := _whole(name, text))
        yield part
    beside = metas(sealed.manifest) if sealed.flat else {}
    for stored in sealed.manifest.artifacts:
        yield (before := header(stored.path, stored.size))
        with bytes_of(store, sealed.manifest, stored) as chunks:
            yield from verified(chunks, stored, backup_id)
        yield (after := padding(stored.size))
        total += len(before) + stored.size + len(after)
        if sealed.flat:
            total += len(
                part := _whole(stored.path + META_SUFFIX, beside[stored.path + META_SUFFIX])
            )
            yield part
    yield ending(total)


def _whole(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + padding(len(data))


def _guide(store: Store, sealed: Sealed) -> bytes:
    path = f"{sealed.home}/{GUIDE}"
    try:
        text = read_document(store, path, sealed.manifest.id)
    except FileNotFoundError:
        raise BackupDamaged(backup=sealed.manifest.id, path=path, reason="it is missing") from None
    if digest_of(text) != sealed.guide_sha256:
        raise BackupDamaged(backup=sealed.manifest.id, path=path, reason="its checksum differs")
    return text


def take(chunks: Chunks, store: Store, drafting: Drafting, vault: str) -> Manifest:
    """Take an export into a draft, byte by byte as its manifest says, and seal it."""
    members = Members(chunks)
    name, size = members.next()
    home = name.removesuffix(f"/{METADATA}")
    metadata = members.document(size)
    manifest = _manifest(metadata, home, name)
    _check_room(store, manifest)
    texts = {
        SUMS: _expected(members, f"{home}/{SUMS}"),
        GUIDE: _expected(members, f"{home}/{GUIDE}"),
    }
    if texts[SUMS] != sums(manifest, home, digest_of(texts[GUIDE]), digest_of(metadata)):
        raise unusable(f"{home}/{SUMS} does not say what the manifest says")
    placing = Placing(vault, manifest.stack, manifest.id, manifest.created_at, "")
    with drafting(placing) as draft:
        beside = metas(manifest) if home != manifest.id else {}
        for stored in manifest.artifacts:
            _take_artifact(members, draft, store, stored, manifest.id)
            if beside:
                _compare_meta(members, stored, beside[stored.path + META_SUFFIX])
        members.end()
        documents = {f"{home}/{name}": text for name, text in reversed(texts.items())}
        draft.publish(beside | documents | {f"{home}/{METADATA}": metadata}, home)
    return manifest


def _manifest(metadata: bytes, home: str, name: str) -> Manifest:
    try:
        backup_id = safe_backup_id(json.loads(metadata)["id"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise unusable(f"it does not begin with a manifest, but with {name}") from error
    manifest = decode(metadata, backup_id)
    if home not in homes(backup_id):
        raise UnsafeName(what="folder", name=home, reason=f"it is not that of {backup_id}")
    check_places(backup_id, home, (stored.path for stored in manifest.artifacts))
    return manifest


def _check_room(store: Store, manifest: Manifest) -> None:
    free = store.free()
    if free is not None and free < manifest.size:
        raise NoSpace(path=f"{manifest.id} ({manifest.size} bytes, {free} are free)")


def _expected(members: Members, name: str) -> bytes:
    found, size = members.next()
    _check_name(found, name)
    return members.document(size)


def _check_name(found: str, expected: str) -> None:
    if found != expected:
        raise unusable(f"{found} where {expected} should be")


def _take_artifact(
    members: Members, draft: PlainDraft, store: Store, stored: Stored, backup_id: str
) -> None:
    found, size = members.next()
    _check_name(found, stored.path)
    if size != stored.size:
        raise unusable(f"{found} has {size} bytes where {stored.size} were stored")
    place = draft.adopted(stored.path, stored.component)
    store.put(place, verified(members.content(size), stored, backup_id))


def _compare_meta(members: Members, stored: Stored, expected: bytes) -> None:
    if _expected(members, stored.path + META_SUFFIX) != expected:
        raise unusable(f"{stored.path}{META_SUFFIX} does not say what the manifest says")
