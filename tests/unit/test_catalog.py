"""The catalog: runs and steps, degraded modes, and what it refuses to open."""

from __future__ import annotations

import re
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import copyfile

import pytest

from holdfast.errors import CatalogUnusable, HoldfastError, SourceLocked, UnknownName
from holdfast.model.events import Progress, StepEnded, StepStarted, Warned
from holdfast.model.runs import DIED, Process, RunState, Step, new_run_id
from holdfast.runtime import catalog as catalog_module
from holdfast.runtime.catalog import Catalog, NoCatalog, finished
from holdfast.runtime.database import APPLICATION, Database, migrations, statements
from holdfast.runtime.processes import this_process
from holdfast.runtime.recorder import Recorder
from holdfast.runtime.rows import run_values
from tests.runtime_world import SettableClock, manifest


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def catalog(state: Path, clock: SettableClock) -> Iterator[Catalog]:
    with Catalog(state, clock) as opened:
        yield opened


def test_the_state_folder_and_the_catalog_are_private(catalog: Catalog, state: Path) -> None:
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "catalog.db").stat().st_mode) == 0o600


def test_a_state_folder_that_exists_keeps_its_permissions(
    state: Path, clock: SettableClock
) -> None:
    state.mkdir(mode=0o750)
    Catalog(state, clock).close()
    assert stat.S_IMODE(state.stat().st_mode) == 0o750


def test_a_run_is_read_back_as_it_was_saved(catalog: Catalog, clock: SettableClock) -> None:
    pending = catalog.begin("backup", "brain", plan="nightly")
    assert catalog.run(pending.id) == pending
    assert pending.state is RunState.PENDING
    clock.pass_by(5)
    error = SourceLocked(component="memory", path="a\nb", seconds=60)
    done = replace(
        finished(pending, clock.now(), RunState.FAILED, error),
        backup="b1",
        vault="local",
        partial=True,
        figures={"bytes": 12, "names": ["ü", None]},
    )
    catalog.save(done)
    assert catalog.run(pending.id) == done
    assert (done.error_code, done.ended_at) == (
        "source-locked",
        pending.started_at + timedelta(seconds=5),
    )


def test_text_that_is_not_text_is_recorded_readably(catalog: Catalog, clock: SettableClock) -> None:
    run = catalog.begin("backup", "st\udc80ack\n")
    assert catalog.run(run.id).stack == r"st\udc80ack\n"


def test_run_ids_sort_by_time_and_suit_file_names(clock: SettableClock) -> None:
    first = new_run_id(clock.now())
    later = new_run_id(clock.now() + timedelta(seconds=1))
    assert re.fullmatch(r"20261120T101500Z-[0-9a-f]{8}", first)
    assert first < later
    assert len({new_run_id(clock.now()) for _ in range(2000)}) == 2000


