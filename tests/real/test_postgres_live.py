"""PostgreSQL while applications write to it: dumps are one snapshot, and a switch is short."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import SourceLocked, TargetInUse
from holdfast.model.facts import differences
from holdfast.sources import _postgres_snapshot
from servers.postgres import PostgresServer
from tests.postgres_world import (
    Clients,
    database,
    databases,
    in_memory,
    restored,
    source_of,
    taken,
)

# `left` is so large that its rows are dumped apart from those of `right`.
BANK = """
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO accounts SELECT i, 1000 FROM generate_series(1, 40) i;
CREATE TABLE "left" (id bigserial PRIMARY KEY, noise text);
CREATE TABLE "right" (id bigint PRIMARY KEY);
INSERT INTO "left" (noise) SELECT repeat(md5(i::text), 12) FROM generate_series(1, 4000) i;
INSERT INTO "right" SELECT id FROM "left";
"""
UNAVAILABLE = 5.0  # seconds; measured in the benchmarks, here only that it is not long


@pytest.fixture
def bank(postgres_17: PostgresServer) -> Iterator[str]:
    with database(postgres_17, BANK) as name:
        yield name


def transfer(connection: Any, number: int) -> None:
    """Move money, and write a pair of rows that belong together."""
    seeded = random.Random(number)
    with connection.transaction():
        one, other = sorted(seeded.sample(range(1, 41), 2))
        change = "UPDATE accounts SET balance = balance + %s WHERE id = %s"
        connection.execute(change, [-number, one])
        connection.execute(change, [number, other])
        connection.execute(
            'WITH new AS (INSERT INTO "left" (noise) VALUES (%s) RETURNING id)'
            ' INSERT INTO "right" SELECT id FROM new',
            ["x" * 500],
        )


def assert_one_instant(server: PostgresServer, name: str) -> int:
    """Assert what holds at every instant; return how many pairs there are."""
    ((total,),) = server.run("SELECT sum(balance) FROM accounts", name)
    assert total == 40_000
    ((torn,),) = server.run(
        'SELECT count(*) FROM "left" l FULL JOIN "right" r ON l.id = r.id'
        " WHERE l.id IS NULL OR r.id IS NULL",
        name,
    )
    assert torn == 0
    ((pairs,),) = server.run('SELECT count(*) FROM "right"', name)
    return int(pairs)


def test_a_backup_under_six_writers_is_one_instant(
    postgres_17: PostgresServer, bank: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, bank, split=1)
    clients = Clients(lambda: postgres_17.connect(bank), transfer)
    with clients.running() as writers:
        for trial in range(2):
            workspace = tmp_path / f"{trial}"
            workspace.mkdir()
            with source.freeze(workspace) as frozen, ThreadPoolExecutor(1) as thread:
                assert "1" in {artifact.part for artifact in frozen.artifacts}
                counting = thread.submit(frozen.facts)
                writers.wait_for(20)
                artifacts = []
                for artifact in frozen.artifacts:
                    artifacts.append(in_memory(artifact))
                    writers.wait_for(20)
                facts = counting.result()
            assert differences(facts, source.inspect(artifacts, workspace).facts) == []
            with database(postgres_17, "") as other:
                restored(source_of(postgres_17, other), artifacts, workspace)
                assert assert_one_instant(postgres_17, other) == facts.counts["rows/left"]
    assert not clients.errors, clients.errors[:3]
    assert_one_instant(postgres_17, bank)


def test_a_switch_under_six_clients_is_short(
    postgres_17: PostgresServer, bank: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(postgres_17, bank)
    artifacts, _facts = taken(source, tmp_path / "backup")
    clients = Clients(lambda: postgres_17.connect(bank), transfer)
    with clients.running() as readers:
        for number in range(3):
            staged = source.staging(f"switch{number}", tmp_path / f"{number}")
            staged.fill(artifacts)
            readers.wait_for(10)
            staged.activate()
            readers.wait_for(30)
            staged.revert()
            readers.wait_for(30)
    assert clients.reconnects >= 6 * 6, "nobody was disconnected"
    with capsys.disabled():
        sys.stdout.write(f"\nlongest pause at a switch: {clients.longest_pause():.3f} s\n")
    assert clients.longest_pause() < UNAVAILABLE
    assert_one_instant(postgres_17, bank)
    assert databases(postgres_17, bank) == {bank}


def test_filling_disturbs_no_client(postgres_17: PostgresServer, bank: str, tmp_path: Path) -> None:
    source = source_of(postgres_17, bank)
    artifacts, _facts = taken(source, tmp_path / "backup")
    clients = Clients(lambda: postgres_17.connect(bank), transfer)
    with clients.running() as writers:
        staged = source.staging("calm", tmp_path / "staging")
        staged.fill(artifacts)
        writers.wait_for(10)
        staged.revert()
    assert clients.errors == []


def test_a_table_that_is_emptied_meanwhile_waits(
    postgres_17: PostgresServer, bank: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, bank)
    with source.freeze(tmp_path) as frozen:
        emptying = threading.Thread(target=postgres_17.run, args=('TRUNCATE "left", "right"', bank))
        emptying.start()
        _wait_for_waiting(postgres_17, bank)
        artifacts = [in_memory(artifact) for artifact in frozen.artifacts]
        facts = frozen.facts()
    emptying.join(20)
    assert facts.counts["rows/left"] == 4000
    assert differences(facts, source.inspect(artifacts, tmp_path).facts) == []
    assert source.facts().counts["rows/left"] == 0


def _wait_for_waiting(server: PostgresServer, name: str) -> None:
    waiting = (
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND database ="
        f" (SELECT oid FROM pg_database WHERE datname = '{name}')"
    )
    for _look in range(2000):
        if server.run(waiting)[0][0]:
            return
    pytest.fail("it did not wait")


def test_a_table_that_vanishes_between_finding_and_locking_is_not_missed(
    postgres_17: PostgresServer, bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres_17.run("CREATE TABLE short_lived AS SELECT 1 AS one", bank)
    lock = _postgres_snapshot._lock
    calls: list[bool] = []

    def late(*arguments: Any) -> bool:
        if not calls:
            postgres_17.run("DROP TABLE short_lived; CREATE TABLE newcomer ()", bank)
        calls.append(lock(*arguments))
        return calls[-1]

    monkeypatch.setattr(_postgres_snapshot, "_lock", late)
    source = source_of(postgres_17, bank)
    artifacts, facts = taken(source, tmp_path)
    assert calls == [False, True]
    assert "rows/newcomer" in facts.counts
    assert "rows/short_lived" not in facts.counts
    assert differences(facts, source.inspect(artifacts, tmp_path).facts) == []


def test_a_table_that_stays_locked_is_named_in_time(
    postgres_17: PostgresServer, bank: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, bank, lock_timeout=0.3)
    with postgres_17.connect(bank) as connection, connection.transaction():
        connection.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SourceLocked, match=r"0\.3 s"), source.freeze(tmp_path):
            pytest.fail("a locked table was held still")


def test_prepared_transactions_do_not_keep_anybody_out(
    postgres_17: PostgresServer, bank: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, bank, switch_timeout=5)
    artifacts, _facts = taken(source, tmp_path / "backup")
    staged = source.staging("prepared", tmp_path / "staging")
    staged.fill(artifacts)
    with postgres_17.connect(bank) as connection:
        connection.execute("BEGIN; UPDATE accounts SET balance = 0; PREPARE TRANSACTION 'p'")
        try:
            with pytest.raises(TargetInUse, match="prepared transaction p"):
                staged.activate()
        finally:
            postgres_17.run("ROLLBACK PREPARED 'p'", bank)
    assert_one_instant(postgres_17, bank)  # it takes connections again
    staged.activate()
    staged.revert()
    assert databases(postgres_17, bank) == {bank}
