"""What every vault promises, as tests. Inherit `VaultContract` and say how to make a vault."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ..errors import (
    BackupDamaged,
    BackupExists,
    BackupNotFound,
    BackupPinned,
    HoldfastError,
    UnsafeName,
)
from ..model.artifact import CHUNK, Artifact, Chunks, Entry, EntryKind, Stream, Tree, TreeItems
from ..model.manifest import Component, Form, Manifest, Stored
from ..model.marks import Level, Marks, Proof
from ..ports import Damaged, Vault
from ._artifacts import fail
from ._entries import in_chunks
from ._trips import GUIDE, make_manifest, read_artifact, read_stream, silent

INSTANT = datetime(2026, 2, 4, 12, 0, 0, tzinfo=UTC)
CHANGES = 16
TRICKS = ["..", "../x", "/etc", "a/b", ".hidden", "", "latest", "a\0b", "-rf", "a b"]


class Broken(Exception):
    """What a source raises that fails halfway."""


class VaultContract:
    """The promises of a `Vault` and its `Draft`."""

    def make_vault(self, folder: Path) -> Vault:
        """Return an empty vault; ``folder`` does not exist yet and may be used for it."""
        raise NotImplementedError

    def damage(self, vault: Vault, stored: Stored, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of a stored artifact behind the vault's back."""
        raise NotImplementedError

    def damage_manifest(self, vault: Vault, backup_id: str) -> None:
        """Flip a bit somewhere in a manifest behind the vault's back."""
        raise NotImplementedError

    def leftovers(self, vault: Vault) -> object:
        """Return what the vault holds beside its backups, to be compared."""
        raise NotImplementedError

    @pytest.fixture
    def vault(self, tmp_path: Path) -> Vault:
        return self.make_vault(tmp_path / "vault")

    # --- sealing ---

    def test_what_is_sealed_comes_back(self, vault: Vault) -> None:
        sealed = keep(vault)
        found = vault.manifest(sealed.id)
        assert found == sealed
        assert list(vault.manifests()) == [sealed]
        assert [read_artifact(vault.artifact(found, s)) for s in found.artifacts] == [
            read_artifact(artifact) for artifact in samples()
        ]
        assert vault.verify(found, silent) == []

    def test_stored_artifacts_keep_what_is_known_of_them(self, vault: Vault) -> None:
        manifest = keep(vault)
        for stored, artifact in zip(manifest.artifacts, samples(), strict=True):
            given: Artifact = vault.artifact(manifest, stored)
            assert (given.name, given.part) == (artifact.name, artifact.part)
            assert dict(given.labels) == dict(artifact.labels)
            assert given.size_hint == stored.content_size
            assert (stored.form is Form.STREAM) == isinstance(given, Stream)
            if isinstance(artifact, Tree):
                assert stored.entries == artifact.entries_hint

    def test_a_stored_artifact_can_be_read_twice(self, vault: Vault) -> None:
        manifest = keep(vault)
        for stored in manifest.artifacts:
            given = vault.artifact(manifest, stored)
            assert read_artifact(given) == read_artifact(given)

    def test_an_unsealed_draft_leaves_nothing(self, vault: Vault) -> None:
        keep(vault)
        before = self.leftovers(vault), list(vault.manifests())
        instant = INSTANT + timedelta(hours=1)
        backup_id = vault.backup_id("stack", instant)
        with pytest.raises(Broken), vault.draft(backup_id, instant, "tar.gz") as draft:
            for artifact in samples():
                draft.put("component", artifact, silent)
            (draft.workspace / "file").write_bytes(b"x")
            raise Broken
        with vault.draft(backup_id, instant, "tar.gz") as draft:
            draft.put("component", samples()[0], silent)
        assert (self.leftovers(vault), list(vault.manifests())) == before
        with pytest.raises(BackupNotFound):
            vault.manifest(backup_id)

    def test_nothing_is_visible_before_the_seal(self, vault: Vault) -> None:
        backup_id = vault.backup_id("stack", INSTANT)
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft:
            for artifact in samples():
                draft.put("component", artifact, silent)
            assert list(vault.manifests()) == []
            assert vault.next_sequence() == 1
            assert vault.newest_instant() is None

    def test_sealing_leaves_nothing_but_the_backup(self, vault: Vault) -> None:
        keep(vault)
        before = self.leftovers(vault)
        keep(vault)
        assert self.leftovers(vault) == before

    def test_the_workspace_is_an_empty_folder(self, vault: Vault) -> None:
        with vault.draft(vault.backup_id("stack", INSTANT), INSTANT, "tar.gz") as draft:
            assert list(draft.workspace.iterdir()) == []
            workspace = draft.workspace
        assert not workspace.exists()

    @pytest.mark.parametrize("at_the_end", [False, True], ids=["midway", "last-byte"])
    def test_an_artifact_that_fails_is_not_kept(self, vault: Vault, *, at_the_end: bool) -> None:
        backup_id = vault.backup_id("stack", INSTANT)
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft:
            for artifact in samples():
                with pytest.raises(Broken):
                    draft.put("component", fail(artifact, Broken(), at_the_end=at_the_end), silent)
            stored = [draft.put("component", artifact, silent) for artifact in samples()]
            manifest = describe(backup_id, stored)
            draft.seal(manifest, GUIDE)
        assert vault.verify(manifest, silent) == []

    def test_a_component_can_be_discarded(self, vault: Vault) -> None:
        backup_id = vault.backup_id("stack", INSTANT)
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft:
            for artifact in samples():
                draft.put("failed", artifact, silent)
            stored = [draft.put("good", artifact, silent) for artifact in samples()]
            draft.discard("failed")
            draft.discard("never-put")
            manifest = describe(backup_id, stored, component="good")
            draft.seal(manifest, GUIDE)
        assert vault.verify(vault.manifest(backup_id), silent) == []

    def test_artifacts_are_put_side_by_side(self, vault: Vault) -> None:
        backup_id = vault.backup_id("stack", INSTANT)
        names = [f"component{number}" for number in range(6)]
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft, ThreadPoolExecutor(6) as threads:
            put = [threads.submit(draft.put, name, samples()[0], silent) for name in names]
            stored = [future.result() for future in put]
            draft.seal(describe(backup_id, stored), GUIDE)
        assert vault.verify(vault.manifest(backup_id), silent) == []

    def test_progress_counts_every_byte_of_content(self, vault: Vault) -> None:
        backup_id = vault.backup_id("stack", INSTANT)
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft:
            for artifact in samples():
                done: list[int] = []
                stored = draft.put("component", artifact, done.append)
                assert sum(done) == stored.content_size == artifact.size_hint

    # --- ids and order ---

    def test_ids_are_free(self, vault: Vault) -> None:
        first = keep(vault)
        second = vault.backup_id("stack", INSTANT)
        assert second != first.id
        with vault.draft(second, INSTANT, "tar.gz"):
            assert vault.backup_id("stack", INSTANT) not in {first.id, second}

    def test_an_id_cannot_be_drafted_twice(self, vault: Vault) -> None:
        backup_id = vault.backup_id("stack", INSTANT)
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft:
            with pytest.raises(BackupExists), vault.draft(backup_id, INSTANT, "tar.gz"):
                pytest.fail("two drafts of one id")
            stored = [draft.put("component", samples()[0], silent)]
            draft.seal(describe(backup_id, stored), GUIDE)
        with pytest.raises(BackupExists), vault.draft(backup_id, INSTANT, "tar.gz"):
            pytest.fail("a draft of a sealed id")

    def test_backups_come_in_the_order_of_their_sequence(self, vault: Vault) -> None:
        clocks = [INSTANT, INSTANT - timedelta(days=1), INSTANT + timedelta(days=1)]
        kept = [keep(vault, instant) for instant in clocks]
        assert [m.sequence for m in kept] == [1, 2, 3]
        assert list(vault.manifests()) == kept
        assert vault.next_sequence() == len(kept) + 1
        assert vault.newest_instant() == max(clocks)

    def test_backups_of_one_number_go_by_time_and_then_by_name(self, vault: Vault) -> None:
        """Such are copies from another vault, and what is left of a damaged one."""
        made = []
        for hours, sequence in ((1, 1), (0, 1), (-1, 1), (-2, 2), (0, 1)):
            instant = INSTANT + timedelta(hours=hours)
            backup_id = vault.backup_id("stack", instant)
            with vault.draft(backup_id, instant, "tar.gz") as draft:
                stored = [draft.put("component", samples(b"row")[0], silent)]
                manifest = describe(backup_id, stored, sequence=sequence)
                draft.seal(replace(manifest, created_at=instant), GUIDE)
            made.append(backup_id)
        later, one, earlier, following, another = made
        found = [manifest.id for manifest in vault.manifests()]
        assert found == [earlier, *sorted([one, another]), later, following]

    @pytest.mark.parametrize("trick", TRICKS)
    def test_tricks_in_ids_lead_nowhere(self, vault: Vault, trick: str) -> None:
        keep(vault)
        for use in (vault.manifest, vault.delete, vault.marks):
            with pytest.raises((UnsafeName, BackupNotFound)):
                use(trick)
        with pytest.raises((UnsafeName, BackupNotFound)):
            vault.mark(trick, lambda marks: marks)
        with pytest.raises(UnsafeName), vault.draft(trick, INSTANT, "tar.gz"):
            pytest.fail("a draft by that name")

    def test_unknown_backups_are_not_found(self, vault: Vault) -> None:
        for use in (vault.manifest, vault.delete, vault.marks):
            with pytest.raises(BackupNotFound):
                use("backup_20200101_000000")

    # --- damage ---

    @pytest.mark.parametrize("which", [0, 1], ids=["stream", "tree"])
    @pytest.mark.parametrize("how", ["first", "last", "cut", "gone"])
    def test_damaged_artifacts_are_found_out(self, vault: Vault, which: int, how: str) -> None:
        manifest = keep(vault)
        stored = manifest.artifacts[which]
        self.damage(vault, stored, DAMAGES[how])
        problems = vault.verify(manifest, silent)
        assert len(problems) == 1
        assert stored.path in problems[0]
        with pytest.raises(HoldfastError):
            read_artifact(vault.artifact(manifest, stored))
        assert vault.manifest(manifest.id) == manifest

    def test_bytes_that_were_added_are_found_out(self, vault: Vault) -> None:
        manifest = keep(vault)
        self.damage(vault, manifest.artifacts[0], DAMAGES["grown"])
        assert len(vault.verify(manifest, silent)) == 1

    def test_a_size_that_differs_shows_without_reading(self, vault: Vault) -> None:
        manifest = keep(vault)
        assert vault.verify(manifest, silent, artifacts=False) == []
        self.damage(vault, manifest.artifacts[0], DAMAGES["cut"])
        assert vault.verify(manifest, silent, artifacts=False) != []

    def test_rot_in_a_stream_shows_at_its_end_at_the_latest(self, vault: Vault) -> None:
        manifest = keep(vault)
        self.damage(vault, manifest.artifacts[0], DAMAGES["last"])
        artifact = vault.artifact(manifest, manifest.artifacts[0])
        assert isinstance(artifact, Stream)
        with pytest.raises(BackupDamaged):
            read_stream(artifact)

    def test_a_damaged_manifest_is_listed_as_such(self, vault: Vault) -> None:
        bad, good = keep(vault), keep(vault)
        self.damage_manifest(vault, bad.id)
        listed = list(vault.manifests())
        assert isinstance(listed[0], Damaged)
        assert listed[0].id == bad.id
        assert listed[0].reason
        assert listed[1:] == [good]
        with pytest.raises(BackupDamaged):
            vault.manifest(bad.id)
        assert vault.verify(bad, silent)

    def test_a_given_manifest_must_be_the_sealed_one(self, vault: Vault) -> None:
        manifest = keep(vault)
        assert vault.verify(replace(manifest, host="another"), silent)

    def test_verifying_tells_every_byte(self, vault: Vault) -> None:
        manifest = keep(vault)
        done: list[int] = []
        vault.verify(manifest, done.append)
        assert sum(done) == manifest.size

    # --- deleting and marks ---

    def test_a_deleted_backup_is_gone(self, vault: Vault) -> None:
        kept = keep(vault)
        before = self.leftovers(vault)
        gone = keep(vault)
        vault.delete(gone.id)
        assert list(vault.manifests()) == [kept]
        assert self.leftovers(vault) == before
        assert vault.verify(kept, silent) == []
        for use in (vault.manifest, vault.delete, vault.marks):
            with pytest.raises(BackupNotFound):
                use(gone.id)

    def test_marks_are_kept_and_go_with_their_backup(self, vault: Vault) -> None:
        manifest = keep(vault)
        assert vault.marks(manifest.id) == Marks()
        proof = Proof(Level.NATIVE, INSTANT, passed=True, problems=("none",))
        marked = vault.mark(manifest.id, lambda marks: marks.with_proof(proof))
        assert vault.marks(manifest.id) == marked == Marks(proofs=(proof,))
        assert vault.marks_of([manifest.id]) == {manifest.id: marked}
        vault.delete(manifest.id)
        again = keep(vault)
        assert again.id == manifest.id
        assert vault.marks(again.id) == Marks()
        assert vault.marks_of([again.id]) == {again.id: Marks()}

    def test_a_pinned_backup_is_not_deleted(self, vault: Vault) -> None:
        manifest = keep(vault)
        vault.mark(manifest.id, lambda marks: replace(marks, pinned="audit"))
        with pytest.raises(BackupPinned, match="audit"):
            vault.delete(manifest.id)
        assert vault.verify(manifest, silent) == []
        vault.mark(manifest.id, lambda marks: replace(marks, pinned=None))
        vault.delete(manifest.id)

    def test_changes_of_marks_do_not_overtake_each_other(self, vault: Vault) -> None:
        manifest = keep(vault)

        def prove(number: int) -> None:
            proof = Proof(Level.CHECKSUMS, INSTANT + timedelta(seconds=number), passed=True)
            vault.mark(manifest.id, lambda marks: marks.with_proof(proof))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(prove, range(CHANGES)))
        assert len(vault.marks(manifest.id).proofs) == CHANGES

    def test_sweeping_leaves_the_living_alone(self, vault: Vault) -> None:
        kept = keep(vault)
        backup_id = vault.backup_id("stack", INSTANT)
        with vault.draft(backup_id, INSTANT, "tar.gz") as draft:
            stored = [draft.put("component", artifact, silent) for artifact in samples()]
            assert vault.sweep() == []
            draft.seal(describe(backup_id, stored, sequence=2), GUIDE)
        assert vault.sweep() == []
        for manifest in (kept, vault.manifest(backup_id)):
            assert vault.verify(manifest, silent) == []

    def test_room_is_told_or_unknown(self, vault: Vault) -> None:
        free = vault.free()
        assert free is None or free > 0


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "first": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "cut": lambda data: data[:-1],
    "grown": lambda data: data + b"\0",
    "gone": lambda _data: b"",
}

