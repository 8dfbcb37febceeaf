"""The journal of a restore: what a crash leaves of it, and what it says then."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import (
    JournalDamaged,
    NoSpace,
    StackLocked,
    StateUnwritable,
    UnknownName,
    UnsafeName,
)
from holdfast.model.recovery import OutOfOrder, Record, RestoreState, Stage, after
from holdfast.ports import Journal as JournalPort
from holdfast.runtime import files
from holdfast.runtime import journal as journal_module
from holdfast.runtime.journal import KEPT, Journal, begin, decode, open_journals, reopen

RUN = "20261120T101500Z-4f2a9c1d"
PLANNED = ("uploads", "memory")


def path_of(folder: Path, run: str = RUN) -> Path:
    return folder / "journal" / f"{run}.jsonl"


def prepared(journal: Journal) -> None:
    for name in PLANNED:
        journal.prepare(name, "files", {"path": f"/data/{name}\udc80\n", "n": 1})
        journal.filled(name)


def switched(journal: Journal) -> None:
    prepared(journal)
    journal.stopping()
    for name in PLANNED:
        journal.activate(name)
        journal.activated(name)


def decided(journal: Journal) -> None:
    switched(journal)
    journal.settle()


def finished(journal: Journal) -> None:
    decided(journal)
    for name in PLANNED:
        journal.settled(name)
    journal.end("completed")


def undone(journal: Journal) -> None:
    switched(journal)
    for name in reversed(PLANNED):
        journal.reverted(name)
    journal.end("rolled_back")


def begun(folder: Path, way: Callable[[Journal], None], run: str = RUN) -> Path:
    """Write a journal, and leave it as a process that died after ``way``."""
    with begin(folder, run, "brain", "b1", "local", PLANNED, {}) as journal:
        way(journal)
    return path_of(folder, run)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Journal]:
    with begin(
        tmp_path, RUN, "brain", "b1", "local", PLANNED, {"memory": "at:/elsewhere"}
    ) as journal:
        yield journal


def test_it_is_a_journal_as_the_seam_wants_it(opened: Journal) -> None:
    port: JournalPort = opened
    assert port is opened


def test_it_tells_what_was_asked_for_and_how_far_it_is(opened: Journal, tmp_path: Path) -> None:
    decided(opened)
    opened.settled("uploads")
    state = opened.state
    assert (state.run, state.stack, state.backup, state.vault) == (RUN, "brain", "b1", "local")
    assert (state.targets, state.planned, state.stopped, state.decided) == (
        {"memory": "at:/elsewhere"},
        PLANNED,
        True,
        True,
    )
    assert [c.name for c in state.to_settle] == ["memory"]
    assert state.to_revert == []
    uploads = state.components["uploads"]
    assert (uploads.kind, uploads.stage) == ("files", Stage.SETTLED)
    assert uploads.token == {"path": "/data/uploads\udc80\n", "n": 1}


def test_before_the_decision_everything_touched_is_to_be_undone_last_first(opened: Journal) -> None:
    switched(opened)
    assert [c.name for c in opened.state.to_revert] == ["memory", "uploads"]
    assert opened.state.to_settle == []
    opened.reverted("memory")
    opened.reverted("memory")  # a crash may come between the act and the word
    assert [c.name for c in opened.state.to_revert] == ["uploads"]


def test_each_line_is_json_that_other_tools_read(tmp_path: Path) -> None:
    lines = begun(tmp_path, decided).read_text("ascii").splitlines()
    records = [json.loads(line)[2] for line in lines]
    assert [record["kind"] for record in records[:3]] == ["begin", "prepare", "filled"]
    assert records[-1] == {"n": 11, "kind": "settle"}
    assert [int(json.loads(line)[0]) for line in lines] == [
        len(line.split('",', 2)[2]) - 1 for line in lines
    ]


def test_a_record_is_on_the_disk_before_the_call_returns(
    opened: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced.append(path_of(tmp_path).read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    opened.prepare("uploads", "files", {})
    assert b'"prepare"' in synced[-1]
    assert len(synced) == 1


def test_an_unfinished_journal_is_found_and_taken_over_by_one(tmp_path: Path) -> None:
    begun(tmp_path, switched)
    (unfinished,) = open_journals(tmp_path)
    assert (unfinished.run, unfinished.problem) == (RUN, None)
    with reopen(tmp_path, RUN) as journal:
        assert journal.state == unfinished.state
        assert open_journals(tmp_path) == []  # it is being recovered
        with pytest.raises(StackLocked), reopen(tmp_path, RUN):
            pass
        for involved in journal.state.to_revert:
            journal.reverted(involved.name)
        journal.end("rolled_back")
    assert open_journals(tmp_path) == []
    with pytest.raises(UnknownName), reopen(tmp_path, RUN):
        pass


def test_the_journal_of_a_live_restore_is_not_unfinished(opened: Journal, tmp_path: Path) -> None:
    switched(opened)
    assert open_journals(tmp_path) == []
    with pytest.raises(StackLocked), reopen(tmp_path, RUN):
        pass


def test_there_is_nothing_to_recover_where_nothing_was_restored(tmp_path: Path) -> None:
    assert open_journals(tmp_path) == []
    with pytest.raises(UnknownName), reopen(tmp_path, RUN):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", [finished, undone])
def test_a_finished_journal_is_kept_among_the_finished(
    tmp_path: Path, way: Callable[[Journal], None]
) -> None:
    begun(tmp_path, way)
    assert open_journals(tmp_path) == []
    assert [p.name for p in (tmp_path / "journal" / "done").iterdir()] == [f"{RUN}.jsonl"]


def test_only_the_newest_finished_journals_are_kept(tmp_path: Path) -> None:
    runs = [f"2026112{n // 60}T10{n % 60:02}00Z-00000000" for n in range(KEPT + 5)]
    for run in runs:
        begun(tmp_path, undone, run)
    kept = sorted(path.stem for path in (tmp_path / "journal" / "done").iterdir())
    assert kept == runs[5:]


def test_a_journal_that_had_only_to_be_put_away_is(tmp_path: Path) -> None:
    begun(tmp_path, finished)
    done = tmp_path / "journal" / "done" / f"{RUN}.jsonl"
    done.rename(path_of(tmp_path))  # killed between the last record and the move
    assert open_journals(tmp_path) == []
    assert done.exists()
    done.rename(path_of(tmp_path))
    with pytest.raises(UnknownName), reopen(tmp_path, RUN):
        pass
    assert done.exists()


def test_a_run_has_one_journal(opened: Journal, tmp_path: Path) -> None:
    with (
        pytest.raises(StateUnwritable, match="exists"),
        begin(tmp_path, RUN, "brain", "b2", "local", PLANNED, {}),
    ):
        pass
    assert opened.path.exists()


def test_a_run_s_name_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(UnsafeName), begin(tmp_path, "../x", "brain", "b", "v", PLANNED, {}):
        pass


# --- crashes and damage ---


def states(data: bytes) -> list[RestoreState | None]:
    """Return the state after each record of a whole journal, beginning with none."""
    found: list[RestoreState | None] = [None]
    for record in decode(data, Path("x"))[0]:
        found.append(after(found[-1], record))
    return found


with TemporaryDirectory() as _folder:
    WHOLE = begun(Path(_folder), decided).read_bytes()
RECORDS = decode(WHOLE, Path("x"))[0]


@settings(deadline=None)
@given(cut=st.integers(0, len(WHOLE)), zeros=st.sampled_from([0, 0, 8, 300]))
def test_cut_at_any_byte_it_says_what_its_whole_records_say(cut: int, zeros: int) -> None:
    count = WHOLE[:cut].count(b"\n")
    if not zeros and WHOLE[cut : cut + 1] == b"\n":
        count += 1  # a line that lacks but its newline is whole
    expected = states(WHOLE)[count]
    with TemporaryDirectory() as name:
        path = path_of(Path(name))
        path.parent.mkdir()
        # A crash may also leave the file longer than what was written: the rest reads as zeros.
        path.write_bytes(WHOLE[:cut] + b"\0" * zeros)
        found = open_journals(Path(name))
        assert [(one.state, one.problem) for one in found] == [(expected, None)][: bool(count)]
        if not found:
            assert (path.parent / "done" / path.name).exists()
            return
        with reopen(Path(name), RUN) as journal:
            assert journal.state == expected
            journal.stopping()
        assert open_journals(Path(name))[0].problem is None  # it can be gone on with


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
def test_a_byte_that_rots_never_changes_what_it_says(place: int, flip: int) -> None:
    rotten = bytearray(WHOLE)
    rotten[place] ^= flip
    line = WHOLE[:place].count(b"\n") + 1
    with pytest.raises(JournalDamaged) as caught:
        decode(bytes(rotten), Path("x"))
    assert caught.value.fields["record"] == str(line)


@pytest.mark.parametrize("line", range(11))
def test_a_line_that_is_missing_or_doubled_is_damage(tmp_path: Path, line: int) -> None:
    path = begun(tmp_path, decided)
    lines = WHOLE.splitlines(keepends=True)
    for damaged in (
        [*lines[:line], *lines[line + 1 :]] if line < 10 else [*lines[:9], lines[10]],
        [*lines[: line + 1], *lines[line:]],
    ):
        path.write_bytes(b"".join(damaged))
        (found,) = open_journals(tmp_path)
        assert isinstance(found.problem, JournalDamaged)
        assert found.state is None
        with pytest.raises(JournalDamaged, match=RUN), reopen(tmp_path, RUN):
            pass


def test_damage_of_one_journal_does_not_hide_another(tmp_path: Path) -> None:
    damaged = begun(tmp_path, switched, "a")
    begun(tmp_path, switched, "b")
    damaged.write_bytes(damaged.read_bytes().replace(b"memory", b"memorz", 1))
    found = {one.run: one.problem is None for one in open_journals(tmp_path)}
    assert found == {"a": False, "b": True}


def test_records_of_a_later_version_are_not_guessed_at(tmp_path: Path) -> None:
    path = begun(tmp_path, switched)
    count = path.read_bytes().count(b"\n")
    with path.open("ab") as file:
        file.write(journal_module.encode({"n": count + 1, "kind": "teleport"}))
    (found,) = open_journals(tmp_path)
    assert "teleport" in str(found.problem)


def test_a_journal_that_never_began_is_put_away(tmp_path: Path) -> None:
    path = begun(tmp_path, lambda _journal: None)
    path.write_bytes(path.read_bytes()[:20])
    assert open_journals(tmp_path) == []
    assert not path.exists()


# --- a disk that fails ---


def failing(journal: Journal, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the next record be written by half, and fail then."""
    real = files.write_all

    def write(descriptor: int, data: bytes) -> None:
        monkeypatch.setattr(journal_module, "write_all", real)
        real(descriptor, data[: len(data) // 2])
        raise error

    monkeypatch.setattr(journal_module, "write_all", write)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), NoSpace),
        (OSError(errno.EIO, "broken"), StateUnwritable),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_record_that_fails_is_taken_back_and_the_next_one_holds(
    opened: Journal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    expected: type[BaseException],
) -> None:
    prepared(opened)
    before, text = opened.state, path_of(tmp_path).read_bytes()
    failing(opened, monkeypatch, error)
    with pytest.raises(expected):
        opened.activate("uploads")
    assert (opened.state, path_of(tmp_path).read_bytes()) == (before, text)
    opened.reverted("memory")
    assert states(path_of(tmp_path).read_bytes())[-1] == opened.state