def test_an_id_that_is_taken_is_not_given_again(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = catalog.begin("backup", "brain")
    ids = iter([first.id, first.id, "another"])
    monkeypatch.setattr(catalog_module, "new_run_id", lambda _now: next(ids))
    assert catalog.begin("backup", "brain").id == "another"


def test_runs_come_newest_first_even_if_the_clock_was_set_back(
    catalog: Catalog, clock: SettableClock
) -> None:
    old = catalog.begin("backup", "brain")
    clock.wall -= timedelta(days=400)
    new = catalog.begin("verify", "brain")
    other = catalog.begin("backup", "heart")
    assert [run.id for run in catalog.runs()] == [other.id, new.id, old.id]
    assert [run.id for run in catalog.runs(stack="brain", limit=1)] == [new.id]
    assert [run.id for run in catalog.runs(verb="backup")] == [other.id, old.id]
    assert catalog.runs(state=RunState.COMPLETED) == []


def test_a_run_is_found_by_the_beginning_of_its_id_if_only_one_has_it(
    catalog: Catalog, clock: SettableClock
) -> None:
    one = catalog.begin("backup", "brain")
    clock.pass_by(60)
    two = catalog.begin("backup", "brain")
    assert catalog.run(one.id[:15]).id == one.id
    assert catalog.run(two.id[:15]).id == two.id
    with pytest.raises(UnknownName, match="20261120"):
        catalog.run("20261120")
    with pytest.raises(UnknownName):
        catalog.run("%")


def test_a_run_whose_process_is_over_is_marked_by_whoever_opens_next(
    state: Path, clock: SettableClock
) -> None:
    with Catalog(state, clock) as catalog:
        mine = catalog.begin("backup", "brain")
        dead = replace(this_process(), started=1)  # our number, but started at another time
        lost = replace(mine, id="lost", process=dead, state=RunState.IN_PROGRESS)
        foreign = replace(mine, id="foreign", process=Process("elsewhere", "b", "s", 7, 7))
        rebooted = replace(mine, id="rebooted", process=replace(dead, boot="an earlier boot"))
        with catalog.database.transaction():
            for run in (lost, foreign, rebooted):
                catalog.database.change("insert_run", dict(run_values(run)))
        catalog.put_steps("lost", [Step(1, "freeze", "memory", started_at=clock.now())])
    clock.pass_by(9)
    with Catalog(state, clock) as catalog:
        found = catalog.run("lost")
        assert (found.state, found.error_code, found.ended_at) == (
            RunState.FAILED,
            DIED,
            clock.now(),
        )
        assert [step.state for step in catalog.steps("lost")] == [RunState.FAILED]
        assert catalog.run("rebooted").error_code == DIED
        assert catalog.run(mine.id).state is RunState.PENDING
        assert catalog.run("foreign").state is RunState.PENDING


def test_a_run_that_ended_is_not_buried(catalog: Catalog, clock: SettableClock) -> None:
    run = finished(catalog.begin("backup", "brain"), clock.now())
    catalog.save(run)
    catalog.bury(run.id)
    catalog.bury("unheard of")
    assert catalog.run(run.id) == run


def test_a_recorder_keeps_steps_with_their_ends(catalog: Catalog, clock: SettableClock) -> None:
    run = catalog.begin("backup", "brain")
    with Recorder(catalog, run.id, clock) as hear:
        hear(StepStarted("freeze", "memory"))
        hear(StepStarted("copy", "memory"))
        hear(Progress("copy", "memory", 100))
        hear(StepStarted("copy", "memory"))  # into a second vault, side by side
        hear(StepEnded("copy", "memory", 1.5, detail="12 files"))
        hear(StepEnded("copy", "memory", 2.5, error="no room"))
        hear(Warned("slow disk", "memory"))
        hear(StepEnded("seal", "", 0.25))
    kept = [(s.number, s.step, s.state.value, s.seconds, s.detail) for s in catalog.steps(run.id)]
    assert kept == [
        (1, "freeze", "in_progress", 0.0, ""),
        (2, "copy", "failed", 2.5, "no room"),
        (3, "copy", "completed", 1.5, "12 files"),
        (4, "warning", "completed", 0.0, "slow disk"),
        (5, "seal", "completed", 0.25, ""),
    ]


def test_a_recorder_writes_while_the_run_goes_on(catalog: Catalog, clock: SettableClock) -> None:
    run = catalog.begin("backup", "brain")
    with Recorder(catalog, run.id, clock) as hear:
        hear(StepStarted("freeze"))
        assert catalog.steps(run.id) == []
        clock.pass_by(1)
        hear(StepStarted("copy"))
        assert [step.step for step in catalog.steps(run.id)] == ["freeze", "copy"]


def test_a_recorder_whose_catalog_fails_says_so_and_does_not_raise(clock: SettableClock) -> None:
    failure = CatalogUnusable(path="catalog.db", reason="the disk is gone")

    class Failing(NoCatalog):
        calls = 0

        def put_steps(self, run: str, steps: object) -> None:
            self.calls += 1
            raise failure

    runs = Failing(clock)
    recorder = Recorder(runs, "r", clock)
    with recorder as hear:
        for _ in range(3):
            clock.pass_by(1)
            hear(StepStarted("freeze"))
    assert recorder.problem is failure
    assert runs.calls == 1


def test_without_a_catalog_a_run_still_has_an_id(clock: SettableClock) -> None:
    runs = NoCatalog(clock)
    run = runs.begin("restore", "brain", backup="b1")
    assert run.id != runs.begin("restore", "brain").id
    assert (run.verb, run.backup, run.state) == ("restore", "b1", RunState.PENDING)


def test_what_vaults_hold_is_remembered_and_forgotten(catalog: Catalog) -> None:
    one, two, other = manifest(1), manifest(2), manifest(1, stack="heart")
    catalog.remember("local", [two, one])
    catalog.note("offsite", other)
    assert catalog.backups() == [("local", one), ("local", two), ("offsite", other)]
    assert catalog.backups(stack="heart") == [("offsite", other)]
    catalog.forget("local", one.id)
    assert catalog.backups(vault="local") == [("local", two)]
    later = replace(one, id="a-name-that-sorts-first", created_at=two.created_at)
    catalog.remember("local", [later, one])
    assert catalog.backups(vault="local") == [("local", one), ("local", later)], "of one number"
    catalog.remember("local", [])
    assert catalog.backups() == [("offsite", other)]


def test_a_change_that_fails_half_way_changes_nothing(
    catalog: Catalog, clock: SettableClock
) -> None:
    catalog.remember("local", [manifest(1)])

    def failing() -> Iterator[Step]:
        yield Step(1, "freeze")
        raise KeyboardInterrupt

    run = catalog.begin("backup", "brain")
    with pytest.raises(KeyboardInterrupt):
        catalog.put_steps(run.id, failing())
    assert catalog.steps(run.id) == []
    with pytest.raises(CatalogUnusable, match="FOREIGN KEY"):
        catalog.put_steps("no such run", [Step(1, "freeze")])


def test_several_threads_read_and_write_one_catalog(catalog: Catalog) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(20):
                run = catalog.begin("backup", "brain")
                catalog.put_steps(run.id, [Step(number + 1, "freeze")])
                assert catalog.run(run.id) == run
                assert len(catalog.steps(run.id)) == 1
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(catalog.runs(limit=1000)) == 80


# --- what cannot be used ---


def unusable(state: Path, clock: SettableClock) -> str:
    with pytest.raises(CatalogUnusable) as caught:
        Catalog(state, clock)
    assert str(state / "catalog.db") in str(caught.value)
    return str(caught.value.fields["reason"])


def test_a_file_that_is_no_database_is_refused(state: Path, clock: SettableClock) -> None:
    state.mkdir()
    (state / "catalog.db").write_bytes(b"this is not a database at all" * 100)
    assert "not a database" in unusable(state, clock)
    assert (state / "catalog.db").read_bytes().startswith(b"this is not")


def test_the_database_of_another_program_is_refused_and_left_alone(
    state: Path, clock: SettableClock
) -> None:
    state.mkdir()
    with closing(sqlite3.connect(state / "catalog.db")) as other:
        other.executescript("CREATE TABLE stories (id); INSERT INTO stories VALUES (1)")
    before = (state / "catalog.db").read_bytes()
    assert "another program" in unusable(state, clock)
    assert (state / "catalog.db").read_bytes() == before


def test_a_catalog_of_a_later_version_is_refused(state: Path, clock: SettableClock) -> None:
    Catalog(state, clock).close()
    with closing(sqlite3.connect(state / "catalog.db")) as later:
        later.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    assert "its schema is" in unusable(state, clock)


def test_a_damaged_catalog_is_refused(state: Path, clock: SettableClock) -> None:
    with Catalog(state, clock) as catalog:
        catalog.remember("local", [manifest(n) for n in range(100)])
    size = (state / "catalog.db").stat().st_size
    with (state / "catalog.db").open("r+b") as file:
        file.seek(100)
        file.write(b"\xa5" * (size - 100))
    unusable(state, clock)


def test_a_folder_in_the_place_of_the_catalog_is_refused(state: Path, clock: SettableClock) -> None:
    (state / "catalog.db").mkdir(parents=True)
    unusable(state, clock)


def test_rot_within_a_row_is_reported_as_the_catalog_s(
    catalog: Catalog, clock: SettableClock
) -> None:
    run = catalog.begin("backup", "brain")
    catalog.remember("local", [manifest(1)])
    with closing(sqlite3.connect(catalog.database.path)) as rot:
        rot.execute("UPDATE runs SET figures = '{'")
        rot.execute("UPDATE backups SET manifest = x'7b7d'")
        rot.commit()
    for read in (lambda: catalog.run(run.id), catalog.runs, catalog.backups):
        with pytest.raises(CatalogUnusable, match="a row is damaged"):
            read()


def test_a_state_folder_that_is_a_file_is_reported(tmp_path: Path, clock: SettableClock) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HoldfastError, match="file"):
        Catalog(tmp_path / "file", clock)
    with pytest.raises(HoldfastError, match="file"):
        Catalog(tmp_path / "file" / "below", clock)


