"""The files source: what its contract does not ask of every source."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.errors import SourceMissing, TargetUnfit, TreeUnsafe, UsageInvalid
from holdfast.model.artifact import Artifact, Tree
from holdfast.ports import Keyed
from holdfast.sources import _mounted_below, _reading
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.vaults._archive import ARCHIVES, Pack
from tests import tree_world as world
from tests.nowhere import NOWHERE


def options(base: Path, **given: Any) -> FilesOptions:
    return FilesOptions.model_validate(given, context={"base": base})


def source(base: Path, **given: Any) -> FilesSource:
    return FilesSource("files", options(base, **given))


def write(root: Path, **files: str) -> None:
    """Write files; ``__`` stands for a folder, ``_dot_`` for a dot."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def backed_up(live: FilesSource, workspace: Path) -> list[Artifact]:
    """Back a source up in memory."""
    with live.freeze(workspace) as frozen:
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        kept = world.tree(world.listed(tree), tree.name)
    return [replace(kept, labels=tree.labels)]


def paths(artifacts: list[Artifact]) -> list[str]:
    (tree,) = artifacts
    assert isinstance(tree, Tree)
    return [entry.path for entry, _content in world.listed(tree)]


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"path": "a", "paths": ["b"]},
        {"paths": []},
        {"paths": ["a", "a"]},
        {"paths": ["a", "./a"]},
        {"paths": ["a/b", "a"]},
        {"paths": ["a", "a-b", "a/b"]},
        {"paths": ["etc/x", "/etc/x"]},
        {"paths": ["../x", "x"]},
        {"paths": ["."]},
        {"paths": ["/"]},
        {"paths": [".."]},
        {"path": "a", "excludes": ["b"]},
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(tmp_path, **given)


def test_paths_keep_the_names_that_they_are_written_with(tmp_path: Path) -> None:
    given = options(tmp_path, paths=["infra/env", "/etc/app.conf", "../beside", "./a//b/"])
    assert dict(given.places) == {
        "infra/env": tmp_path / "infra/env",
        "etc/app.conf": Path("/etc/app.conf"),
        "beside": tmp_path / "../beside",
        "a/b": tmp_path / "a/b",
    }


def test_paths_elsewhere_are_not_confused_with_paths_here(tmp_path: Path) -> None:
    inside = str(tmp_path / "a")
    with pytest.raises(ValidationError, match="overlap"):
        options(tmp_path, paths=["a/b", inside])


def test_files_are_keyed(tmp_path: Path) -> None:
    write(tmp_path, u__a="1", u__b__c="2", u__b__d_dot_tmp="3")
    (tmp_path / "u" / "link").symlink_to("a")
    files = source(tmp_path, path="u", exclude=["*.tmp"])
    assert isinstance(files, Keyed)
    with files.keys({}) as keys:
        assert sorted(keys) == ["a", "b/c"]
    with files.keys({"prefix": "b/"}) as keys:
        assert list(keys) == ["b/c"]
    with pytest.raises(UsageInvalid, match="suffix"), files.keys({"suffix": "x"}):
        pass


def test_exclusion_is_that_of_gitignore(tmp_path: Path) -> None:
    write(tmp_path, u__a="1", u__a_dot_tmp="2", u__keep_dot_tmp="3", u__cache__x="4",
          u__sub__cache__y="5", u__sub__build__z="6", u__build__w="7", u__deep__x__log="8",
          )  # fmt: skip
    patterns = ["*.tmp", "!keep.tmp", "cache/", "/build", "deep/**/log"]
    files = source(tmp_path, path="u", exclude=patterns)
    assert paths(backed_up(files, tmp_path)) == [
        ".", "a", "deep", "deep/x", "keep.tmp", "sub", "sub/build", "sub/build/z",
    ]  # fmt: skip


def test_names_that_are_not_text_can_be_excluded(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / os.fsdecode(b"\xff.tmp")).write_text("x")
    (tmp_path / "u" / os.fsdecode(b"\xff.txt")).write_text("x")
    files = source(tmp_path, path="u", exclude=["*.tmp"])
    assert paths(backed_up(files, tmp_path)) == [".", os.fsdecode(b"\xff.txt")]


# --- counting while reading -----------------------------------------------------------------------


