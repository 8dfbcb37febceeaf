"""`rebuild`: a catalog made anew, and nothing lost that could be read."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.errors import AuditBroken, CatalogUnusable
from holdfast.model.manifest import Status
from holdfast.model.runs import RunState, Step
from holdfast.runtime import rebuild as rebuild_module
from holdfast.runtime.audit import AuditTrail
from holdfast.runtime.catalog import Catalog, finished
from holdfast.runtime.database import REBUILT
from holdfast.runtime.rebuild import rebuild
from tests.runtime_world import SettableClock, manifest

MANIFESTS = {"local": [manifest(1), manifest(2, status=Status.PARTIAL)], "offsite": [manifest(1)]}


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


def fill(folder: Path, clock: SettableClock, count: int = 300) -> list[str]:
    """Make a catalog of several pages; returns the ids of its runs."""
    with Catalog(folder, clock) as catalog:
        trail = AuditTrail(catalog.database, clock, lambda: "alice")
        runs = []
        for number in range(count):
            run = catalog.begin("verify", "brain")
            catalog.put_steps(run.id, [Step(1, "read", "x" * 200, RunState.COMPLETED)])
            catalog.save(finished(run, clock.now()))
            trail.append("verify", f"b{number}", "completed", {"text": "y" * 200})
            runs.append(run.id)
    return runs


def verified(folder: Path, clock: SettableClock) -> int:
    with Catalog(folder, clock) as catalog:
        return AuditTrail(catalog.database, clock).verify()


def test_without_a_catalog_history_comes_from_the_manifests(
    tmp_path: Path, clock: SettableClock
) -> None:
    result = rebuild(tmp_path, clock, MANIFESTS)
    assert (result.runs, result.backups, result.problem, result.aside) == (3, 3, "", None)
    with Catalog(tmp_path, clock) as catalog:
        assert [vault for vault, _manifest in catalog.backups()] == ["local", "local", "offsite"]
        runs = {(run.vault, run.backup): run for run in catalog.runs()}
        partial = runs["local", "brain_backup_0002"]
        assert (partial.partial, partial.state, partial.verb) == (
            True,
            RunState.COMPLETED,
            "backup",
        )
        assert (partial.plan, partial.process.host) == ("nightly", "elsewhere")
        assert partial.started_at == MANIFESTS["local"][1].created_at
        assert AuditTrail(catalog.database, clock).entries()[-1].verb == "catalog rebuild"
    assert verified(tmp_path, clock) == 1


def test_a_catalog_that_is_whole_is_completed_in_place_and_only_once(
    tmp_path: Path, clock: SettableClock
) -> None:
    runs = fill(tmp_path, clock, 3)
    with Catalog(tmp_path, clock) as catalog:
        catalog.remember("local", [manifest(9)])
    for expected in (3, 0):
        result = rebuild(tmp_path, clock, MANIFESTS)
        assert (result.runs, result.aside) == (expected, None)
    with Catalog(tmp_path, clock) as catalog:
        assert {run.id for run in catalog.runs()} > set(runs)
        assert len(catalog.runs()) == 6
        assert [m.sequence for _vault, m in catalog.backups(vault="local")] == [1, 2]
    assert verified(tmp_path, clock) == 5


def damage_pages(path: Path, choose: Callable[[list[int]], list[int]]) -> None:
    """Overwrite whole pages, never the first one: that holds the schema."""
    data = bytearray(path.read_bytes())
    pages = list(range(1, len(data) // 4096))
    for page in choose(pages):
        data[page * 4096 : (page + 1) * 4096] = b"\xa5" * 4096
    path.write_bytes(data)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_catalog_is_kept_aside_and_what_can_be_read_is_kept(
    tmp_path: Path, clock: SettableClock, seed: int
) -> None:
    runs = fill(tmp_path, clock)
    chance = random.Random(seed)
    damage_pages(tmp_path / "catalog.db", lambda pages: chance.sample(pages, 4))
    damaged = (tmp_path / "catalog.db").read_bytes()
    result = rebuild(tmp_path, clock, MANIFESTS)
    assert result.problem
    assert result.aside is not None
    assert (result.aside / "catalog.db").read_bytes() == damaged
    with Catalog(tmp_path, clock) as catalog:
        assert catalog.database.problems() == []
        kept = [run.id for run in catalog.runs(limit=-1) if run.verb == "verify"]
        entries = AuditTrail(catalog.database, clock).entries(limit=10**6)
    assert len(kept) == result.salvaged_runs
    assert set(kept) <= set(runs)
    assert {entry.number for entry in entries} >= readable(damaged, tmp_path / "copy.db")
    assert sum(entry.verb == "verify" for entry in entries) == result.salvaged_entries
    if result.salvaged_entries < 300:
        with pytest.raises(AuditBroken):
            verified(tmp_path, clock)
    else:
        assert verified(tmp_path, clock) == 301


def readable(data: bytes, path: Path) -> set[int]:
    """Return every audit entry that can be asked for by its number."""
    path.write_bytes(data)
    found = set()
    with closing(sqlite3.connect(path)) as connection:
        for number in range(1, 301):
            try:
                rows = connection.execute(
                    "SELECT number, details FROM audit WHERE number = ?", (number,)
                )
                found |= {row[0] for row in rows}
            except sqlite3.DatabaseError:
                continue
    return found


def test_of_a_file_that_is_no_catalog_the_manifests_and_the_truth_remain(
    tmp_path: Path, clock: SettableClock
) -> None:
    fill(tmp_path, clock, 3)
    (tmp_path / "catalog.db").write_bytes(b"burnt" * 1000)
    with pytest.raises(CatalogUnusable):
        Catalog(tmp_path, clock)
    result = rebuild(tmp_path, clock, MANIFESTS)
    assert (result.salvaged_runs, result.salvaged_entries, result.runs) == (0, 0, 3)
    with Catalog(tmp_path, clock) as catalog:
        trail = AuditTrail(catalog.database, clock)
        assert [entry.verb for entry in trail.entries()] == ["audit", "catalog rebuild"]
        with pytest.raises(AuditBroken, match=r"audit\.head tells of entry 3"):
            trail.verify()


def test_a_catalog_whose_log_was_not_folded_in_is_salvaged_with_it(
    tmp_path: Path, clock: SettableClock
) -> None:
    state, old = tmp_path / "state", tmp_path / "old"
    with Catalog(state, clock) as catalog:
        run = catalog.begin("verify", "brain")
        AuditTrail(catalog.database, clock).append("verify", "b", "completed")
        old.mkdir()
        for name in ("catalog.db", "catalog.db-wal", "audit.head"):
            (old / name).write_bytes((state / name).read_bytes())
    with closing(sqlite3.connect(old / "catalog.db")) as rot:
        rot.execute("UPDATE runs SET figures = '{' WHERE id = ?", (run.id,))
        rot.execute(
            "INSERT INTO runs SELECT 9, 'good', verb, stack, plan, backup, vault, state,"
            " partial, started_at, ended_at, error_code, error_text, '{}', process, holdfast"
            " FROM runs"
        )
        rot.commit()
        for name in ("catalog.db", "catalog.db-wal"):
            (tmp_path / name).write_bytes((old / name).read_bytes())
    assert (tmp_path / "catalog.db-wal").stat().st_size > 0
    (tmp_path / "audit.head").write_bytes((old / "audit.head").read_bytes())
    result = rebuild(tmp_path, clock, {})
    assert "a row is damaged" in result.problem
    assert (result.salvaged_runs, result.salvaged_entries) == (1, 1)
    assert verified(tmp_path, clock) == 2


def test_two_rebuilds_in_one_second_keep_two_catalogs_aside(
    tmp_path: Path, clock: SettableClock
) -> None:
    for _ in range(2):
        (tmp_path / "catalog.db").write_bytes(b"burnt" * 1000)
        rebuild(tmp_path, clock, {})
    assert len(list(tmp_path.glob("catalog.damaged-*"))) == 2


class KilledError(BaseException):
    """Stands for the death of the process: nothing after it runs."""


@pytest.mark.parametrize("moment", ["_salvage_audit", "_salvage_runs", "put_in_place", "_complete"])
def test_a_rebuild_that_died_is_done_again_or_finished(
    tmp_path: Path, clock: SettableClock, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    fill(tmp_path, clock, 50)
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as rot:
        rot.execute("UPDATE runs SET figures = '{' WHERE number = 1")
        rot.commit()
    calls = []

    def die(*_: object) -> None:
        calls.append(moment)
        if moment != "put_in_place" or len(calls) == 2:
            raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(rebuild_module, moment, die)
        with pytest.raises(KilledError):
            rebuild(tmp_path, clock, MANIFESTS)
    assert (tmp_path / REBUILT).exists() == (moment == "put_in_place")
    rebuild(tmp_path, clock, MANIFESTS)
    with Catalog(tmp_path, clock) as catalog:
        assert len([run for run in catalog.runs(limit=-1) if run.verb == "verify"]) == 49
        assert len(catalog.backups()) == 3
    assert verified(tmp_path, clock) == 51


def test_a_rebuilt_catalog_that_waits_is_put_in_place_by_whoever_opens_next(
    tmp_path: Path, clock: SettableClock
) -> None:
    state, other = tmp_path / "state", tmp_path / "other"
    fill(state, clock, 3)
    runs = fill(other, clock, 2)
    (other / "catalog.db").rename(state / REBUILT)
    with Catalog(state, clock) as catalog:
        assert {run.id for run in catalog.runs()} == set(runs)
    assert not (state / REBUILT).exists()