def test_a_decision_that_did_not_reach_the_disk_is_not_taken(
    opened: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched(opened)
    real = os.fsync
    failures = iter([OSError(errno.EIO, "broken")])

    def fsync(descriptor: int) -> None:
        for failure in failures:
            raise failure
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StateUnwritable, match="broken"):
        opened.settle()
    assert not opened.state.decided
    last = states(path_of(tmp_path).read_bytes())[-1]
    assert last is not None
    assert not last.decided


def test_a_journal_that_cannot_take_a_record_back_takes_no_other(
    opened: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(opened)
    failing(opened, monkeypatch, OSError(errno.EIO, "broken"))

    def truncate(*_: object) -> None:
        raise OSError(errno.EIO, "broken too")

    monkeypatch.setattr(os, "ftruncate", truncate)
    with pytest.raises(StateUnwritable, match="broken too"):
        opened.activate("uploads")
    with pytest.raises(StateUnwritable, match="could not be taken back"):
        opened.reverted("uploads")


# --- order ---


@pytest.mark.parametrize(
    ("way", "kind", "content"),
    [
        (prepared, "prepare", {"component": "uploads", "source": "files", "token": {}}),
        (prepared, "prepare", {"component": "unplanned", "source": "files", "token": {}}),
        (prepared, "filled", {"component": "uploads"}),
        (prepared, "activated", {"component": "uploads"}),
        (prepared, "settle", {}),
        (prepared, "settled", {"component": "uploads"}),
        (switched, "settled", {"component": "uploads"}),
        (switched, "activate", {"component": "uploads"}),
        (switched, "end", {"outcome": "completed"}),
        (switched, "end", {"outcome": "rolled_back"}),
        (decided, "reverted", {"component": "uploads"}),
        (decided, "end", {"outcome": "completed"}),
        (decided, "end", {"outcome": "rolled_back"}),
        (decided, "settled", {"component": "unheard of"}),
        (decided, "begin", {}),
        (decided, "settled", {}),
        (switched, "reverted", {"component": 1}),
    ],
)
def test_a_record_out_of_order_is_refused_and_not_written(
    opened: Journal,
    tmp_path: Path,
    way: Callable[[Journal], None],
    kind: str,
    content: dict[str, str],
) -> None:
    way(opened)
    before = path_of(tmp_path).read_bytes()
    with pytest.raises(OutOfOrder):
        opened._append(kind, **content)
    assert path_of(tmp_path).read_bytes() == before


def test_nothing_can_be_decided_with_a_component_missing(opened: Journal) -> None:
    opened.prepare("uploads", "files", {})
    opened.filled("uploads")
    opened.activate("uploads")
    opened.activated("uploads")
    with pytest.raises(OutOfOrder, match="memory"):
        opened.settle()


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "prepare"},
        {"kind": "begin", "components": "memory"},
        {"kind": "begin", "components": [1]},
        {},
        {"kind": "begin", "components": [], "run": 1},
    ],
)
def test_a_journal_begins_with_its_beginning(record: dict[str, object]) -> None:
    with pytest.raises(OutOfOrder):
        after(None, cast("Record", record))