def test_the_counts_are_those_of_what_was_read(tmp_path: Path) -> None:
    write(tmp_path, u__a="12345", u__z="1")
    live = source(tmp_path, path="u")
    with live.freeze(tmp_path) as frozen, ThreadPoolExecutor(1) as threads:
        counting = threads.submit(frozen.facts)
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        with tree.open() as items:
            assert [next(items)[0].path for _ in range(2)] == [".", "a"]
            time.sleep(0.05)
            assert not counting.done()
            (tmp_path / "u" / "z").write_text("grown since")
            list(items)
        assert counting.result().counts == {"files": 2, "folders": 0, "links": 0, "bytes": 16}
        assert frozen.exact


def test_a_change_while_reading_makes_it_inexact(tmp_path: Path) -> None:
    write(tmp_path, u__a="1", u__b="2")
    live = source(tmp_path, path="u")
    with live.freeze(tmp_path) as frozen:
        (tree,) = frozen.artifacts
        assert isinstance(tree, Tree)
        with tree.open() as items:
            assert [next(items)[0].path for _ in range(2)] == [".", "a"]
            (tmp_path / "u" / "b").unlink()
            list(items)
        facts = frozen.facts()
    assert not frozen.exact
    assert facts.counts["files"] == 1
    assert "b: vanished while the folder was read" in facts.notes


def test_counting_before_anything_is_read_does_not_wait(tmp_path: Path) -> None:
    write(tmp_path, u__a="1")
    with source(tmp_path, path="u").freeze(tmp_path) as frozen:
        before = time.monotonic()
        assert frozen.facts().counts["files"] == 1
        assert time.monotonic() - before < 1


@pytest.mark.parametrize("begun", [False, True])
def test_counting_ends_even_if_nobody_reads_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    monkeypatch.setattr(_reading, "PATIENCE", 0.2)
    monkeypatch.setattr(_reading, "RETRY", 0.1)
    write(tmp_path, u__a="1", u__b="2")
    with (
        source(tmp_path, path="u").freeze(tmp_path) as frozen,
        ThreadPoolExecutor(1) as threads,
    ):
        counting = threads.submit(frozen.facts)
        if begun:
            (tree,) = frozen.artifacts
            with tree.open() as items:
                next(iter(items))
        assert counting.result(timeout=5).counts["files"] == 2


def test_leaving_the_freeze_wakes_who_waits(tmp_path: Path) -> None:
    write(tmp_path, u__a="1")
    with ThreadPoolExecutor(1) as threads:
        with source(tmp_path, path="u").freeze(tmp_path) as frozen:
            counting = threads.submit(frozen.facts)
        assert counting.result(timeout=2).counts["files"] == 1


def test_one_missing_path_is_enough_to_refuse(tmp_path: Path) -> None:
    write(tmp_path, a="1")
    files = source(tmp_path, paths=["a", "b"])
    with pytest.raises(SourceMissing, match="b does not exist"), files.freeze(tmp_path):
        pass
    probe = files.probe()
    assert not probe.reachable
    assert "b does not exist" in probe.problems[0]


# --- restoring ------------------------------------------------------------------------------------


def test_a_symbolic_link_as_path_is_restored_where_it_points(tmp_path: Path) -> None:
    write(tmp_path, disk__data__a="old")
    (tmp_path / "uploads").symlink_to("disk/data")
    live = source(tmp_path, path="uploads")
    artifacts = backed_up(live, tmp_path)
    write(tmp_path, disk__data__a="changed")
    staged = live.staging("t1", NOWHERE)
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)
    assert (tmp_path / "uploads").is_symlink()
    assert (tmp_path / "disk" / "data" / "a").read_text() == "old"