STREAM = bytes(range(256)) * (CHUNK // 100)
FILES = {"one.txt": b"1" * 100_000, "empty": b"", "folder/two \n'.bin": STREAM[:70_000]}


def samples(data: bytes = STREAM, files: Mapping[str, bytes] = FILES) -> list[Artifact]:
    """Return a stream and a tree as a source gives them."""

    @contextmanager
    def stream() -> Iterator[Chunks]:
        yield in_chunks(data)

    def items() -> TreeItems:
        yield Entry(".", EntryKind.FOLDER, mode=0o755, mtime_ns=1_700_000_000_123_456_789), iter(())
        yield Entry("link", EntryKind.SYMLINK, mode=0o777, target="../elsewhere"), iter(())
        for path, content in sorted(files.items(), key=lambda item: item[0].count("/")):
            if "/" in path:
                yield Entry("folder", EntryKind.FOLDER, mode=0o700), iter(())
            yield Entry(path, EntryKind.FILE, mode=0o640, size=len(content)), in_chunks(content)

    @contextmanager
    def tree() -> Iterator[TreeItems]:
        yield items()

    size = sum(len(content) for content in files.values())
    return [
        Stream("data.db", stream, len(data), part="rows", labels={"database": "main"}),
        Tree("files", tree, size, len(files) + 3, part="files", labels={"database": "none"}),
    ]


def describe(
    backup_id: str, stored: list[Stored], *, component: str = "", sequence: int = 1
) -> Manifest:
    """Return a manifest for what was put."""
    names = sorted({s.component for s in stored} | ({component} - {""}))
    components = [Component(name, "memory", "completed", INSTANT) for name in names]
    return make_manifest(backup_id, INSTANT, sequence, components=components, artifacts=stored)


def keep(
    vault: Vault, instant: datetime = INSTANT, artifacts: Sequence[Artifact] | None = None
) -> Manifest:
    """Seal a backup of artifacts; without any, of the samples."""
    artifacts = samples() if artifacts is None else artifacts
    backup_id = vault.backup_id("stack", instant)
    with vault.draft(backup_id, instant, "tar.gz") as draft:
        stored = [draft.put("component", artifact, silent) for artifact in artifacts]
        manifest = describe(backup_id, stored, sequence=vault.next_sequence())
        manifest = replace(manifest, created_at=instant)
        draft.seal(manifest, GUIDE)
    return manifest