# --- migrations and statements ---


def test_migrations_are_applied_in_order_and_once(tmp_path: Path) -> None:
    first = "CREATE TABLE a (x) STRICT;".replace(" (x)", " (x TEXT)")
    second = "ALTER TABLE a ADD COLUMN y TEXT; INSERT INTO a VALUES ('1', '2');"
    path = tmp_path / "catalog.db"
    Database(path, [first]).close()
    for _ in range(2):
        Database(path, [first, second]).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT x, y FROM a").fetchall() == [("1", "2")]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_migration_that_fails_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    first = "CREATE TABLE a (x TEXT);"
    Database(path, [first]).close()
    with pytest.raises(CatalogUnusable, match="no such table"):
        Database(path, [first, "CREATE TABLE b (x TEXT); INSERT INTO missing VALUES (1);"])
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert (tables, connection.execute("PRAGMA user_version").fetchone()) == ([("a",)], (1,))


def test_every_statement_is_understood_by_the_schema(catalog: Catalog) -> None:
    with closing(sqlite3.connect(catalog.database.path)) as connection:
        for name, sql in statements().items():
            values = dict.fromkeys(re.findall(r":(\w+)", sql))
            assert connection.execute(f"EXPLAIN {sql}", values).fetchall(), name


def test_a_folded_catalog_is_one_file(catalog: Catalog, tmp_path: Path) -> None:
    run = catalog.begin("backup", "brain")
    catalog.database.fold()
    assert catalog.database.path.with_name("catalog.db-wal").stat().st_size == 0
    alone = tmp_path / "alone" / "catalog.db"
    alone.parent.mkdir()
    copyfile(catalog.database.path, alone)
    with Catalog(alone.parent, SettableClock()) as other:
        assert other.run(run.id) == run


def test_a_catalog_that_was_replaced_is_opened_anew(
    catalog: Catalog, state: Path, tmp_path: Path, clock: SettableClock
) -> None:
    old = catalog.begin("backup", "brain")
    with Catalog(tmp_path / "other", clock) as other:
        new = other.begin("backup", "brain")
    for suffix in ("-wal", "-shm"):
        (state / f"catalog.db{suffix}").unlink()
    (tmp_path / "other" / "catalog.db").rename(state / "catalog.db")
    assert [run.id for run in catalog.runs()] == [new.id]
    assert catalog.begin("backup", "brain").id not in {old.id, new.id}
