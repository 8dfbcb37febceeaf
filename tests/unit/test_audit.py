"""The audit trail: a chain in which every single change shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import AuditBroken
from holdfast.runtime.audit import GAP, HEAD, AuditTrail, acting_user
from holdfast.runtime.database import FILE_NAME, Database
from tests.runtime_world import SettableClock

FIELDS = (
    "number",
    "at",
    "user",
    "host",
    "verb",
    "subject",
    "outcome",
    "details",
    "previous",
    "sha256",
)


@contextmanager
def trail_of(folder: Path) -> Iterator[AuditTrail]:
    with closing(Database(folder / FILE_NAME)) as database:
        yield AuditTrail(database, SettableClock(), lambda: "alice")


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[AuditTrail]:
    with trail_of(tmp_path) as opened:
        yield opened


def fill(trail: AuditTrail, count: int) -> None:
    for number in range(trail.verify(), count):
        trail.append("backup", f"b{number}", "completed", {"bytes": number, "note": "ü\udc80"})


def tamper(folder: Path, sql: str, values: tuple[object, ...] = ()) -> int:
    with closing(sqlite3.connect(folder / FILE_NAME)) as database:
        changed = database.execute(sql, values).rowcount
        database.commit()
    return changed


def broken_at(trail: AuditTrail) -> int:
    with pytest.raises(AuditBroken) as caught:
        trail.verify()
    return int(str(caught.value.fields["entry"]))


def test_an_empty_trail_is_whole(trail: AuditTrail) -> None:
    assert trail.verify() == 0
    assert trail.entries() == []


def test_entries_tell_who_did_what_and_how_it_ended(trail: AuditTrail) -> None:
    entry = trail.append("restore", "b\n1", "rolled_back", {"why": "disk"})
    assert trail.entries() == [entry]
    assert (entry.number, entry.user, entry.verb, entry.subject) == (1, "alice", "restore", r"b\n1")
    assert (entry.outcome, entry.details) == ("rolled_back", '{"why": "disk"}')
    assert entry.at == "2026-11-20T10:15:00.000000+00:00"


def test_the_newest_entries_come_oldest_first(trail: AuditTrail) -> None:
    fill(trail, 5)
    assert [entry.number for entry in trail.entries(limit=2)] == [4, 5]


def test_a_trail_longer_than_one_batch_is_whole(
    trail: AuditTrail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.runtime.audit._BATCH", 3)
    fill(trail, 10)
    assert trail.verify() == 10


def test_who_acts_is_told_by_the_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    plain = acting_user()
    monkeypatch.setenv("SUDO_USER", "alice")
    assert acting_user() == f"{plain} for alice"


def other_than(value: object) -> st.SearchStrategy[object]:
    """Give values of the same type as the column has, close to ``value`` and far from it."""
    if isinstance(value, int):
        return st.integers(-(2**63), 2**63 - 1).filter(lambda other: other != value)
    text = str(value)
    near = st.sampled_from(
        [text + " ", " " + text, text[:-1], text.upper(), text[::-1], text + "\0"]
    )
    any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
    return st.one_of(near, any_text).filter(lambda other: other != value)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_change_of_any_field_of_any_entry_is_found(data: st.DataObject) -> None:
    with TemporaryDirectory() as name, trail_of(Path(name)) as trail:
        fill(trail, 4)
        entries = trail.entries()
        entry = data.draw(st.sampled_from(entries))
        field = data.draw(st.sampled_from(FIELDS))
        value = data.draw(other_than(getattr(entry, field)))
        taken = field == "number" and value in {other.number for other in entries}
        if not taken:  # two entries cannot have one number: the table says so
            sql = f"UPDATE audit SET {field} = ? WHERE number = ?"
            assert tamper(Path(name), sql, (value, entry.number)) == 1
            broken_at(trail)


def test_the_first_entry_that_does_not_hold_is_told(trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail, 6)
    tamper(tmp_path, "UPDATE audit SET subject = 'b9' WHERE number IN (3, 5)")
    assert broken_at(trail) == 3


def test_an_entry_that_was_changed_and_signed_anew_breaks_the_next_one(
    trail: AuditTrail, tmp_path: Path
) -> None:
    fill(trail, 6)
    forged = replace(trail.entries()[2], subject="another backup")
    values = (forged.subject, forged.digest(), forged.number)
    tamper(tmp_path, "UPDATE audit SET subject = ?, sha256 = ? WHERE number = ?", values)
    assert broken_at(trail) == 4


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6])
def test_a_deletion_is_found_wherever_it_was(
    trail: AuditTrail, tmp_path: Path, number: int
) -> None:
    fill(trail, 6)
    tamper(tmp_path, "DELETE FROM audit WHERE number = ?", (number,))
    assert broken_at(trail) == number


def test_an_entry_taken_out_of_a_renumbered_trail_is_found(
    trail: AuditTrail, tmp_path: Path
) -> None:
    fill(trail, 6)
    tamper(tmp_path, "DELETE FROM audit WHERE number = 3")
    for number in (4, 5, 6):
        tamper(tmp_path, "UPDATE audit SET number = ? WHERE number = ?", (number - 1, number))
    assert broken_at(trail) == 3


def test_two_entries_that_changed_places_are_found(trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail, 6)
    for old, new in ((2, 99), (5, 2), (99, 5)):
        tamper(tmp_path, "UPDATE audit SET number = ? WHERE number = ?", (new, old))
    assert broken_at(trail) == 2


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_a_tail_that_was_cut_off_is_found(trail: AuditTrail, tmp_path: Path, kept: int) -> None:
    fill(trail, 6)
    tamper(tmp_path, "DELETE FROM audit WHERE number > ?", (kept,))
    assert broken_at(trail) == kept + 1


def test_going_on_after_a_cut_does_not_hide_it(trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail, 6)
    tamper(tmp_path, "DELETE FROM audit WHERE number > 3")
    for _ in range(4):
        trail.append("backup", "b", "completed")
    assert [entry.outcome for entry in trail.entries()][3:5] == [GAP, "completed"]
    assert broken_at(trail) == 4


@pytest.mark.parametrize(
    "head", [b"", b"garbage", b"%020d %s\n" % (2, b"0" * 64), b"%020d %s\n" % (9, b"a" * 64)]
)
def test_a_head_that_does_not_fit_is_found(trail: AuditTrail, tmp_path: Path, head: bytes) -> None:
    fill(trail, 3)
    (tmp_path / HEAD).write_bytes(head)
    assert broken_at(trail) == 4
    trail.append("backup", "b", "completed")
    assert broken_at(trail) == 4


def test_a_forged_trail_that_holds_together_does_not_fit_the_head(tmp_path: Path) -> None:
    real, forged = tmp_path / "real", tmp_path / "forged"
    with trail_of(real) as trail, trail_of(forged) as other:
        fill(trail, 3)
        other.append("backup", "never happened", "completed")
        fill(other, 3)
        other.verify()
        (real / HEAD).write_bytes((forged / HEAD).read_bytes())
        broken_at(trail)


def test_a_process_that_died_before_it_wrote_the_head_leaves_a_whole_trail(
    trail: AuditTrail, tmp_path: Path
) -> None:
    fill(trail, 1)
    (tmp_path / HEAD).write_bytes(b"")  # died between the first entry and the first head
    assert trail.verify() == 1
    fill(trail, 3)
    head = (tmp_path / HEAD).read_bytes()
    fill(trail, 4)
    (tmp_path / HEAD).write_bytes(head)
    assert trail.verify() == 4
    fill(trail, 5)
    assert trail.verify() == 5


def test_an_entry_that_could_not_be_kept_is_not_in_the_head(
    trail: AuditTrail, tmp_path: Path
) -> None:
    fill(trail, 2)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    with pytest.raises(Exception, match="full"):
        trail.append("backup", "b", "completed")
    assert trail.verify() == 2