BEGINNING: dict[str, object] = {
    "kind": "begin",
    "run": RUN,
    "stack": "brain",
    "backup": "b1",
    "vault": "local",
    "components": ["memory"],
}


@pytest.mark.parametrize("targets", [{}, {"memory": "at:/x", "uploads": "s3://b/c=d?e"}])
def test_where_each_component_went_is_told_as_it_was_recorded(targets: dict[str, str]) -> None:
    state = after(None, cast("Record", {**BEGINNING, "targets": targets}))
    assert state.targets == targets


@pytest.mark.parametrize("targets", [None, "at:/x", ["at:/x"], {"memory": None}, {"memory": 1}])
def test_a_place_that_is_none_is_refused(targets: object) -> None:
    with pytest.raises(OutOfOrder, match="targets"):
        after(None, cast("Record", {**BEGINNING, "targets": targets}))


def test_places_are_not_forgotten_by_whoever_takes_over(tmp_path: Path) -> None:
    places = {"memory": "at:/some where/memory", "uploads": "s3://bucket/uploads"}
    with begin(tmp_path, RUN, "brain", "b1", "local", PLANNED, places) as journal:
        switched(journal)
    (unfinished,) = open_journals(tmp_path)
    assert unfinished.state is not None
    assert unfinished.state.targets == places
    with reopen(tmp_path, RUN) as journal:
        assert journal.state.targets == places


def test_nothing_follows_the_end(tmp_path: Path) -> None:
    state = states(WHOLE)[-1]
    assert state is not None
    for name in PLANNED:
        state = after(state, {"kind": "settled", "component": name})
    state = after(state, {"kind": "end", "outcome": "completed"})
    with pytest.raises(OutOfOrder, match="ended"):
        after(state, {"kind": "settled", "component": "memory"})
