"""What a restore into a source survives: kill -9 before each change it makes to the file system.

For sources whose stores are files. Inherit beside the `SourceContract` of the same adapter::

    class TestLedgerKilled(SourceCrashContract, TestLedger): ...

The work runs in a forked child, so the adapter's own code must be fit to be forked.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from ..model.artifact import Artifact
from ..ports import Source
from .crashes import every_crash
from .source_contract import SourceContract, take_steps


class SourceCrashContract(SourceContract):
    """The promises of a `Staged` whose process dies."""

    stride: ClassVar[int] = 1  # kill at each step, or at every second one, …
    __test__ = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__test__ = True

    @pytest.mark.timeout(600)
    def test_a_restore_that_was_killed_is_reverted(
        self, changed: Source, artifacts: list[Artifact], folder: Path
    ) -> None:
        before = self.content(changed), self.litter(folder)

        def work() -> None:
            take_steps(self.staging(self.make_source(self.component, folder)), artifacts, 2)

        token = self.staging(changed).token
        steps = 0
        for _step in every_crash(work, stride=self.stride):
            self.make_source(self.component, folder).reopen(token).revert()
            assert (self.content(changed), self.litter(folder)) == before
            steps += 1
        assert steps > 1

    @pytest.mark.timeout(600)
    def test_a_revert_that_was_killed_is_finished_by_another(
        self, changed: Source, artifacts: list[Artifact], folder: Path
    ) -> None:
        before = self.content(changed), self.litter(folder)
        staged = self.staging(changed)
        take_steps(staged, artifacts, 2)

        def work() -> None:
            self.make_source(self.component, folder).reopen(staged.token).revert()

        for _step in every_crash(work, stride=self.stride):
            self.make_source(self.component, folder).reopen(staged.token).revert()
            assert (self.content(changed), self.litter(folder)) == before
            take_steps(self.staging(changed), artifacts, 2)

    @pytest.mark.timeout(600)
    def test_a_settling_that_was_killed_is_finished_by_another(
        self, changed: Source, artifacts: list[Artifact], folder: Path
    ) -> None:
        staged = self.staging(changed)
        names = self.litter(folder)
        take_steps(staged, artifacts, 2)
        restored = self.content(changed)

        def work() -> None:
            self.make_source(self.component, folder).reopen(staged.token).settle(None)

        for _step in every_crash(work, stride=self.stride):
            assert self.content(changed) == restored
            self.make_source(self.component, folder).reopen(staged.token).settle(None)
            assert (self.content(changed), self.litter(folder)) == (restored, names)
            take_steps(self.staging(changed), artifacts, 2)