def test_a_path_that_the_backup_does_not_know_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, a="old", b="old")
    artifacts = backed_up(source(tmp_path, paths=["a"]), tmp_path)
    write(tmp_path, a="changed", b="changed")
    staged = source(tmp_path, paths=["a", "b"]).staging("t1", NOWHERE)
    staged.fill(artifacts)
    staged.activate()
    assert staged.settle(None) is None
    assert ((tmp_path / "a").read_text(), (tmp_path / "b").read_text()) == ("old", "changed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_path_that_is_no_longer_configured_is_refused_not_dropped(tmp_path: Path) -> None:
    write(tmp_path, a="old", b="old")
    artifacts = backed_up(source(tmp_path, paths=["a", "b"]), tmp_path)
    staged = source(tmp_path, paths=["a"]).staging("t1", NOWHERE)
    with pytest.raises(TargetUnfit, match="the backup has b, which is not among"):
        staged.fill(artifacts)
    staged.revert()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_another_mount_inside_is_refused_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, u__a="1", mountinfo="")
    live = source(tmp_path, path="u")
    artifacts = backed_up(live, tmp_path)
    real = os.path.realpath(tmp_path).replace(" ", "\\040")
    line = f"36 35 98:0 / {real}/u/cache\\040two rw,noatime shared:1 - ext4 /dev/x rw\n"
    (tmp_path / "mountinfo").write_text(line)
    monkeypatch.setattr(_mounted_below, "MOUNTS", tmp_path / "mountinfo")
    staged = live.staging("t1", NOWHERE)
    with pytest.raises(TargetUnfit, match=r"mounted in it, at .*/u/cache two"):
        staged.fill(artifacts)
    staged.revert()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mountinfo", "u"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_mount_point_cannot_be_restored_over(tmp_path: Path) -> None:
    write(tmp_path, u__a="1")
    live = source(tmp_path, path="u")
    artifacts = backed_up(live, tmp_path)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "none", tmp_path / "u"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine may not mount: {done.stderr.decode().strip()}")
    try:
        staged = live.staging("t1", NOWHERE)
        with pytest.raises(TargetUnfit, match="mount point") as caught:
            staged.fill(artifacts)
        assert "--target" in caught.value.hint
        staged.revert()
    finally:
        subprocess.run(["umount", tmp_path / "u"], check=True)


def test_a_stored_tree_that_leads_out_is_refused(tmp_path: Path) -> None:
    write(tmp_path, u__a="1")
    evil = world.tree([world.folder(), world.symlink("a", ".."), world.file("a/evil", b"x")])
    staged = source(tmp_path, path="u").staging("t1", NOWHERE)
    with pytest.raises(TreeUnsafe):
        staged.fill([evil])
    staged.revert()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]


# --- what backups leave out -----------------------------------------------------------------------


class Crash(BaseException):
    """Ends a step as a crash would."""


def with_excluded(base: Path) -> tuple[FilesSource, list[Artifact]]:
    """Return a source that was backed up and changed, with things in it that backups leave out."""
    write(base, u__a="old", u__sub__b="old", u__cache__big="c", u__sub__x_dot_tmp="t",
          u__app_dot_db="db", u__app_dot_db_minus_wal="wal")  # fmt: skip
    live = source(base, path="u", exclude=["/cache", "*.tmp", "/app.db*"])
    artifacts = backed_up(live, base)
    assert paths(artifacts) == [".", "a", "sub", "sub/b"]
    write(base, u__a="changed", u__new__c="added", u__new__y_dot_tmp="t2")
    return live, artifacts


def test_what_is_left_out_stays_live(tmp_path: Path) -> None:
    live, artifacts = with_excluded(tmp_path)
    inode = (tmp_path / "u" / "app.db").stat().st_ino
    staged = live.staging("t1", NOWHERE)
    staged.fill(artifacts)
    assert (tmp_path / "u" / "cache" / "big").exists()
    staged.activate()
    staged.activate()  # as after a crash: nothing is left to do
    staged.settle(None)
    found = {str(path.relative_to(tmp_path / "u")) for path in (tmp_path / "u").rglob("*")}
    assert found == {
        "a", "sub", "sub/b", "cache", "cache/big", "sub/x.tmp", "app.db", "app.db_minus_wal",
        "new", "new/y.tmp",
    }  # fmt: skip
    assert (tmp_path / "u" / "a").read_text() == "old"
    assert (tmp_path / "u" / "app.db").stat().st_ino == inode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]


def test_what_is_left_out_goes_back_with_all_that_was_written_to_it(tmp_path: Path) -> None:
    live, artifacts = with_excluded(tmp_path)
    before = world.picture(tmp_path / "u")
    staged = live.staging("t1", NOWHERE)
    staged.fill(artifacts)
    staged.activate()
    write(tmp_path, u__app_dot_db_minus_shm="made by the application after the switch")
    source(tmp_path, path="u", exclude=["/cache", "*.tmp", "/app.db*"]).reopen(
        staged.token
    ).revert()
    after = world.picture(tmp_path / "u")
    assert after.pop(b"app.db_minus_shm")
    assert after == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]


