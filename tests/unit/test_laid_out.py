"""The artifacts of a server's component in a folder: filled, switched, put back, never let out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from holdfast.errors import (
    BackupDamaged,
    HoldfastError,
    NoScratch,
    NoSpace,
    SourceUnfit,
    TargetUnfit,
    UnsafeName,
    UsageInvalid,
)
from holdfast.model.artifact import Artifact, Chunks, Stream, Tree
from holdfast.model.facts import Facts, Inspection
from holdfast.ports import Source
from holdfast.sources._laid_out import LaidOut, LaidOutStaged
from holdfast.testing._trips import read_artifact
from holdfast.testing.crashes import every_crash
from tests import tree_world


class Owner:
    """Stands in for the source of a server: it counts what is laid out, in an empty workspace."""

    name = "db"

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        assert list(workspace.iterdir()) == []
        (workspace / "unpacked").write_text("large")
        counts = {a.part: len(str(read_artifact(a))) for a in artifacts}
        return Inspection(Facts(counts))

    def guide(self, paths: dict[str, str]) -> Sequence[str]:
        return [f"psql < {path}" for path in paths.values()]


OWNER = cast("Source", Owner())


def stream(
    name: str = "main.dump", content: bytes = b"rows", error: Exception | None = None
) -> Stream:
    @contextmanager
    def opened() -> Iterator[Chunks]:
        def chunks() -> Chunks:
            yield content
            if error:
                raise error

        yield chunks()

    return Stream(name, opened, part="main", compressible=True)


def tree(name: str = "extra") -> Tree:
    items = [tree_world.folder(), tree_world.file("file", b"in")]
    return replace(tree_world.tree(items), name=name, part="extra")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "targets" / "db"


@pytest.fixture
def room(tmp_path: Path) -> Path:
    return tmp_path / "staging" / "db"


def staged(folder: Path, room: Path) -> LaidOutStaged:
    return LaidOut(OWNER, folder).staging("tag1", room)


def reopened(folder: Path, token: object) -> LaidOutStaged:
    return LaidOut(OWNER, folder).reopen(json.loads(json.dumps(token)))


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")} if folder.exists() else set()


def test_every_artifact_gets_a_file_or_a_folder_of_its_name(folder: Path, room: Path) -> None:
    one = staged(folder, room)
    one.fill([stream(), tree()])
    assert not folder.exists()
    one.activate()
    assert one.settle(None) is None
    assert names(folder) == {"main.dump", "extra", "extra/file"}
    assert (folder / "main.dump").read_bytes() == b"rows"
    assert (folder / "extra/file").read_bytes() == b"in"
    assert names(folder.parent) == {"db", "db/main.dump", "db/extra", "db/extra/file"}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_was_laid_out_is_counted_by_its_owner_as_often_as_asked(
    folder: Path, room: Path
) -> None:
    one = staged(folder, room)
    one.fill([stream(), tree()])
    first = one.view.facts()
    assert set(first.counts) == {"main", "extra"}
    assert first.counts["main"] == len(str(b"rows"))
    assert one.view.facts() == first
    assert names(room) == set()  # what counting needed is gone, too


def test_a_folder_whose_artifacts_are_not_known_is_counted_as_files(
    folder: Path, room: Path
) -> None:
    laid = LaidOut(OWNER, folder)
    assert laid.facts() == Facts()
    assert not laid.probe().reachable
    one = staged(folder, room)
    one.fill([stream(), tree()])
    one.activate()
    one.settle(None)
    assert laid.facts().counts == {"files": 2, "bytes": 6}
    assert laid.probe().reachable
    assert laid.probe().size == 6
    assert laid.where == str(folder)


def test_what_was_there_comes_back(folder: Path, room: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    for steps in (1, 2):
        one = staged(folder, room)
        one.fill([stream()])
        if steps == 2:
            one.activate()
            assert names(folder) == {"main.dump"}
        again = reopened(folder, one.token)
        again.revert()
        again.revert()
        assert names(folder.parent) == {"db", "db/mine.txt"}


def test_what_was_there_is_kept_in_the_attic_or_dropped(
    folder: Path, room: Path, tmp_path: Path
) -> None:
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    one = staged(folder, room)
    one.fill([stream()])
    one.activate()
    kept = reopened(folder, one.token).settle(tmp_path / "attic" / "db")
    assert kept is not None
    assert [path.read_text() for path in (tmp_path / "attic").rglob("mine.txt")] == ["mine"]
    second = staged(folder, room)
    second.fill([stream(content=b"again")])
    second.activate()
    assert second.settle(None) is None
    assert (folder / "main.dump").read_bytes() == b"again"
    assert names(folder.parent) == {"db", "db/main.dump"}


@pytest.mark.parametrize("fresh", ["fresh", "replacing"])
def test_a_crash_at_any_step_can_be_put_back(folder: Path, room: Path, fresh: str) -> None:
    if fresh == "replacing":
        folder.mkdir(parents=True)
        (folder / "mine.txt").write_text("mine")
    before = names(folder.parent.parent) - {"staging", "staging/db"}
    token = staged(folder, room).token

    def work() -> None:
        one = staged(folder, room)
        one.fill([stream(), tree()])
        one.activate()

    steps = 0
    for _step in every_crash(work):
        reopened(folder, token).revert()
        assert names(folder.parent.parent) - {"staging", "staging/db"} == before
        steps += 1
    assert steps > 3


def test_a_settling_that_died_is_finished(folder: Path, room: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    one = staged(folder, room)
    one.fill([stream()])
    one.activate()

    def work() -> None:
        reopened(folder, one.token).settle(None)

    for _step in every_crash(work):
        reopened(folder, one.token).settle(None)
        assert names(folder.parent) == {"db", "db/main.dump"}
        again = staged(folder, room)
        again.fill([stream()])
        again.activate()


@pytest.mark.parametrize(
    "name", ["../out", "/out", "..", ".", "", ".hidden", "-rf", "a/b", "a\\b", "a\0b", "a\nb"]
)
@pytest.mark.parametrize("make", [stream, tree])
def test_no_name_leads_out_of_the_folder(folder: Path, room: Path, name: str, make: object) -> None:
    artifact = cast("type[Stream]", make)(name)  # type: ignore[call-arg]
    before = names(folder.parent.parent)
    one = staged(folder, room)
    with pytest.raises(UnsafeName):
        one.fill([stream(), artifact])
    one.revert()
    assert names(folder.parent.parent) <= before | {"targets"}


def test_a_name_that_comes_twice_never_hides_the_other(folder: Path, room: Path) -> None:
    one = staged(folder, room)
    with pytest.raises(TargetUnfit, match="File exists"):
        one.fill([stream(), stream()])
    one.revert()
    assert names(folder) == set()


@pytest.mark.parametrize(
    "error", [BackupDamaged(backup="b", path="p", reason="rot"), RuntimeError("died")]
)
def test_a_stream_that_dies_at_its_end_is_not_made_live(
    folder: Path, room: Path, error: Exception
) -> None:
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    one = staged(folder, room)
    with pytest.raises(type(error)):
        one.fill([stream(error=error)])
    assert names(folder) == {"mine.txt"}
    one.revert()
    assert names(folder.parent) == {"db", "db/mine.txt"}


def test_a_full_disk_is_said_as_such(folder: Path, room: Path) -> None:
    with pytest.raises(NoSpace):
        staged(folder, room).fill([stream(error=OSError(28, "No space left on device"))])


def test_a_place_that_cannot_be_made_is_said(tmp_path: Path, room: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HoldfastError):
        staged(tmp_path / "file" / "db", room).fill([stream()])


def test_it_is_no_live_store(folder: Path, room: Path, tmp_path: Path) -> None:
    laid = LaidOut(OWNER, folder)
    with pytest.raises(SourceUnfit), laid.freeze(tmp_path):
        pass
    with pytest.raises(NoScratch), laid.scratch(tmp_path):
        pass
    assert list(laid.discover(folder)) == []
    assert list(laid.occupants()) == []
    assert laid.guide({"main": "main.dump"}) == ["psql < main.dump"]


def test_it_may_be_placed_elsewhere_on_this_machine_only(folder: Path, tmp_path: Path) -> None:
    laid = LaidOut(OWNER, folder)
    assert laid.at(tmp_path / "x").where == str(tmp_path / "x")
    assert laid.elsewhere(f"file://{tmp_path}/y%20z").where == str(tmp_path / "y z")
    with pytest.raises(UsageInvalid, match="not to s3"):
        laid.elsewhere("s3://bucket/x")


def test_the_token_tells_all_that_a_stranger_needs(folder: Path, room: Path) -> None:
    one = staged(folder, room)
    one.fill([stream()])
    other = LaidOut(OWNER, Path("/nowhere")).reopen(json.loads(json.dumps(one.token)))
    other.activate()
    other.settle(None)
    assert (folder / "main.dump").read_bytes() == b"rows"
    assert os.listdir(folder) == ["main.dump"]  # noqa: PTH208 - hidden files count as well
