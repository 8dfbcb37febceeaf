"""A vault in a dictionary: drafts, seals, verifies, deletes and exports as the others do."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from ..errors import BackupDamaged, BackupExists, BackupNotFound, BackupPinned, BackupTooNew
from ..model.artifact import Artifact, Chunks, Stream, Tree, TreeItems
from ..model.manifest import FILE_NAME, Form, Manifest, Stored, decode, encode
from ..model.marks import Marks
from ..model.names import safe_backup_id, timestamp
from ..model.options import Options
from ..ports import Damaged
from ._entries import in_chunks, pack_entries, unpack_entries
from ._trips import drain

ENTRIES = "entries"  # the encoding of trees here


@dataclass(slots=True)
class Box:
    """A sealed backup: its documents and its artifacts, by path."""

    metadata: bytes
    sha256: str  # of the metadata
    guide: str
    artifacts: dict[str, bytes] = field(default_factory=dict)


class MemoryVault:
    """Backups in memory. ``boxes`` may be reached into, to damage what is stored."""

    kind: ClassVar[str] = "memory"
    passing: ClassVar[tuple[str, ...]] = ()
    options_model: ClassVar[type] = Options  # it has none

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.boxes: dict[str, Box] = {}
        self._drafts: set[str] = set()
        self._marks: dict[str, Marks] = {}
        self._lock = threading.RLock()

    def backup_id(self, stack: str, instant: datetime) -> str:
        """Return a free id."""
        del stack
        first = f"backup_{timestamp(instant)}"
        candidates = (first if n == 1 else f"{first}_{n}" for n in range(1, 1000))
        return next(c for c in candidates if c not in self.boxes and c not in self._drafts)

    @contextmanager
    def draft(self, backup_id: str, instant: datetime, archive: str) -> Iterator[MemoryDraft]:
        """Begin a backup."""
        del instant, archive
        safe_backup_id(backup_id)
        with self._lock:
            if backup_id in self.boxes or backup_id in self._drafts:
                raise BackupExists(path=backup_id)
            self._drafts.add(backup_id)
        try:
            with tempfile.TemporaryDirectory(prefix="holdfast-") as workspace:
                yield MemoryDraft(self, backup_id, Path(workspace))
        finally:
            self._drafts.discard(backup_id)

    def keep(self, box: Box, backup_id: str) -> None:
        """Let a backup exist."""
        with self._lock:
            if backup_id in self.boxes:
                raise BackupExists(path=backup_id)
            self.boxes[backup_id] = box

    def manifests(self) -> Iterator[Manifest | Damaged]:
        """Give damaged backups, then the others by sequence."""
        good: list[Manifest] = []
        for backup_id in sorted(self.boxes):
            try:
                good.append(self.manifest(backup_id))
            except (BackupDamaged, BackupTooNew) as error:
                yield Damaged(backup_id, str(error))
        yield from sorted(good, key=lambda one: (one.sequence, one.created_at, one.id))

    def manifest(self, backup_id: str) -> Manifest:
        """Return one manifest."""
        box = self._box(backup_id)
        if hashlib.sha256(box.metadata).hexdigest() != box.sha256:
            raise BackupDamaged(backup=backup_id, path=FILE_NAME, reason="its checksum differs")
        return decode(box.metadata, backup_id)

    def next_sequence(self) -> int:
        """Return one more than the highest sequence."""
        return 1 + max((m.sequence for m in self._good()), default=0)

    def newest_instant(self) -> datetime | None:
        """Return the latest time of a backup."""
        return max((m.created_at for m in self._good()), default=None)

    def artifact(self, manifest: Manifest, stored: Stored) -> Artifact:
        """Return a stored artifact, compared with the manifest at the end of its bytes."""

        def content() -> Chunks:
            data = self._box(manifest.id).artifacts.get(stored.path, b"")
            yield from in_chunks(data)
            if problem := _problem(stored, data):
                raise BackupDamaged(backup=manifest.id, path=stored.path, reason=problem)

        @contextmanager
        def stream() -> Iterator[Chunks]:
            yield content()

        @contextmanager
        def tree() -> Iterator[TreeItems]:
            yield unpack_entries(drain(content()))

        size, part, labels = stored.content_size, stored.part, stored.labels
        if stored.form is Form.STREAM:
            return Stream(stored.name, stream, size, part, labels)
        return Tree(stored.name, tree, size, stored.entries, part, labels)

    def verify(
        self, manifest: Manifest, progress: Callable[[int], None], *, artifacts: bool = True
    ) -> list[str]:
        """Compare every artifact, and the manifest."""
        box = self._box(manifest.id)
        problems = [] if encode(manifest) == box.metadata else [f"{FILE_NAME}: differs"]
        for stored in manifest.artifacts:
            data = box.artifacts.get(stored.path, b"")
            problem = _problem(stored, data) if artifacts else _size_problem(stored, data)
            progress(len(data))
            if problem:
                problems.append(f"{stored.path}: {problem}")
        extra = box.artifacts.keys() - {stored.path for stored in manifest.artifacts}
        return problems + [f"{path}: not in the manifest" for path in sorted(extra)]

    def delete(self, backup_id: str) -> None:
        """Delete a backup."""
        with self._lock:
            self._box(backup_id)
            if (reason := self.marks(backup_id).pinned) is not None:
                raise BackupPinned(backup=backup_id, reason=reason)
            del self.boxes[backup_id]
            self._marks.pop(backup_id, None)

    def marks(self, backup_id: str) -> Marks:
        """Return the marks of a backup."""
        self._box(backup_id)
        return self._marks.get(backup_id, Marks())

    def marks_of(self, backup_ids: Sequence[str]) -> dict[str, Marks]:
        """Return the marks of several backups."""
        return {backup_id: self._marks.get(backup_id, Marks()) for backup_id in backup_ids}

    def mark(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks of a backup."""
        with self._lock:
            self._marks[backup_id] = change(self.marks(backup_id))
            return self._marks[backup_id]

    def sweep(self) -> list[str]:
        """Find nothing: what dies in memory leaves nothing."""
        return []

    def notice(self) -> str:
        """Say nothing."""
        return ""

    def free(self) -> int | None:
        """Return nothing: it is not known."""
        return None

    @contextmanager
    def export(self, manifest: Manifest) -> Iterator[Chunks]:
        """Give a backup as a tar, manifest first."""
        box = self._box(manifest.id)
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, FILE_NAME, box.metadata)
            _add(tar, "RESTORE.md", box.guide.encode())
            for stored in manifest.artifacts:
                _add(tar, stored.path, box.artifacts[stored.path])
        yield in_chunks(file.getvalue())

    def take(self, chunks: Chunks) -> Manifest:
        """Take in what `export` gave."""
        files = _members(drain(chunks))
        metadata, guide = files.pop(FILE_NAME, b""), files.pop("RESTORE.md", b"")
        backup_id = _id_of(metadata)
        manifest = decode(metadata, backup_id)
        for stored in manifest.artifacts:
            if problem := _problem(stored, files.get(stored.path, b"")):
                raise BackupDamaged(backup=backup_id, path=stored.path, reason=problem)
        for path in sorted(files.keys() - {stored.path for stored in manifest.artifacts}):
            raise BackupDamaged(backup=backup_id, path=path, reason="it is not in the manifest")
        digest = hashlib.sha256(metadata).hexdigest()
        self.keep(Box(metadata, digest, guide.decode(), files), backup_id)
        return manifest

    def _box(self, backup_id: str) -> Box:
        safe_backup_id(backup_id)
        try:
            return self.boxes[backup_id]
        except KeyError:
            raise BackupNotFound(backup=backup_id, where=self.name) from None

    def _good(self) -> list[Manifest]:
        return [found for found in self.manifests() if isinstance(found, Manifest)]