def test_a_crash_at_any_rename_can_be_reverted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, artifacts = with_excluded(tmp_path)
    before = world.picture(tmp_path / "u")
    for number in range(20):
        staged = live.staging(f"t{number}", NOWHERE)
        staged.fill(artifacts)
        with monkeypatch.context() as patches:
            finished = crash_at(number, patches, staged.activate)
        live.reopen(staged.token).revert()
        assert world.picture(tmp_path / "u") == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]
        if finished:
            break
    assert number >= 6  # four moves of what is excluded, two of the switch


def crash_at(number: int, patches: pytest.MonkeyPatch, step: Callable[[], None]) -> bool:
    """Take a step that ends before its rename of that number; returns whether it came through."""
    left = [number]

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def rename(*arguments: Any, **named: Any) -> Any:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return real(*arguments, **named)

        return rename

    patches.setattr(os, "rename", counting(os.rename))
    patches.setattr(Path, "rename", counting(Path.rename))
    try:
        step()
    except Crash:
        return False
    return True


def test_a_revert_that_crashes_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, artifacts = with_excluded(tmp_path)
    before = world.picture(tmp_path / "u")
    for number in range(20):
        staged = live.staging(f"t{number}", NOWHERE)
        staged.fill(artifacts)
        staged.activate()
        with monkeypatch.context() as patches:
            finished = crash_at(number, patches, staged.revert)
        live.reopen(staged.token).revert()
        assert world.picture(tmp_path / "u") == before
        if finished:
            break
    assert number >= 6


def test_where_the_backup_has_something_itself_it_wins(tmp_path: Path) -> None:
    write(tmp_path, u__a="old", u__x_dot_tmp="the backup's")
    artifacts = backed_up(source(tmp_path, path="u"), tmp_path)
    write(tmp_path, u__x_dot_tmp="live", u__y_dot_tmp="live")
    live = source(tmp_path, path="u", exclude=["*.tmp"])
    before = world.picture(tmp_path / "u")
    staged = live.staging("t1", NOWHERE)
    staged.fill(artifacts)
    staged.activate()
    assert (tmp_path / "u" / "x.tmp").read_text() == "the backup's"
    assert (tmp_path / "u" / "y.tmp").read_text() == "live"
    staged.revert()
    assert world.picture(tmp_path / "u") == before


def test_what_has_no_place_in_the_restored_folder_stops_the_restore(tmp_path: Path) -> None:
    write(tmp_path, u__a="a file then", u__z_dot_tmp="t")
    live = source(tmp_path, path="u", exclude=["*.tmp"])
    artifacts = backed_up(live, tmp_path)
    (tmp_path / "u" / "a").unlink()
    write(tmp_path, u__a__precious_dot_tmp="live")
    before = world.picture(tmp_path / "u")
    staged = live.staging("t1", NOWHERE)
    staged.fill(artifacts)
    with pytest.raises(TargetUnfit, match=r"a/precious\.tmp"):
        staged.activate()
    assert world.picture(tmp_path / "u") == before
    staged.revert()
    assert world.picture(tmp_path / "u") == before


def test_a_component_inside_another_is_restored_with_it(tmp_path: Path) -> None:
    write(tmp_path, u__a="old", u__inner__i="old")
    outer = source(tmp_path, path="u", exclude=["/inner"])
    inner = source(tmp_path, path="u/inner")
    backups = backed_up(outer, tmp_path), backed_up(inner, tmp_path)
    write(tmp_path, u__a="changed", u__inner__i="changed")
    before = world.picture(tmp_path / "u")
    for revert in (True, False):
        for order in ((outer, inner), (inner, outer)):
            write(tmp_path, u__a="changed", u__inner__i="changed")
            staged = {outer: outer.staging("t1", NOWHERE), inner: inner.staging("t1", NOWHERE)}
            for one, artifacts in zip((outer, inner), backups, strict=True):
                staged[one].fill(artifacts)
            assert paths(backed_up(outer, tmp_path)) == [".", "a"]  # nothing that is staged
            for one in order:
                staged[one].activate()
            assert (tmp_path / "u" / "a").read_text() == "old"
            assert (tmp_path / "u" / "inner" / "i").read_text() == "old"
            for one in reversed(order) if revert else order:
                if revert:
                    staged[one].revert()
                else:
                    staged[one].settle(None)
            expected = "changed" if revert else "old"
            assert (tmp_path / "u" / "a").read_text() == expected
            assert (tmp_path / "u" / "inner" / "i").read_text() == expected
            assert world.picture(tmp_path / "u").keys() == before.keys()
            assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]


