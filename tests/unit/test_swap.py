"""A switch by renames can be put back from every state that a crash may leave."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import TargetUnfit
from holdfast.sources._swap import Swap


class Crash(BaseException):
    """The process dies here."""


def database_companions(target: Path) -> Sequence[Path]:
    return [target.with_name(target.name + suffix) for suffix in ("-wal", "-shm")]


class Stage:
    """A folder with a database and a tree that are to be switched, or nothing at all."""

    def __init__(self, root: Path, *, fresh: bool) -> None:
        self.root = root
        folder = root / "deep" / "data"
        self.database, self.tree = folder / "app.db", folder / "files"
        if not fresh:
            folder.mkdir(parents=True)
            self.database.write_text("old database")
            Path(f"{self.database}-wal").write_text("old log")
            self.tree.mkdir()
            (self.tree / "old").write_text("old file")
        self.before = self.look()

    def swap(self) -> Swap:
        return Swap("c", [self.database, self.tree], "tag", database_companions)

    def fill(self, swap: Swap) -> None:
        swap.prepare()
        swap.new(self.database).write_text("new database")
        new = swap.new(self.tree)
        new.mkdir()
        (new / "new").write_text("new file")

    def reopened(self, token: Any) -> Swap:
        return Swap.reopened("c", json.loads(json.dumps(token)), database_companions)

    def look(self) -> dict[str, str | None]:
        return {
            str(path.relative_to(self.root)): path.read_text() if path.is_file() else None
            for path in sorted(self.root.rglob("*"))
        }

    def after(self) -> dict[str, str | None]:
        return {
            "deep": None,
            "deep/data": None,
            "deep/data/app.db": "new database",
            "deep/data/files": None,
            "deep/data/files/new": "new file",
        }


@pytest.fixture(params=[False, True], ids=["over-live", "fresh"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(tmp_path, fresh=request.param)


@contextmanager
def crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[list[int]]:
    """Die before the `at`-th change of the file system; `calls` counts them."""
    calls = [0]

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == at:
                raise Crash
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (Path, "rename"),
            (Path, "unlink"),
            (Path, "touch"),
            (Path, "rmdir"),
            (os, "rename"),
            (os, "fsync"),
            (shutil, "rmtree"),
        ):
            patch.setattr(owner, name, guarded(getattr(owner, name)))
        yield calls


def changes_in(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> int:
    with crashing(monkeypatch, 0) as calls:
        act()
    return calls[0]


def test_activated_content_is_live_and_settled_leaves_nothing_beside(stage: Stage) -> None:
    swap = stage.swap()
    stage.fill(swap)
    swap.activate()
    assert swap.settle(None) is None
    assert stage.look() == stage.after()


def test_reverting_at_any_stage_puts_everything_back(stage: Stage) -> None:
    for steps in range(3):
        swap = stage.swap()
        if steps > 0:
            stage.fill(swap)
        if steps > 1:
            swap.activate()
        swap.revert()
        assert stage.look() == stage.before
        swap.revert()
        assert stage.look() == stage.before


def test_a_crash_anywhere_in_the_switch_is_put_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = stage.swap()
    stage.fill(probe)
    total = changes_in(monkeypatch, probe.activate)
    probe.revert()
    assert total >= 4
    for at in range(1, total + 1):
        swap = stage.swap()
        stage.fill(swap)
        with pytest.raises(Crash), crashing(monkeypatch, at):
            swap.activate()
        stage.reopened(swap.token).revert()
        assert stage.look() == stage.before, f"crash at change {at}"


def test_a_crash_anywhere_in_putting_back_is_finished_by_putting_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = stage.swap()
    stage.fill(probe)
    probe.activate()
    total = changes_in(monkeypatch, probe.revert)
    for at in range(1, total + 1):
        swap = stage.swap()
        stage.fill(swap)
        swap.activate()
        with pytest.raises(Crash), crashing(monkeypatch, at):
            swap.revert()
        stage.reopened(swap.token).revert()
        assert stage.look() == stage.before, f"crash at change {at}"


@pytest.mark.parametrize("keep", [False, True])
def test_a_crash_anywhere_in_settling_is_finished_by_settling(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
    *,
    keep: bool,
) -> None:
    attic = tmp_path_factory.mktemp("attic") / "kept"
    at = 0
    crashed = True
    while crashed:
        at += 1
        shutil.rmtree(stage.root)
        stage.root.mkdir()
        shutil.rmtree(attic, ignore_errors=True)
        fresh = Stage(stage.root, fresh="deep/data" not in stage.before)
        swap = fresh.swap()
        fresh.fill(swap)
        swap.activate()
        with crashing(monkeypatch, at):
            try:
                swap.settle(attic if keep else None)
                crashed = False
            except Crash:
                pass
        fresh.reopened(swap.token).settle(attic if keep else None)
        assert fresh.look() == fresh.after(), f"crash at change {at}"
        if keep and fresh.before:
            assert (attic / "app.db").read_text() == "old database"
            assert (attic / "app.db-wal").read_text() == "old log"
            assert (attic / "1" / "files" / "old").read_text() == "old file"
    assert at > 1


def test_what_was_written_beside_the_new_database_goes_when_it_is_put_back(stage: Stage) -> None:
    swap = stage.swap()
    stage.fill(swap)
    swap.activate()
    Path(f"{stage.database}-wal").write_text("log of the new database")
    swap.revert()
    assert stage.look() == stage.before


def test_something_put_in_the_way_during_the_switch_is_not_lost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = stage.swap()
    stage.fill(swap)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if target == stage.database:
            raise Crash
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Crash):
            swap.activate()
    stage.database.write_text("somebody else's")
    with pytest.raises(TargetUnfit, match="something else was put there"):
        stage.reopened(swap.token).revert()
    assert stage.database.read_text() == "somebody else's"


def test_a_link_is_replaced_where_it_points(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "app.db", tmp_path / "app.db"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    swap = Swap("c", [link], "tag")
    swap.prepare()
    swap.new(link).write_text("new")
    swap.activate()
    swap.settle(None)
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_long_name_still_has_names_beside_it(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 250)
    target.write_text("old")
    swap = Swap("c", [target], "tag")
    swap.prepare()
    swap.new(target).write_text("new")
    swap.activate()
    swap.revert()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "file" / "below"
    target.parent.write_text("not a folder")
    with pytest.raises(TargetUnfit):
        Swap("c", [target], "tag").prepare()


def test_a_mount_point_is_refused() -> None:
    with pytest.raises(TargetUnfit, match="mount point"):
        Swap("c", [Path("/proc")], "tag").prepare()


def test_settling_across_file_systems_keeps_the_old_content_where_it_is(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def refuse(_old: object, _new: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    swap = stage.swap()
    stage.fill(swap)
    swap.activate()
    monkeypatch.setattr(os, "rename", refuse)
    kept = swap.settle(tmp_path_factory.mktemp("attic"))
    if stage.before:
        assert kept == str(stage.database.parent)
        assert "old database" in stage.look().values()
