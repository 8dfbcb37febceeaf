"""What every source promises, as tests. Inherit `SourceContract` and say how to make one store."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from ..errors import BackupDamaged, SourceMissing
from ..model.artifact import Artifact
from ..model.facts import differences
from ..ports import Source, Staged, Vault
from ._artifacts import failing, listing, read_a_little, run_lines, write_out
from ._trips import back_up, read_artifact, stored_artifacts
from .memory_vault import MemoryVault


class Crash(BaseException):
    """Ends a step as a crash would: nothing that handles errors sees it."""


class SourceContract:
    """The promises of a `Source` and its `Staged`, on a real store in a folder of its own.

    ``folder`` holds nothing but what belongs to the live store, so that litter beside it shows. A
    store that a server holds has a place of its own there for each folder: a database, a prefix.
    """

    discoverable: ClassVar[bool] = True  # whether `discover` finds such a store in a folder
    always_there: ClassVar[bool] = False  # whether a server without content is a store
    component: ClassVar[str] = "subject"

    # --- what an adapter's test says ---

    def make_source(self, name: str, folder: Path) -> Source:
        """Return a source called ``name`` whose store is to lie in ``folder``; create nothing."""
        raise NotImplementedError

    def create(self, source: Source) -> None:
        """Create the store of a source that has none yet, with content worth a backup."""
        raise NotImplementedError

    def change(self, source: Source) -> None:
        """Change the live store so that its counts change too."""
        raise NotImplementedError

    def content(self, source: Source) -> object:
        """Return all that the store holds, to be compared; read by other means than the adapter."""
        raise NotImplementedError

    def guided_content(self, source: Source, target: Path) -> object:
        """Return what the lines of `guide` restored into ``target``, as `content` does."""
        return self.content(source.at(target))

    def guide_environment(self, target: Path) -> Mapping[str, str]:
        """Return what a person sets before the lines of `guide`, besides ``TARGET``."""
        del target
        return {}

    def other_place(self, source: Source, folder: Path) -> Source:
        """Return a twin of a source, of the same name, whose store is to lie in ``folder``."""
        return source.at(folder)

    def litter(self, folder: Path) -> set[str]:
        """Return the names of all that lies where the store of ``folder`` does, hidden ones too."""
        return listing(folder)

    def make_vault(self, folder: Path) -> Vault:
        """Return an empty vault for the round trips."""
        del folder
        return MemoryVault()

    # --- fixtures ---

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "live"
        folder.mkdir()
        return folder

    @pytest.fixture
    def workspace(self, tmp_path: Path) -> Path:
        workspace = tmp_path / "workspace"
        workspace.mkdir()
        return workspace

    @pytest.fixture
    def vault(self, tmp_path: Path) -> Vault:
        return self.make_vault(tmp_path / "vault")

    @pytest.fixture
    def absent(self, folder: Path) -> Source:
        """A source without a store."""
        return self.make_source(self.component, folder)

    @pytest.fixture
    def source(self, folder: Path) -> Source:
        """A source with a live store."""
        source = self.make_source(self.component, folder)
        self.create(source)
        return source

    @pytest.fixture
    def artifacts(self, source: Source, vault: Vault, tmp_path: Path) -> list[Artifact]:
        """The live store as it was backed up, as its vault gives it."""
        return stored_artifacts(
            vault, back_up([source], vault, tmp_path / "backing-up"), self.component
        )

    @pytest.fixture
    def changed(self, source: Source, artifacts: list[Artifact]) -> Source:
        """The source after its backup was taken and its live store went on."""
        assert artifacts
        self.change(source)
        return source

    # --- looking ---

    def test_a_reachable_store_is_probed(self, source: Source) -> None:
        probe = source.probe()
        assert probe.reachable
        assert probe.size > 0

    def test_probing_a_missing_store_says_so_and_does_not_raise(self, absent: Source) -> None:
        probe = absent.probe()
        assert probe.reachable == self.always_there
        assert probe.reachable or probe.problems

    def test_a_missing_store_has_no_counts(self, absent: Source) -> None:
        assert not any(absent.facts().counts.values())

    def test_a_missing_store_cannot_be_frozen(self, absent: Source, workspace: Path) -> None:
        if self.always_there:
            with absent.freeze(workspace) as frozen:
                for artifact in frozen.artifacts:
                    read_artifact(artifact)
                assert not any(frozen.facts().counts.values())
            return
        with pytest.raises(SourceMissing), absent.freeze(workspace):
            pytest.fail("a store that does not exist was frozen")

    def test_looking_changes_nothing(self, source: Source, folder: Path) -> None:
        before = self.content(source), self.litter(folder)
        source.probe()
        source.facts()
        source.occupants()
        list(type(source).discover(folder))
        assert (self.content(source), self.litter(folder)) == before

    def test_counts_follow_a_change(self, source: Source) -> None:
        before = source.facts()
        self.change(source)
        assert differences(before, source.facts())

    def test_an_idle_store_has_no_occupants(self, source: Source) -> None:
        assert list(source.occupants()) == []

    def test_the_store_is_discovered_in_its_folder(self, source: Source, folder: Path) -> None:
        found = list(type(source).discover(folder))
        assert [one.source for one in found] == [source.kind] * self.discoverable

    # --- freezing ---

    def test_what_is_frozen_can_be_read_twice(self, source: Source, workspace: Path) -> None:
        with source.freeze(workspace) as frozen:
            for artifact in frozen.artifacts:
                read_a_little(artifact)
            first = [read_artifact(artifact) for artifact in frozen.artifacts]
            second = [read_artifact(artifact) for artifact in frozen.artifacts]
            frozen.facts()
        assert first == second

    def test_artifacts_are_told_apart_by_their_part(self, source: Source, workspace: Path) -> None:
        with source.freeze(workspace) as frozen:
            parts = [artifact.part for artifact in frozen.artifacts]
            names = [artifact.name for artifact in frozen.artifacts]
        assert parts
        assert len(set(parts)) == len(parts)
        assert all(name and "/" not in name for name in names)

    def test_the_instant_lies_in_the_freeze(self, source: Source, workspace: Path) -> None:
        before = datetime.now(UTC)
        with source.freeze(workspace) as frozen:
            instant = frozen.instant
        slack = timedelta(seconds=1)  # file systems and servers round
        assert before - slack <= instant <= datetime.now(UTC) + slack

    def test_counting_in_a_thread_while_reading(self, source: Source, workspace: Path) -> None:
        with source.freeze(workspace) as frozen, ThreadPoolExecutor(1) as threads:
            counting = threads.submit(frozen.facts)
            for artifact in frozen.artifacts:
                read_artifact(artifact)
            assert differences(counting.result(), source.facts()) == []

    def test_a_freeze_leaves_the_store_as_it_was(
        self, source: Source, folder: Path, workspace: Path
    ) -> None:
        before = self.content(source), self.litter(folder)
        with source.freeze(workspace) as frozen:
            for artifact in frozen.artifacts:
                read_artifact(artifact)
            frozen.facts()
        assert (self.content(source), self.litter(folder)) == before

    def test_a_freeze_that_is_broken_off_lets_the_store_go(
        self, source: Source, folder: Path, workspace: Path
    ) -> None:
        before = self.litter(folder)
        with pytest.raises(Crash), source.freeze(workspace) as frozen:
            read_a_little(frozen.artifacts[0])
            raise Crash
        assert self.litter(folder) == before
        content = self.content(source)
        self.change(source)
        assert self.content(source) != content

    # --- the way through a vault ---

    def test_stored_artifacts_count_as_the_frozen_store(
        self, source: Source, artifacts: list[Artifact], workspace: Path
    ) -> None:
        inspection = source.inspect(artifacts, workspace)
        assert list(inspection.problems) == []
        assert differences(source.facts(), inspection.facts) == []

    def test_a_copy_elsewhere_equals_the_store(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        copy = self.other_place(source, tmp_path / "elsewhere" / "deeper")
        self.restore(copy, artifacts)
        assert self.content(copy) == self.content(source)
        assert differences(source.facts(), copy.facts()) == []

    def test_an_empty_twin_can_be_restored_into(
        self, source: Source, artifacts: list[Artifact], folder: Path, workspace: Path
    ) -> None:
        before = self.content(source), self.litter(folder)
        with source.scratch(workspace) as twin:
            assert not any(twin.facts().counts.values())
            self.restore(twin, artifacts)
            assert differences(source.facts(), twin.facts()) == []
        assert (self.content(source), self.litter(folder)) == before

    def test_a_folder_can_be_restored_into(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        target = tmp_path / "by target" / source.name
        twin = source.at(target)
        staged = self.staging(twin)
        staged.fill(artifacts)
        assert differences(source.facts(), staged.view.facts()) == []
        staged.activate()
        assert staged.settle(None) is None
        assert any(twin.facts().counts.values())

    def test_it_says_where_it_is(self, source: Source) -> None:
        assert source.where

    def test_another_source_can_take_it_in(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        other_folder = tmp_path / "other"
        other_folder.mkdir()
        other = self.make_source("another-name", other_folder)
        self.restore(other, artifacts)
        assert self.content(other) == self.content(source)

    def test_a_backup_of_a_copy_is_as_good(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        copy = self.other_place(source, tmp_path / "copy")
        self.restore(copy, artifacts)
        vault = self.make_vault(tmp_path / "second-vault")
        again = stored_artifacts(
            vault, back_up([copy], vault, tmp_path / "second-workspace"), self.component
        )
        third = self.other_place(source, tmp_path / "third")
        self.restore(third, again)
        assert self.content(third) == self.content(source)

    def test_the_guide_restores_it_without_holdfast(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        target = tmp_path / "by hand"
        target.mkdir()
        paths = {
            artifact.part: shlex.quote(str(write_out(artifact, tmp_path / "artifacts of vault")))
            for artifact in artifacts
        }
        run_lines(source.guide(paths), target, self.guide_environment(target))
        assert self.guided_content(source, target) == self.content(source)

    # --- restoring over the live store ---

    def test_making_a_staging_touches_nothing(self, changed: Source, folder: Path) -> None:
        before = self.content(changed), self.litter(folder)
        staged = self.staging(changed)
        assert json.loads(json.dumps(staged.token)) == staged.token
        assert (self.content(changed), self.litter(folder)) == before

    def test_filling_leaves_the_live_store_alone(
        self, changed: Source, artifacts: list[Artifact]
    ) -> None:
        before = self.content(changed)
        staged = self.staging(changed)
        staged.fill(artifacts)
        assert self.content(changed) == before
        staged.revert()

    def test_what_is_staged_counts_as_what_was_backed_up(
        self, changed: Source, artifacts: list[Artifact], workspace: Path
    ) -> None:
        expected = changed.inspect(artifacts, workspace).facts
        staged = self.staging(changed)
        staged.fill(artifacts)
        counted = staged.view.facts()
        staged.revert()
        assert differences(expected, counted) == []

    def test_activating_switches_to_what_was_backed_up(
        self, source: Source, artifacts: list[Artifact], folder: Path
    ) -> None:
        backed_up, before = self.content(source), self.litter(folder)
        self.change(source)
        staged = self.staging(source)
        staged.fill(artifacts)
        staged.activate()
        assert self.content(source) == backed_up
        assert staged.settle(None) is None
        assert self.content(source) == backed_up
        assert self.litter(folder) == before

    @pytest.mark.parametrize("again", [False, True], ids=["same-process", "reopened"])
    @pytest.mark.parametrize("steps", [0, 1, 2], ids=["untouched", "filled", "activated"])
    def test_reverting_puts_everything_back(
        self, changed: Source, artifacts: list[Artifact], folder: Path, steps: int, *, again: bool
    ) -> None:
        before = self.content(changed), self.litter(folder)
        staged = self.staging(changed)
        take_steps(staged, artifacts, steps)
        if again:
            staged = self.reopened(staged, folder)
        staged.revert()
        assert (self.content(changed), self.litter(folder)) == before
        staged.revert()
        assert (self.content(changed), self.litter(folder)) == before

    def test_a_fill_that_crashed_is_reverted_by_its_token(
        self, changed: Source, artifacts: list[Artifact], folder: Path
    ) -> None:
        before = self.content(changed), self.litter(folder)
        staged = self.staging(changed)
        with pytest.raises(Crash):
            staged.fill(failing(artifacts, Crash(), at_the_end=False))
        self.reopened(staged, folder).revert()
        assert (self.content(changed), self.litter(folder)) == before

    @pytest.mark.parametrize("at_the_end", [False, True], ids=["midway", "last-byte"])
    def test_rotten_artifacts_are_not_taken(
        self, changed: Source, artifacts: list[Artifact], folder: Path, *, at_the_end: bool
    ) -> None:
        before = self.content(changed), self.litter(folder)
        rot = BackupDamaged(backup="b", path="p", reason="its checksum differs")
        staged = self.staging(changed)
        with pytest.raises(BackupDamaged):
            staged.fill(failing(artifacts, rot, at_the_end=at_the_end))
        assert self.content(changed) == before[0]
        staged.revert()
        assert (self.content(changed), self.litter(folder)) == before

    def test_settling_twice_is_as_good_as_once(
        self, source: Source, artifacts: list[Artifact], folder: Path
    ) -> None:
        backed_up, before = self.content(source), self.litter(folder)
        self.change(source)
        staged = self.staging(source)
        take_steps(staged, artifacts, 2)
        staged.settle(None)
        self.reopened(staged, folder).settle(None)
        assert (self.content(source), self.litter(folder)) == (backed_up, before)

    def test_the_old_content_can_be_kept(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        backed_up = self.content(source)
        self.change(source)
        staged = self.staging(source)
        take_steps(staged, artifacts, 2)
        kept = staged.settle(tmp_path / "attic" / self.component)
        assert kept
        assert staged.settle(tmp_path / "attic" / self.component) in {kept, None}
        assert self.content(source) == backed_up

    def test_a_store_that_is_gone_is_restored(
        self, source: Source, artifacts: list[Artifact], tmp_path: Path
    ) -> None:
        fresh_folder = tmp_path / "fresh"
        fresh_folder.mkdir()
        fresh = self.make_source(self.component, fresh_folder)
        staged = self.staging(fresh)
        take_steps(staged, artifacts, 2)
        assert self.content(fresh) == self.content(source)
        assert staged.settle(None) is None
        assert self.content(fresh) == self.content(source)

    @pytest.mark.parametrize("steps", [1, 2], ids=["filled", "activated"])
    def test_reverting_where_nothing_was_leaves_nothing(
        self, artifacts: list[Artifact], tmp_path: Path, steps: int
    ) -> None:
        fresh_folder = tmp_path / "fresh"
        fresh_folder.mkdir()
        fresh = self.make_source(self.component, fresh_folder)
        staged = self.staging(fresh)
        take_steps(staged, artifacts, steps)
        staged.revert()
        assert self.litter(fresh_folder) == set()
        assert not any(fresh.facts().counts.values())
        assert fresh.probe().reachable == self.always_there

    @pytest.fixture(autouse=True)
    def _room(self, tmp_path: Path) -> None:
        self._stagings = tmp_path / "stagings"
        self._stagings.mkdir()

    def staging(self, source: Source, tag: str = "tag1") -> Staged:
        """Return a staging with room of its own on this machine."""
        return source.staging(tag, self._stagings / tag / source.name)

    def restore(self, source: Source, artifacts: Sequence[Artifact]) -> None:
        """Restore into a source that has no store yet."""
        staged = self.staging(source, f"restore{len(listing(self._stagings))}")
        take_steps(staged, artifacts, 2)
        assert staged.settle(None) is None

    def reopened(self, staged: Staged, folder: Path) -> Staged:
        """Return a staging as another process would: by its token, from a new source."""
        token = json.loads(json.dumps(staged.token))
        return self.make_source(self.component, folder).reopen(token)


def take_steps(staged: Staged, artifacts: Sequence[Artifact], steps: int) -> None:
    """Fill, then activate, as far as ``steps`` says."""
    if steps >= 1:
        staged.fill(artifacts)
    if steps >= 2:  # noqa: PLR2004 - fill is the first step, activate the second
        staged.activate()