def test_the_old_content_lies_in_the_attic(tmp_path: Path) -> None:
    live, artifacts = with_excluded(tmp_path)
    staged = live.staging("t1", NOWHERE)
    staged.fill(artifacts)
    staged.activate()
    kept = staged.settle(tmp_path / "attic" / "files")
    assert kept is not None
    assert (Path(kept) / "u" / "new" / "c").read_text() == "added"
    assert (Path(kept) / "u" / "a").read_text() == "changed"


# --- around it ------------------------------------------------------------------------------------


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    write(tmp_path, u__log="")
    program = "import sys, time; f = open(sys.argv[1], 'a'); print('open', flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "u" / "log"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.terminate()


def test_who_writes_below_is_an_occupant(tmp_path: Path, writer: subprocess.Popen[str]) -> None:
    (occupant,) = source(tmp_path, path="u").occupants()
    assert f"pid {writer.pid}" in occupant


def test_who_only_reads_is_not(tmp_path: Path) -> None:
    write(tmp_path, u__a="1")
    program = "import sys; f = open(sys.argv[1]); print('open', flush=True); input()"
    command = [sys.executable, "-c", program, str(tmp_path / "u" / "a")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert list(source(tmp_path, path="u").occupants()) == []
        process.terminate()


@pytest.mark.parametrize("archive", sorted(ARCHIVES))
def test_the_guide_unpacks_what_a_plain_vault_keeps(tmp_path: Path, archive: str) -> None:
    write(tmp_path, u__a="1", u__sub__b="2")
    os.setxattr(tmp_path / "u" / "a", "user.note", b"kept")
    live = source(tmp_path, path="u")
    file = tmp_path / "it's here" / f"files.{archive}"
    file.parent.mkdir()
    (tree,) = backed_up(live, tmp_path)
    assert isinstance(tree, Tree)
    file.write_bytes(b"".join(Pack(tree, archive, lambda _n: None).chunks()))
    script = "\n".join(live.guide({"": shlex.quote(str(file))}))
    subprocess.run(
        ["sh", "-euc", script], check=True, env={**os.environ, "TARGET": f"{tmp_path}/by hand"}
    )
    assert world.picture(tmp_path / "by hand") == world.picture(tmp_path / "u")


def test_inspection_finds_what_cannot_be_restored(tmp_path: Path) -> None:
    files = source(tmp_path, path="u")
    orphan = world.tree([world.folder(), world.file("a/b", b"x")])
    assert files.inspect([orphan], tmp_path).problems == ("a/b: its folder did not come before it",)
    assert files.inspect([], tmp_path).problems == ("it does not hold one file tree",)
    assert list(tmp_path.iterdir()) == []


def test_settings_and_uploads_are_discovered(tmp_path: Path) -> None:
    write(tmp_path, _dot_env="S=1", infra__docker_minus_compose="", app__uploads__x="1",
          Media__y="1", deep__er__uploads__z="1", node_modules__files__q="1")  # fmt: skip
    (tmp_path / "infra" / "docker-compose.yml").write_text("services: {}")
    found = {one.name: dict(one.options) for one in FilesSource.discover(tmp_path)}
    assert found == {
        "Media": {"path": "Media"},
        "app-uploads": {"path": "app/uploads"},
        "settings": {"paths": [".env", "infra/docker-compose.yml"]},
    }
    for given in found.values():
        options(tmp_path, **given)


def test_a_full_disk_leaves_the_live_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "a").write_bytes(b"x" * (3 << 20))
    before = world.picture(tmp_path / "u")
    program = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from holdfast.errors import NoSpace\n"
        "from tests.unit.test_files_source import backed_up, source\n"
        "live = source(Path(sys.argv[1]), path='u')\n"
        "artifacts = backed_up(live, Path(sys.argv[1]))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "staged = live.staging('t1', Path('/nowhere'))\n"
        "try: staged.fill(artifacts)\n"
        "except NoSpace as error: print(error)\n"
        "staged.revert()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert "no space left while writing" in done.stdout, done.stderr
    assert world.picture(tmp_path / "u") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["u"]
