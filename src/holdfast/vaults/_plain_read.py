"""Reading a plain vault's backups back: for a restore, and to verify them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import BackupDamaged, BackupNotFound, BackupTooNew
from ..model.artifact import Artifact, Chunks, Stream, Tree, TreeItems
from ..model.manifest import Form, Manifest, Stored
from ..ports import Store
from ._archive import ENCODINGS, unpack, unpack_stream
from ._compress import Method
from ._digest import Digest, digest_of, disagreement, told, verified
from ._plain_documents import Sealed, metas, read_document, read_sealed
from ._plain_layout import GUIDE

IDENTITY = "identity"


def give(store: Store, manifest: Manifest, stored: Stored) -> Artifact:
    """Return a stored artifact, whose bytes are compared while they are read."""
    _check_encoding(manifest, stored)
    plain = stored.encoding == IDENTITY

    @contextmanager
    def stream() -> Iterator[Chunks]:
        with bytes_of(store, manifest, stored) as chunks:
            sworn = verified(chunks, stored, manifest.id)
            yield sworn if plain else unpack_stream(sworn, stored, manifest.id)

    @contextmanager
    def tree() -> Iterator[TreeItems]:
        with bytes_of(store, manifest, stored) as chunks:
            yield unpack(verified(chunks, stored, manifest.id), stored, manifest.id)

    if stored.form is Form.TREE:
        return Tree(
            name=stored.name,
            open=tree,
            size_hint=stored.content_size,
            entries_hint=stored.entries,
            part=stored.part,
            labels=stored.labels,
        )
    return Stream(
        name=stored.name,
        open=stream,
        size_hint=stored.content_size,
        part=stored.part,
        labels=stored.labels,
        path=store.path(stored.path) if plain else None,
        compressible=not plain,
    )


def _check_encoding(manifest: Manifest, stored: Stored) -> None:
    known = {IDENTITY, *Method} if stored.form is Form.STREAM else set(ENCODINGS.values())
    if stored.encoding not in known:
        reason = f"it is kept as {stored.encoding}, which plain vaults do not have"
        raise BackupDamaged(backup=manifest.id, path=stored.path, reason=reason)


@contextmanager
def bytes_of(store: Store, manifest: Manifest, stored: Stored) -> Iterator[Chunks]:
    """Give the stored bytes of an artifact; raises `BackupDamaged` where there are none."""
    try:
        opened = store.get(stored.path)
        chunks = opened.__enter__()
    except FileNotFoundError:
        raise BackupDamaged(backup=manifest.id, path=stored.path, reason="it is missing") from None
    try:
        yield chunks
    finally:
        opened.__exit__(None, None, None)


def compare(
    store: Store,
    vault: str,
    manifest: Manifest,
    progress: Callable[[int], None],
    *,
    artifacts: bool,
) -> list[str]:
    """Compare everything that lies there with what should; return one line for each problem."""
    try:
        sealed = read_sealed(store, manifest.id, vault)
    except (BackupDamaged, BackupNotFound, BackupTooNew) as error:
        return [str(error)]
    problems = [] if sealed.manifest == manifest else ["the manifest is not the one given"]
    problems += _guide_problems(store, sealed)
    problems += _meta_problems(store, sealed)
    for stored in sealed.manifest.artifacts:
        problem = _artifact_problem(store, stored, progress if artifacts else None)
        problems += [f"{stored.path}: {problem}"] if problem else []
    return problems + _extra_names(store, sealed)


def _guide_problems(store: Store, sealed: Sealed) -> list[str]:
    path = f"{sealed.home}/{GUIDE}"
    try:
        text = read_document(store, path, sealed.manifest.id)
    except FileNotFoundError:
        return [f"{path}: it is missing"]
    except BackupDamaged as error:
        return [str(error)]
    return [] if digest_of(text) == sealed.guide_sha256 else [f"{path}: its checksum differs"]


def _meta_problems(store: Store, sealed: Sealed) -> list[str]:
    problems = []
    for path, expected in metas(sealed.manifest).items() if sealed.flat else ():
        try:
            if read_document(store, path, sealed.manifest.id) != expected:
                problems.append(f"{path}: it does not say what the manifest says")
        except FileNotFoundError:
            problems.append(f"{path}: it is missing")
        except BackupDamaged as error:
            problems.append(str(error))
    return problems


def _artifact_problem(store: Store, stored: Stored, progress: Callable[[int], None] | None) -> str:
    """Return what is wrong with an artifact; without ``progress`` only its size is looked at."""
    try:
        if progress is None and (path := store.path(stored.path)) is not None:
            found = path.stat().st_size
            return "" if found == stored.size else f"{found} bytes where {stored.size} were stored"
        digest = Digest()
        with store.get(stored.path) as chunks:
            for _hashed in told(digest.through(chunks), progress or _silent):
                pass
    except FileNotFoundError:
        return "it is missing"
    return disagreement(digest, stored)


def _silent(_done: int) -> None:
    """Tell nobody."""


def _extra_names(store: Store, sealed: Sealed) -> list[str]:
    expected = set(sealed.names())
    extra = [name for name in store.names(sealed.home) if name not in expected]
    return [f"{name}: it does not belong to the backup" for name in sorted(extra)]