class MemoryDraft:
    """A backup that nobody sees yet."""

    def __init__(self, vault: MemoryVault, backup_id: str, workspace: Path) -> None:
        self.workspace = workspace
        self._vault = vault
        self._id = backup_id
        self._held: dict[str, tuple[str, bytes]] = {}  # path → component, bytes
        self._lock = threading.Lock()

    def notes(self) -> tuple[str, ...]:
        """Say nothing: memory holds whatever there is."""
        return ()

    def preface(self) -> str:
        """Say nothing: nobody can get at memory."""
        return ""

    def put(self, component: str, artifact: Artifact, progress: Callable[[int], None]) -> Stored:
        """Keep an artifact."""
        form = Form.STREAM if isinstance(artifact, Stream) else Form.TREE
        data, content_size, entries = _read(artifact)
        progress(content_size)
        path = "/".join(filter(None, (component, artifact.part, artifact.name)))
        with self._lock:
            if path in self._held:
                raise BackupExists(path=path)
            self._held[path] = (component, data)
        return Stored(
            component=component,
            name=artifact.name,
            form=form,
            path=path,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            encoding="identity" if form is Form.STREAM else ENTRIES,
            content_size=content_size,
            entries=entries,
            part=artifact.part,
            labels=dict(artifact.labels),
        )

    def discard(self, component: str) -> None:
        """Drop what was put for a component."""
        with self._lock:
            self._held = {p: held for p, held in self._held.items() if held[0] != component}

    def link(self, stored: Stored) -> str:
        """Return the path itself: ``RESTORE.md`` lies at the root."""
        return stored.path

    def seal(self, manifest: Manifest, guide: str) -> None:
        """Let the backup exist."""
        metadata = encode(manifest)
        digest = hashlib.sha256(metadata).hexdigest()
        artifacts = {path: data for path, (_component, data) in self._held.items()}
        self._vault.keep(Box(metadata, digest, guide, artifacts), self._id)


def _read(artifact: Artifact) -> tuple[bytes, int, int]:
    """Return the bytes to keep, the size of the content, and how many entries a tree has."""
    if isinstance(artifact, Stream):
        with artifact.open() as chunks:
            data = drain(chunks)
        return data, len(data), 0
    sizes: list[int] = []

    def noting(items: TreeItems) -> TreeItems:
        for entry, chunks in items:
            sizes.append(entry.stored_size)
            yield entry, chunks

    with artifact.open() as items:
        data = b"".join(pack_entries(noting(items)))
    return data, sum(sizes), len(sizes)


def _problem(stored: Stored, data: bytes) -> str:
    if problem := _size_problem(stored, data):
        return problem
    return "" if hashlib.sha256(data).hexdigest() == stored.sha256 else "its checksum differs"


def _size_problem(stored: Stored, data: bytes) -> str:
    return "" if len(data) == stored.size else f"{len(data)} bytes instead of {stored.size}"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _members(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is None or member.name in files:
                    reason = "not a file, or there twice"
                    raise BackupDamaged(backup="export", path=member.name, reason=reason)
                files[member.name] = file.read()
    except tarfile.TarError as error:
        raise BackupDamaged(backup="export", path="tar", reason=str(error)) from error
    if not data.endswith(bytes(1024)):
        raise BackupDamaged(backup="export", path="tar", reason="it is cut short")
    return files


def _id_of(metadata: bytes) -> str:
    try:
        return safe_backup_id(str(json.loads(metadata)["id"]))
    except (ValueError, TypeError, KeyError) as error:
        raise BackupDamaged(backup="export", path=FILE_NAME, reason=str(error)) from error
