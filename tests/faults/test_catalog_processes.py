"""The catalog under many processes, and under kill -9."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path

from holdfast.model.runs import DIED, RunState
from holdfast.runtime.audit import AuditTrail
from holdfast.runtime.catalog import Catalog
from holdfast.runtime.database import Database
from holdfast.runtime.rebuild import rebuild
from tests.runtime_world import SettableClock, child, heard, manifest

OPEN_AND_RECORD = """
import sys, pathlib
from holdfast.runtime.catalog import Catalog
from holdfast.runtime.audit import AuditTrail
from holdfast.model.runs import RunState
from tests.runtime_world import SettableClock
print("ready", flush=True)
sys.stdin.readline()
clock = SettableClock()
with Catalog(pathlib.Path(sys.argv[1]), clock) as catalog:
    for _ in range(int(sys.argv[2])):
        run = catalog.begin("backup", "brain")
        AuditTrail(catalog.database, clock).append("backup", run.id, "completed")
        print(run.id, flush=True)
"""

RECORD_FOR_EVER = """
import sys, pathlib
from dataclasses import replace
from holdfast.runtime.catalog import Catalog
from holdfast.runtime.audit import AuditTrail
from holdfast.model.runs import RunState, Step
from tests.runtime_world import SettableClock
clock = SettableClock()
with Catalog(pathlib.Path(sys.argv[1]), clock) as catalog:
    while True:
        run = catalog.begin("backup", "brain")
        catalog.save(replace(run, state=RunState.IN_PROGRESS))
        catalog.put_steps(run.id, [Step(n, "freeze") for n in (1, 2, 3)])
        AuditTrail(catalog.database, clock).append("backup", run.id, "completed")
        print(run.id, flush=True)
"""

MIGRATE_FOR_EVER = """
import sys, pathlib
from holdfast.runtime.database import Database
from tests.faults.test_catalog_processes import scripts
path = pathlib.Path(sys.argv[1])
for number in range(1, 200):
    Database(path, scripts(number)).close()
    print(number, flush=True)
"""


def scripts(count: int) -> list[str]:
    return [f"CREATE TABLE t{n} (x TEXT); INSERT INTO t{n} VALUES ('1');" for n in range(count)]


REBUILD = """
import sys, pathlib
from holdfast.runtime.rebuild import rebuild
from tests.runtime_world import SettableClock, manifest
print("ready", flush=True)
sys.stdin.readline()
rebuild(pathlib.Path(sys.argv[1]), SettableClock(), {"local": [manifest(1)]})
"""


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_sixteen_processes_may_open_a_new_catalog_at_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ExitStack() as stack:
        children = [stack.enter_context(child(OPEN_AND_RECORD, state, 5)) for _ in range(16)]
        for process in children:
            assert heard(process) == "ready"
        for process in children:
            go(process)
        told = [process.communicate(timeout=50)[0].split() for process in children]
        assert [process.returncode for process in children] == [0] * 16
    ids = {run_id for lines in told for run_id in lines}
    assert len(ids) == 80
    with Catalog(state, SettableClock()) as catalog:
        assert {run.id for run in catalog.runs(limit=1000)} == ids
        assert AuditTrail(catalog.database, SettableClock()).verify() == 80
        assert catalog.database.problems() == []


def test_what_was_recorded_survives_kill_9(tmp_path: Path) -> None:
    state = tmp_path / "state"
    known: list[str] = []
    for trial in range(6):
        with child(RECORD_FOR_EVER, state) as process:
            known += [heard(process) for _ in range(3)]
            time.sleep(0.013 * trial)
            process.kill()
            assert process.stdout is not None
            rest = process.stdout.read()
            known += rest[: rest.rfind("\n") + 1].split()
        with Catalog(state, SettableClock()) as catalog:
            runs = {run.id: run for run in catalog.runs(limit=-1)}
            assert set(known) <= set(runs)
            assert {(run.state, run.error_code) for run in runs.values()} == {
                (RunState.FAILED, DIED)
            }
            assert all(len(catalog.steps(run)) == 3 for run in known)
            entries = AuditTrail(catalog.database, SettableClock()).verify()
            assert len(known) <= entries <= len(known) + trial + 1
            assert catalog.database.problems() == []


def test_a_migration_survives_kill_9(tmp_path: Path) -> None:
    for trial in range(4):
        path = tmp_path / str(trial) / "catalog.db"
        with child(MIGRATE_FOR_EVER, path) as process:
            done = int([heard(process) for _ in range(trial + 2)][-1])
            time.sleep(0.0005 * trial)
            process.kill()
        # The same migrations go on from wherever it stopped; one applied twice, or by half, fails.
        with closing(Database(path, scripts(200))), closing(sqlite3.connect(path)) as connection:
            assert done < 200
            for number in range(200):
                assert connection.execute(f"SELECT x FROM t{number}").fetchall() == [("1",)]


def test_a_rebuild_under_kill_9_loses_nothing(tmp_path: Path) -> None:
    for trial in range(8):
        state, clock = tmp_path / str(trial), SettableClock()
        with Catalog(state, clock) as catalog:
            runs = [catalog.begin("verify", "brain").id for _ in range(40)]
            for run in runs:
                AuditTrail(catalog.database, clock).append("verify", run, "completed")
        with closing(sqlite3.connect(state / "catalog.db")) as rot:
            rot.execute("UPDATE runs SET figures = '{' WHERE number = 1")
            rot.commit()
        with child(REBUILD, state) as process:
            assert heard(process) == "ready"
            go(process)
            time.sleep(0.004 * trial)
            process.kill()
            process.wait()
        rebuild(state, clock, {"local": [manifest(1)]})
        with Catalog(state, clock) as catalog:
            assert {run.id for run in catalog.runs(verb="verify")} == set(runs[1:])
            assert len(catalog.runs(verb="backup")) == len(catalog.backups()) == 1
            assert AuditTrail(catalog.database, clock).verify() in {41, 42}


def test_opening_and_recording_a_run_is_cheap(tmp_path: Path) -> None:
    state, clock = tmp_path / "state", SettableClock()
    Catalog(state, clock).close()
    trials = []
    for _ in range(15):
        before = time.process_time()  # not the time that other tests take on a busy machine
        with Catalog(state, clock) as catalog:
            catalog.begin("backup", "brain")
        trials.append(time.process_time() - before)
    assert min(trials) < 0.015
