"""PostgreSQL on bad days: nothing half-made is taken for whole, and the live data stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    NoSpace,
    ServerFailed,
    ServerUnreachable,
    SourceMissing,
    TargetUnfit,
    ToolMissing,
    ToolTooOld,
    UsageInvalid,
)
from holdfast.model.artifact import Stream
from holdfast.sources._postgres_dump import NEEDS, SERVER
from servers.postgres import PASSWORD, PostgresServer, running, tools_of
from servers.proxy import Proxy
from tests.other_user import NOBODY
from tests.postgres_world import (
    SMALL,
    Clients,
    database,
    databases,
    in_memory,
    restored,
    source_of,
    taken,
)

# Some megabytes that do not fit into the pipes between a server and us.
LARGE = SMALL + (
    "CREATE TABLE large AS SELECT i, repeat(md5(i::text), 30) AS text"
    " FROM generate_series(1, 6000) i;"
)
HUGE = LARGE.replace("6000", "30000")  # more than all pipes and sockets on the way hold
needs_15 = pytest.mark.skipif(tools_of("15") is None, reason="PostgreSQL 15 is not installed")


@pytest.fixture
def small(postgres_17: PostgresServer) -> Iterator[str]:
    with database(postgres_17) as name:
        yield name


@pytest.fixture
def large(postgres_17: PostgresServer) -> Iterator[str]:
    with database(postgres_17, HUGE) as name:
        yield name


def read(source: Any, workspace: Path) -> bytes:
    """Read the first dump, as a vault does that takes what comes until something fails."""
    with source.freeze(workspace) as frozen, frozen.artifacts[0].open() as chunks:
        return b"".join(chunks)


def wrapped(server: PostgresServer, folder: Path, script: str) -> Path:
    """Return a folder of tools in which `pg_dump` is a script that may call ``$REAL``."""
    folder.mkdir()
    for tool in ("pg_dumpall", "pg_restore"):
        (folder / tool).symlink_to(server.tools / tool)
    wrapper = folder / "pg_dump"
    real = server.tools / "pg_dump"
    wrapper.write_text(
        f'#!/bin/sh\nREAL={real}\n[ "$1" = --version ] && exec $REAL "$@"\n{script}\n'
    )
    wrapper.chmod(0o755)
    return folder


def drain(chunks: Iterator[Any]) -> None:
    """Read to the end."""
    for _chunk in chunks:
        pass


# --- while a dump is under way ---


def test_a_tool_that_dies_after_its_last_byte_gives_no_whole_dump(
    postgres_17: PostgresServer, large: str, tmp_path: Path
) -> None:
    whole = read(source_of(postgres_17, large), _made(tmp_path / "whole"))
    for number, end in enumerate(("exit 1", "echo 'pg_dump: error: oh' >&2; kill -9 $$")):
        tools = wrapped(postgres_17, tmp_path / f"tools{number}", f'$REAL "$@"; {end}')
        source = source_of(postgres_17, large, tools=tools)
        got: list[Any] = []
        with (
            source.freeze(_made(tmp_path / f"{number}")) as frozen,
            frozen.artifacts[0].open() as chunks,
            pytest.raises(ServerFailed),
        ):
            got.extend(chunks)
        assert len(b"".join(got)) < len(whole)


def test_a_tool_that_gives_nothing_is_no_empty_dump(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, small, tools=wrapped(postgres_17, tmp_path / "t", "exit 0"))
    with pytest.raises(ServerFailed, match="gave nothing"):
        read(source, tmp_path)


def test_a_server_that_is_killed_in_the_middle_of_a_dump(tmp_path: Path) -> None:
    with running("17") as server:
        server.run(HUGE)
        source = source_of(server, "postgres", maintenance="template1")
        freezing = source.freeze(tmp_path)
        with freezing.__enter__().artifacts[0].open() as chunks:
            next(chunks)
            server.kill()
            with pytest.raises((ConnectionLost, ServerUnreachable)):
                drain(chunks)
        with pytest.raises(ConnectionLost):  # whoever did not look at the dump hears of it
            freezing.__exit__(None, None, None)
        assert not source.probe().reachable
        with pytest.raises(ServerUnreachable):
            source.facts()


def database_of(server: PostgresServer, schema: str) -> Any:
    """Return the context of a database whose server may be gone in the end."""

    @contextmanager
    def made() -> Iterator[str]:
        server.run("CREATE DATABASE doomed TEMPLATE template0")
        server.run(schema, "doomed")
        yield "doomed"

    return made()


@pytest.mark.parametrize("size", [300, 200_000], ids=["at-once", "midway"])
def test_a_connection_that_is_cut(
    postgres_17: PostgresServer, large: str, tmp_path: Path, size: int
) -> None:
    with Proxy(postgres_17.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{large}"
        source = source_of(postgres_17, large, url=url, globals=False)
        with source.freeze(tmp_path) as frozen:
            dump = frozen.artifacts[0]
            assert isinstance(dump, Stream)
            with dump.open():  # the one that was started at once is let go
                pass
            proxy.cut_after(size)
            with pytest.raises((ConnectionLost, ServerUnreachable)):
                in_memory(dump)
        assert len(read(source, _made(tmp_path / "again"))) > 1_000_000  # trying again works


def test_a_session_that_holds_the_snapshot_and_is_cut(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    with Proxy(postgres_17.port) as proxy:
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{small}"
        source = source_of(postgres_17, small, url=url)
        freezing = source.freeze(tmp_path)
        for artifact in freezing.__enter__().artifacts:
            in_memory(artifact)
        proxy.cut_now()
        with pytest.raises(ConnectionLost):
            freezing.__exit__(None, None, None)


def test_a_server_that_falls_silent(
    postgres_17: PostgresServer, large: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, large, silence=0.7)
    dumping = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'holdfast'"
        f" AND query LIKE 'COPY%' AND datname = '{large}'"
    )
    with source.freeze(tmp_path) as frozen, frozen.artifacts[0].open() as chunks:
        next(chunks)
        ((pid,),) = postgres_17.run(dumping)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(ConnectionLost, match=r"did nothing for 0\.7 s"):
                drain(chunks)
        finally:
            os.kill(pid, signal.SIGCONT)


# --- getting in ---


def test_a_wrong_password_is_refused_and_not_repeated(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, small, password="not:the'right one")
    with pytest.raises(AccessRefused, match="password authentication failed") as raised:
        source.facts()
    probe = source.probe()
    staged = source.staging("tag", tmp_path)
    said = [str(raised.value), repr(raised.value.fields), str(probe), repr(source.options)]
    said += [repr(source), str(staged.token), source.where, repr(source._address)]
    assert not probe.reachable
    assert not any("right one" in text for text in said)


def test_a_password_in_the_url_is_taken_and_not_shown(
    postgres_17: PostgresServer, small: str
) -> None:
    secret = quote(PASSWORD, safe="")
    url = f"postgresql://postgres:{secret}@127.0.0.1:{postgres_17.port}/{small}"
    source = source_of(postgres_17, small, url=url, password="")
    assert source.probe().reachable
    assert source.elsewhere(url).probe().reachable
    shown = f"{source.where} {source.options!r} {source._address!r} {source.staging('t', Path())}"
    assert PASSWORD not in shown
    assert secret not in shown


def test_no_program_shows_the_password(
    postgres_17: PostgresServer, large: str, tmp_path: Path
) -> None:
    with source_of(postgres_17, large).freeze(tmp_path):
        seen = b""
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != os.getpid():
                try:
                    line = (process / "cmdline").read_bytes()
                    if large.encode() in line and b"pg_dump" in line:
                        seen += line + (process / "environ").read_bytes()
                except OSError:
                    continue
    assert b"--snapshot" in seen, "no pg_dump was found to look at"
    assert PASSWORD.encode() not in seen
    assert b"pass\\word" not in seen


def test_tls_that_the_server_does_not_have(postgres_18: PostgresServer) -> None:
    with database(postgres_18) as name:
        source = source_of(postgres_18, name, url=postgres_18.url(name, extra="?sslmode=require"))
        with pytest.raises(AccessRefused, match="SSL"):
            source.facts()


def test_tls_is_used_by_the_driver_and_the_programs(tmp_path: Path) -> None:
    with running("17", tls=True) as server, database(server) as name:
        certificate = server.folder / "server.crt"
        trusting = f"?sslmode=verify-ca&sslrootcert={certificate}"
        source = source_of(server, name, url=server.url(name, extra=trusting))
        _artifacts, facts = taken(source, tmp_path)
        assert facts.counts["rows/a"] == 500
        distrusting = server.url(name, extra="?sslmode=verify-full&sslrootcert=system")
        with pytest.raises(AccessRefused, match="certificate"):
            source.elsewhere(distrusting).facts()


def test_a_host_that_is_gone(postgres_17: PostgresServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid:1"):
        url = f"postgresql://postgres@{host}/gone"
        source = source_of(postgres_17, "gone", url=url)
        assert not source.probe().reachable
        with pytest.raises(ServerUnreachable), source.freeze(tmp_path):
            pytest.fail("a server that is gone was held still")


def test_an_account_without_rights_says_which(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    postgres_17.run("CREATE ROLE poor LOGIN PASSWORD 'poor'")
    try:
        source = source_of(
            postgres_17, small, url=postgres_17.url(small, user="poor"), password="poor"
        )
        probe = source.probe()
        assert probe.rights == "reads some tables only, may not create databases"
        assert any("may not read a, b" in problem for problem in probe.problems)
        with pytest.raises(AccessRefused, match="permission denied"), source.freeze(tmp_path):
            pytest.fail("tables that may not be read were held still")
        artifacts, _facts = taken(source_of(postgres_17, small), tmp_path)
        with pytest.raises(TargetUnfit, match="in_place"):
            source.staging("tag", tmp_path / "s").fill(artifacts)
        assert source_of(postgres_17, small).probe().rights == "superuser"
    finally:
        postgres_17.run("DROP ROLE poor")


# --- programs and versions ---


@needs_15
def test_a_tool_that_is_older_than_the_server(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, small, tools=tools_of("15"))
    assert any("15" in problem and "17.10" in problem for problem in source.probe().problems)
    with pytest.raises(ToolTooOld, match=r"15.* but the server is 17\.10"), source.freeze(tmp_path):
        pytest.fail("a server was dumped by an older tool")
    artifacts, _facts = taken(source_of(postgres_17, small), tmp_path)
    with pytest.raises(ToolTooOld):
        source.inspect(artifacts, tmp_path)
    with pytest.raises(ToolTooOld):
        source.staging("tag", tmp_path / "s").fill(artifacts)
    assert databases(postgres_17, small) == {small}


def test_no_tools_at_all(postgres_17: PostgresServer, small: str, tmp_path: Path) -> None:
    source = source_of(postgres_17, small, tools=tmp_path)
    assert source.probe().reachable
    assert any("pg_dump" in problem for problem in source.probe().problems)
    with pytest.raises(ToolMissing), source.freeze(tmp_path):
        pytest.fail("a server was dumped without a tool")


@needs_15
def test_a_newer_tool_restores_into_an_older_server(
    postgres_17: PostgresServer, tmp_path: Path
) -> None:
    with running("15") as server, database(server, LARGE) as name:
        source = source_of(server, name, tools=postgres_17.tools)
        artifacts, facts = taken(source, tmp_path)
        restored(source, artifacts, tmp_path)
        assert source.facts().counts == facts.counts


def test_a_dump_of_a_newer_server_is_not_restored(
    postgres_17: PostgresServer, postgres_18: PostgresServer, tmp_path: Path, small: str
) -> None:
    with database(postgres_18) as name:
        artifacts, _facts = taken(source_of(postgres_18, name), tmp_path)
    target = source_of(postgres_17, small, tools=postgres_18.tools)
    with pytest.raises(TargetUnfit, match=r"of PostgreSQL 18\.\d+, this server is 17\.10"):
        target.staging("tag", tmp_path / "staging").fill(artifacts)
    assert databases(postgres_17, small) == {small}


# --- restoring ---


def test_a_restore_that_fails_half_way_disturbs_no_client(
    postgres_17: PostgresServer, large: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, large)
    artifacts, facts = taken(source, tmp_path)
    broken = [in_memory(one, lambda data: data[: len(data) // 2]) for one in artifacts]
    clients = Clients(
        lambda: postgres_17.connect(large),
        lambda connection, _number: connection.execute("SELECT count(*) FROM large").fetchall(),
    )
    with clients.running(3) as readers:
        for number, bad in enumerate(broken[:1]):
            staged = source.staging(f"half{number}", tmp_path / f"{number}")
            with pytest.raises(ServerFailed, match="end of file"):
                staged.fill([bad, *artifacts[1:]])
            with pytest.raises(ServerFailed, match="nothing complete is staged"):
                staged.activate()
            staged.revert()
        readers.wait_for(10)
    assert clients.errors == []
    assert source.facts().counts == facts.counts
    assert databases(postgres_17, large) == {large}


def test_a_restore_whose_session_is_ended_fails_clearly(
    postgres_17: PostgresServer, large: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, large)
    artifacts, _facts = taken(source, tmp_path)
    ended = []

    main = artifacts[0]

    @contextmanager
    def opened() -> Iterator[Any]:
        with main.open() as chunks:
            yield cutting(chunks)

    def cutting(chunks: Any) -> Iterator[Any]:
        for chunk in chunks:
            for at in range(0, len(chunk), 1 << 17):
                yield chunk[at : at + (1 << 17)]
                ended.extend(
                    postgres_17.run(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE"
                        f" 'COPY public.large%' AND starts_with(datname, '{large}_holdfast')"
                    )
                )

    staged = source.staging("ended", tmp_path / "staging")
    with pytest.raises((ConnectionLost, ServerFailed)):
        staged.fill([replace(main, open=opened), *artifacts[1:]])
    assert ended
    staged.revert()
    assert databases(postgres_17, large) == {large}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts small file systems")
def test_a_disk_that_is_full_on_the_server(tmp_path: Path) -> None:
    with running("17") as server, database(server, LARGE) as name:
        space = _made(server.folder / "space")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", space], check=True)
        try:
            os.chown(space, NOBODY, NOBODY)
            server.run(f"CREATE TABLESPACE small LOCATION '{space}'")
            server.run("ALTER TABLE large SET TABLESPACE small", name)
            source = source_of(server, name)
            artifacts, facts = taken(source, tmp_path / "backup")
            staged = source.staging("full", tmp_path / "staging")
            with pytest.raises(NoSpace, match="No space left"):
                staged.fill(artifacts)
            staged.revert()
            assert source.facts().counts == facts.counts
            assert databases(server, name) == {name}
            server.run("ALTER TABLE large SET TABLESPACE pg_default", name)
            server.run("DROP TABLESPACE small")
        finally:
            subprocess.run(["umount", space], check=True)


def test_what_the_server_lacks_is_said_before_anything_is_made(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, small)
    artifacts, _facts = taken(source, tmp_path)
    for needs, said in (
        ('{"extensions": ["timescaledb"]}', "lacks the extension timescaledb"),
        ('{"roles": ["nobody_knows"]}', "the roles nobody_knows are missing"),
    ):
        labels = {**artifacts[0].labels, NEEDS: needs}
        with pytest.raises(TargetUnfit, match=said):
            source.staging("lack", tmp_path / "s").fill(
                [replace(artifacts[0], labels=labels), *artifacts[1:]]
            )
    labels = {**artifacts[0].labels, SERVER: "99.1"}
    with pytest.raises(TargetUnfit, match=r"of PostgreSQL 99\.1"):
        source.staging("lack", tmp_path / "s").fill([replace(artifacts[0], labels=labels)])
    assert databases(postgres_17, small) == {small}


@pytest.mark.parametrize("cut", [0.02, 0.5, 0.999])
def test_a_dump_that_was_cut_is_a_problem(
    postgres_17: PostgresServer, large: str, tmp_path: Path, cut: float
) -> None:
    source = source_of(postgres_17, large)
    artifacts, _facts = taken(source, tmp_path)
    short = in_memory(artifacts[0], lambda data: data[: int(len(data) * cut)])
    assert source.inspect(artifacts, tmp_path).problems == ()
    assert source.inspect([short, *artifacts[1:]], tmp_path).problems


def test_a_missing_database_in_place(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    artifacts, _facts = taken(source_of(postgres_17, small), tmp_path)
    absent = source_of(postgres_17, "absent", in_place=True)
    with pytest.raises(SourceMissing):
        absent.staging("tag", tmp_path / "s").fill(artifacts)


# --- asking ---


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM a",
        "SELECT 1; DROP TABLE b",
        "WITH gone AS (DELETE FROM b RETURNING a) SELECT * FROM gone",
        "SELECT lo_from_bytea(0, 'x')",
        "COMMIT",
        "nonsense",
        "SELECT * FROM not_there",
    ],
)
def test_a_question_that_would_write_is_refused(
    postgres_17: PostgresServer, small: str, sql: str
) -> None:
    source = source_of(postgres_17, small)
    before = source.facts()
    with pytest.raises(UsageInvalid), source.query(sql) as rows:
        list(rows)
    assert source.facts() == before


def test_questions_are_answered_as_an_application_sees_it(
    postgres_17: PostgresServer, small: str
) -> None:
    source = source_of(postgres_17, small)
    with source.query("SELECT id, text FROM a WHERE id % 100 = 0 ORDER BY id -- 100%") as rows:
        assert [row[0] for row in rows] == [100, 200, 300, 400, 500]
    with source.keys({"sql": "SELECT a FROM b UNION ALL SELECT NULL"}) as keys:
        assert set(keys) == {str(i) for i in range(1, 501, 2)}
    with pytest.raises(UsageInvalid), source.keys({"collection": "x"}) as keys:
        list(keys)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
