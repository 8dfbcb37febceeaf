"""The plain vault: backups as files that people and their tools can read without Holdfast.

``SHA256SUMS``, ``RESTORE.md`` and ``metadata.json`` describe each backup; its form is written down
in ``docs/formats/plain-vault.md``. What the vault keeps for itself lies in ``.holdfast``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from ..errors import BackupExists, BackupNotFound, BackupPinned, HoldfastError, UsageInvalid
from ..model.artifact import Artifact, Chunks
from ..model.manifest import Manifest, Stored
from ..model.marks import Marks
from ..model.names import safe_backup_id
from ..model.options import Options
from ..model.store_options import StoreOptions
from ..ports import Damaged, Store
from ._naming import DEFAULT_NAME
from ._plain_documents import Sealed, candidates, is_sealed, read_all, read_sealed
from ._plain_draft import PlainDraft, clear_draft, draft_folder
from ._plain_layout import DEFAULT_LAYOUT, OWN, Layout, Placing
from ._plain_locks import Locks, make_private_folder
from ._plain_marks import MarkBook
from ._plain_read import compare, give
from ._plain_remove import remove_backup, sweep
from ._plain_transfer import export, take


class PlainOptions(StoreOptions):
    """Where a plain vault lies, and how its names are made."""

    layout: str = Field(
        default=DEFAULT_LAYOUT,
        description="path of each artifact; fields: backup_id, stack, timestamp, component, "
        "artifact, part, stem, suffix, and labels such as database",
    )
    name: str = Field(
        default=DEFAULT_NAME,
        description="id of each backup; fields: stack, timestamp (which it needs)",
    )
    timezone: str = Field(default="UTC", description="time zone of the timestamps in names")

    @model_validator(mode="after")
    def _has_sound_templates(self) -> PlainOptions:
        Layout(self.layout, self.name, self.timezone)
        return self


class PlainVault:
    """Backups as plain files in a store."""

    kind: ClassVar[str] = "plain"
    options_model: ClassVar[type[Options]] = PlainOptions
    passing: ClassVar[tuple[str, ...]] = (OWN,)

    def __init__(self, name: str, store: Store, options: PlainOptions) -> None:
        self.name = name
        self._store = store
        self._layout = Layout(options.layout, options.name, options.timezone)
        self._locks = Locks(store)
        self._marks = MarkBook(store)
        self._stacks: dict[str, str] = {}  # id → stack, as `backup_id` was told

    # --- making a backup ---

    def backup_id(self, stack: str, instant: datetime) -> str:
        """Return an id that no backup, no draft and no other folder here has."""
        taken = {*self._store.folders(), *candidates(self._store), *self._locks.ids()}
        backup_id = self._layout.backup_id(stack, instant, taken.__contains__)
        self._stacks[backup_id] = stack
        return backup_id

    @contextmanager
    def draft(self, backup_id: str, instant: datetime, archive: str) -> Iterator[PlainDraft]:
        """Begin a backup.

        Raises:
            BackupExists: there is a backup of that id, or somebody drafts one.
            UsageInvalid: the layout needs a stack and `backup_id` was not asked for the id.

        """
        stack = self._stacks.get(safe_backup_id(backup_id), "")
        if self._layout.needs_stack and not stack:
            raise UsageInvalid(problem=f"{backup_id} was not made by this vault for a stack")
        with self._drafting(Placing(self.name, stack, backup_id, instant, archive)) as draft:
            yield draft

    @contextmanager
    def _drafting(self, placing: Placing) -> Iterator[PlainDraft]:
        backup_id = placing.backup_id
        with self._locks.held(backup_id), self._workspace(backup_id) as workspace:
            if is_sealed(self._store, backup_id):
                raise BackupExists(path=f"backup {backup_id}")
            self._marks.forget(backup_id)
            try:
                yield PlainDraft(self._store, self._layout, placing, workspace)
            except BaseException as error:
                self._clear_after(error, backup_id)
                raise
            clear_draft(self._store, backup_id)

    @contextmanager
    def _workspace(self, backup_id: str) -> Iterator[Path]:
        clear_draft(self._store, backup_id)
        path = self._store.path(f"{draft_folder(backup_id)}/workspace")
        if path is None:
            with tempfile.TemporaryDirectory(prefix="holdfast-") as elsewhere:
                yield Path(elsewhere)
            return
        make_private_folder(path)
        yield path

    def _clear_after(self, error: BaseException, backup_id: str) -> None:
        """Clear a draft that failed; a failure to clear it must not hide the first one."""
        try:
            clear_draft(self._store, backup_id)
        except HoldfastError as also:
            error.add_note(f"its draft could not be removed, and is left to be swept: {also}")

    # --- reading ---

    def manifests(self) -> Iterator[Manifest | Damaged]:
        """Give every sealed backup, the damaged ones first, then oldest first."""
        damaged, good = read_all(self._store, self.name)
        yield from damaged
        yield from (sealed.manifest for sealed in good)

    def manifest(self, backup_id: str) -> Manifest:
        """Return one manifest, compared with the documents beside it."""
        return self._sealed(backup_id).manifest

    def next_sequence(self) -> int:
        """Return one more than the highest sequence number here."""
        _damaged, good = read_all(self._store, self.name)
        return 1 + max((sealed.manifest.sequence for sealed in good), default=0)

    def newest_instant(self) -> datetime | None:
        """Return the latest time at which a backup here was made."""
        _damaged, good = read_all(self._store, self.name)
        return max((sealed.manifest.created_at for sealed in good), default=None)

    def artifact(self, manifest: Manifest, stored: Stored) -> Artifact:
        """Return a stored artifact. Reading it to its end raises if a byte is not as was sworn.

        ``path`` of a stream leads to the stored bytes, which are compared by nobody on that way.
        """
        return give(self._store, manifest, stored)

    def verify(
        self, manifest: Manifest, progress: Callable[[int], None], *, artifacts: bool = True
    ) -> list[str]:
        """Read every byte once and compare it; return one line for each problem."""
        return compare(self._store, self.name, manifest, progress, artifacts=artifacts)

    def notice(self) -> str:
        """Say nothing: it is the same everywhere."""
        return ""

    def free(self) -> int | None:
        """Return how many bytes there is room for, if that is known."""
        return self._store.free()

    def _sealed(self, backup_id: str) -> Sealed:
        return read_sealed(self._store, backup_id, self.name)

    # --- what comes later ---

    def marks(self, backup_id: str) -> Marks:
        """Return the marks of a backup; unreadable ones count as a pin."""
        self._expect(backup_id)
        return self._marks.read(backup_id)

    def marks_of(self, backup_ids: Sequence[str]) -> dict[str, Marks]:
        """Return the marks of several backups."""
        return {backup_id: self._marks.read(backup_id) for backup_id in backup_ids}

    def mark(self, backup_id: str, change: Callable[[Marks], Marks]) -> Marks:
        """Change the marks of a backup, one change at a time."""
        self._expect(backup_id)
        return self._marks.change(backup_id, change)

    def _expect(self, backup_id: str) -> None:
        if not is_sealed(self._store, safe_backup_id(backup_id)):
            raise BackupNotFound(backup=backup_id, where=self.name)

    def delete(self, backup_id: str) -> None:
        """Delete a backup: one rename, or one name, and it exists no more.

        Raises:
            BackupNotFound: there is none of that id.
            BackupPinned: it is pinned.
            BackupDamaged: its artifacts lie outside of its folder, and its manifest, which alone
                says where, cannot be trusted.

        """
        self._expect(backup_id)
        if (reason := self._marks.read(backup_id).pinned) is not None:
            raise BackupPinned(backup=backup_id, reason=reason)
        with self._locks.held(backup_id):
            remove_backup(self._store, backup_id, self.name)
            self._marks.forget(backup_id)

    def sweep(self) -> list[str]:
        """Remove what runs that died left behind; return one line for each."""
        return sweep(self._store, self.name, self._locks, self._marks)

    # --- to and from other vaults ---

    @contextmanager
    def export(self, manifest: Manifest) -> Iterator[Chunks]:
        """Give a backup as one ``.tar``, which tar unpacks into a plain vault."""
        yield export(self._store, self._sealed(manifest.id))

    def take(self, chunks: Chunks) -> Manifest:
        """Take in an exported backup after checking every byte of it.

        It keeps its id, its sequence number and its paths, whatever the layout here: its checksums
        and its ``RESTORE.md`` name them. Where one of the paths is taken, it is refused.
        """
        return take(chunks, self._store, self._drafting, self.name)
