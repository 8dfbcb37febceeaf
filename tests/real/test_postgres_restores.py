"""What comes back of PostgreSQL besides tables: roles, several databases, scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import NoScratch, ServerFailed, SourceUnfit, TargetUnfit, UsageInvalid
from holdfast.model.artifact import Stream
from holdfast.model.facts import differences
from holdfast.sources.postgres import PostgresSource
from servers.postgres import PASSWORD, PostgresServer, usable_tools
from tests.other_user import NOBODY, as_other_user
from tests.postgres_world import (
    database,
    databases,
    in_memory,
    restored,
    source_of,
    taken,
)

ROLES = """
CREATE ROLE team NOLOGIN;
CREATE ROLE "the owner" LOGIN PASSWORD 'one' CONNECTION LIMIT 7;
COMMENT ON ROLE "the owner" IS 'it''s hers';
ALTER ROLE "the owner" SET work_mem = '3MB';
GRANT team TO "the owner";
"""
DROP_ROLES = 'DROP ROLE IF EXISTS "the owner", team'
ABOUT_ROLES = """
SELECT rolname, rolcanlogin, rolconnlimit, rolconfig::text, shobj_description(r.oid, 'pg_authid'),
       (SELECT array_agg(roleid::regrole::text) FROM pg_auth_members WHERE member = r.oid)
FROM pg_roles r WHERE rolname IN ('team', 'the owner') ORDER BY 1
"""
SECRET = "SELECT rolpassword FROM pg_authid WHERE rolname = 'the owner'"


@pytest.fixture
def small(postgres_17: PostgresServer) -> Iterator[str]:
    with database(postgres_17) as name:
        yield name


@pytest.fixture
def owned(postgres_17: PostgresServer, small: str) -> Iterator[str]:
    postgres_17.run(ROLES)
    postgres_17.run('ALTER TABLE b OWNER TO "the owner"', small)
    try:
        yield small
    finally:
        for one in databases(postgres_17, small):
            postgres_17.run(f'DROP DATABASE "{one}" WITH (FORCE)')
        postgres_17.run(f"CREATE DATABASE {small}")
        postgres_17.run(DROP_ROLES)


def lose_the_owner(server: PostgresServer, name: str) -> None:
    server.run('REASSIGN OWNED BY "the owner" TO postgres', name)
    server.run(DROP_ROLES)


def test_missing_roles_come_back_whole(
    postgres_17: PostgresServer, owned: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, owned)
    before, secret = postgres_17.run(ABOUT_ROLES), postgres_17.run(SECRET)
    artifacts, _facts = taken(source, tmp_path)
    lose_the_owner(postgres_17, owned)
    staged = source.staging("roles", tmp_path / "s")
    staged.fill(artifacts)
    staged.activate()
    staged.revert()
    assert postgres_17.run(ABOUT_ROLES) == []
    restored(source, artifacts, tmp_path)
    assert postgres_17.run(ABOUT_ROLES) == before
    assert postgres_17.run(SECRET) == secret
    owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'b'"
    assert postgres_17.run(owner, owned) == [("the owner",)]


def test_roles_that_exist_are_left_as_they_are(
    postgres_17: PostgresServer, owned: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, owned)
    artifacts, _facts = taken(source, tmp_path)
    postgres_17.run("""ALTER ROLE "the owner" PASSWORD 'two' CONNECTION LIMIT 9""")
    before, secret = postgres_17.run(ABOUT_ROLES), postgres_17.run(SECRET)
    restored(source, artifacts, tmp_path)
    assert (postgres_17.run(ABOUT_ROLES), postgres_17.run(SECRET)) == (before, secret)


def test_without_owners_no_role_is_needed(
    postgres_17: PostgresServer, owned: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, owned, globals=False)
    artifacts, facts = taken(source, tmp_path)
    assert [artifact.part for artifact in artifacts] == [""]
    lose_the_owner(postgres_17, owned)
    with pytest.raises(TargetUnfit, match="the roles the owner are missing"):
        source.staging("none", tmp_path / "s").fill(artifacts)
    ownerless = source_of(postgres_17, owned, owners=False)
    restored(ownerless, artifacts, tmp_path)
    assert ownerless.facts().counts == facts.counts


def test_what_a_restore_replaced_is_kept_until_the_next(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    source = source_of(postgres_17, small)
    artifacts, _facts = taken(source, tmp_path)
    postgres_17.run(f"COMMENT ON DATABASE {small} IS 'first'")
    postgres_17.run("INSERT INTO a VALUES (1000)", small)
    for tag in ("one", "two"):
        staged = source.staging(tag, tmp_path / tag)
        staged.fill(artifacts)
        staged.activate()
        said = staged.settle(tmp_path / "attic")
        kept = f"{small}_replaced_{tag}"
        assert said is not None
        assert kept in said
        assert databases(postgres_17, small) == {small, kept}
        rows = postgres_17.run("SELECT count(*) FROM a", kept)
        assert rows == [(501 if tag == "one" else 500,)]
    restored(source, artifacts, tmp_path)  # one that keeps nothing leaves what others kept
    assert databases(postgres_17, small) == {small, f"{small}_replaced_two"}


def test_several_databases_are_switched_at_once(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    with database(postgres_17, "CREATE TABLE a AS SELECT 1 AS one") as second:
        source = source_of(postgres_17, small, databases=(small, second))
        artifacts, facts = taken(source, tmp_path)
        assert [artifact.part for artifact in artifacts] == [small, second, "globals"]
        assert facts.counts[f"rows/{small}/a"] == 500
        assert facts.counts[f"rows/{second}/a"] == 1
        assert differences(facts, source.facts()) == []
        assert differences(facts, source.inspect(artifacts, tmp_path).facts) == []
        for name in (small, second):
            postgres_17.run("DELETE FROM b" if name == small else "DELETE FROM a", name)
        staged = source.staging("both", tmp_path / "s")
        staged.fill(artifacts)
        assert differences(facts, staged.view.facts()) == []
        staged.activate()
        assert differences(facts, source.facts()) == []
        staged.settle(None)
        assert databases(postgres_17, small) == {small}
        alone = source_of(postgres_17, small)
        with pytest.raises(TargetUnfit, match="the configuration names"):
            alone.staging("alone", tmp_path / "t").fill(artifacts)


def test_a_database_that_does_not_exist_yet_is_made_and_unmade(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    artifacts, facts = taken(source_of(postgres_17, small), tmp_path)
    fresh = source_of(postgres_17, f"{small}_fresh")
    staged = fresh.staging("fresh", tmp_path / "s")
    staged.fill(artifacts)
    staged.activate()
    assert fresh.facts().counts == facts.counts
    fresh.reopen(staged.token).revert()
    assert databases(postgres_17, small) == {small}


def test_large_tables_are_loaded_as_if_they_had_always_been_there(
    postgres_17: PostgresServer, tmp_path: Path
) -> None:
    odd = """CREATE SCHEMA "S. s"; CREATE TABLE "S. s"."a ""(b" (id int, "c) FROM stdin;" text);
    INSERT INTO "S. s"."a ""(b" SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 4000) i;
    CREATE TABLE small (id int); INSERT INTO small VALUES (1);"""
    visible = "SELECT relallvisible > relpages / 2 FROM pg_class WHERE relpages > 100"
    with database(postgres_17, odd) as name:
        source = source_of(postgres_17, name, split=1)
        artifacts, facts = taken(source, tmp_path)
        assert [artifact.part for artifact in artifacts] == ["", "1", "globals"]
        restored(source, artifacts, tmp_path)
        assert source.facts().counts == facts.counts
        assert postgres_17.run(visible, name) == [(True,)]


# --- scripts ---


def script_of(server: PostgresServer, name: str, *options: str) -> bytes:
    argv = [str(server.tools / "pg_dump"), *options, name]
    environment = {**os.environ, **server.environment}
    return subprocess.run(argv, env=environment, check=True, capture_output=True).stdout


def as_script(text: bytes) -> Stream:
    stream = Stream("knowledge.sql", lambda: None)  # type: ignore[arg-type, return-value]
    return in_memory(replace(stream, open=_opening(text)))


def _opening(text: bytes) -> Any:
    @contextmanager
    def opened() -> Iterator[Iterator[bytes]]:
        yield iter([text[at : at + 1000] for at in range(0, len(text), 1000)])

    return opened


@pytest.mark.parametrize("options", [(), ("--inserts", "--create")], ids=["copy", "inserts"])
def test_a_script_is_restored(
    postgres_17: PostgresServer, small: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = source_of(postgres_17, small)
    facts = source.facts()
    script = as_script(script_of(postgres_17, small, *options))
    if not options:
        assert differences(facts, source.inspect([script], tmp_path).facts) == []
    postgres_17.run("DROP TABLE b", small)
    restored(source, [script], tmp_path)
    assert differences(facts, source.facts()) == []


def test_a_script_runs_no_programs(postgres_17: PostgresServer, small: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    script = script_of(postgres_17, small)
    evil = b"\\! touch %b\n\\copy a from program 'touch %b'\n" % (bytes(touched), bytes(touched))
    restored(source_of(postgres_17, small), [as_script(evil + script)], tmp_path)
    assert not touched.exists()


@pytest.mark.parametrize("cut", [0.3, 0.98], ids=["within-rows", "after-rows"])
def test_a_script_that_was_cut_is_not_restored(
    postgres_17: PostgresServer, small: str, tmp_path: Path, cut: float
) -> None:
    text = script_of(postgres_17, small)
    script = as_script(text[: int(len(text) * cut)])
    source = source_of(postgres_17, small)
    staged = source.staging("cut", tmp_path / "s")
    with pytest.raises(ServerFailed, match=r"cut off|ends within"):
        staged.fill([script])
    staged.revert()
    assert databases(postgres_17, small) == {small}


# --- what is left out ---

LINKED = """
CREATE TABLE kept (id int PRIMARY KEY);
CREATE TABLE events (id int, kept int REFERENCES kept);
CREATE TABLE cache_pages (id int);
CREATE SCHEMA log;
CREATE TABLE log.lines (id int);
INSERT INTO kept VALUES (1);
INSERT INTO events VALUES (1, 1);
INSERT INTO cache_pages VALUES (1);
INSERT INTO log.lines VALUES (1);
"""


def test_what_is_left_out_is_neither_stored_nor_counted(
    postgres_17: PostgresServer, tmp_path: Path
) -> None:
    with database(postgres_17, LINKED) as name:
        left_out = {"exclude": ["cache_*"], "exclude_data": ["log.*", "events"]}
        source = source_of(postgres_17, name, **left_out)
        artifacts, facts = taken(source, tmp_path)
        assert facts.counts == {"rows/kept": 1, "large_objects": 0}
        assert differences(facts, source.inspect(artifacts, tmp_path).facts) == []
        # Whatever the options say by then: the backup knows what it has.
        later = source_of(postgres_17, name)
        staged = later.staging("later", tmp_path / "s")
        staged.fill(artifacts)
        assert differences(facts, staged.view.facts()) == []
        staged.activate()
        staged.settle(None)
        expected = {"rows/kept": 1, "rows/events": 0, "rows/log.lines": 0, "large_objects": 0}
        assert later.facts().counts == expected


@pytest.mark.parametrize(
    ("schema", "options"),
    [
        ("", {"exclude": ["kept"]}),
        ("", {"exclude_data": ["kept"]}),
        ("CREATE VIEW v AS SELECT * FROM cache_pages", {"exclude": ["cache_pages"]}),
        ("CREATE TABLE child () INHERITS (cache_pages)", {"exclude": ["cache_pages"]}),
    ],
    ids=["reference", "rows", "view", "child"],
)
def test_what_the_rest_needs_is_not_left_out(
    postgres_17: PostgresServer, tmp_path: Path, schema: str, options: dict[str, Any]
) -> None:
    with database(postgres_17, LINKED + schema) as name:
        source = source_of(postgres_17, name, **options)
        with pytest.raises(SourceUnfit, match="leave that out too"), source.freeze(tmp_path):
            pytest.fail("a backup was taken that cannot be restored")


# --- elsewhere, and twins ---


def test_another_place_keeps_the_options(postgres_17: PostgresServer) -> None:
    source = source_of(postgres_17, "here", exclude=["x"])
    other = source.elsewhere("postgresql://other@example.org/there")
    assert other.options.exclude == ("x",)
    assert other.options.password == PASSWORD
    assert other.where == "postgresql://other@example.org/there"
    assert source.elsewhere("postgresql://example.org").where == "postgresql://example.org/here"
    for url in ("redis://here", "/a/path", ""):
        with pytest.raises(UsageInvalid):
            source.elsewhere(url)


def test_a_socket_is_as_good_as_an_address(postgres_17: PostgresServer, small: str) -> None:
    url = postgres_17.socket_url.replace("/postgres?", f"/{small}?") + "&user=postgres"
    source = source_of(postgres_17, small, url=url, password="")
    assert source.probe().reachable
    assert source.where.endswith(f"/{small}?host={postgres_17.folder}&port={postgres_17.port}")


def test_a_twin_that_was_left_behind_is_removed_by_the_next(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    left = f"{small}_holdfast_scratch_{'ab' * 6}"
    used = f"{small}_holdfast_scratch_{'cd' * 6}"
    for name in (left, f"{left}_holdfast_tag", used):
        postgres_17.run(f"CREATE DATABASE {name} TEMPLATE template0")
    with postgres_17.connect() as connection:
        connection.execute(f"SELECT pg_advisory_lock(hashtextextended('{used}', 0))")
        with source_of(postgres_17, small).scratch(_made(tmp_path / "scratch")) as twin:
            assert isinstance(twin, PostgresSource)
            assert left not in databases(postgres_17, small)
            assert used in databases(postgres_17, small)
    assert databases(postgres_17, small) == {small, used}


def test_where_no_twin_can_be_made_it_says_why(
    postgres_17: PostgresServer, small: str, tmp_path: Path
) -> None:
    postgres_17.run("CREATE ROLE humble LOGIN PASSWORD 'humble'")
    tools = _made(tmp_path / "tools")  # without a server's program
    (tools / "pg_dump").symlink_to(postgres_17.tools / "pg_dump")
    try:
        url = postgres_17.url(small, user="humble")
        source = source_of(postgres_17, small, url=url, password="humble", tools=tools)
        with (
            pytest.raises(NoScratch, match=r"initdb.*may not create databases"),
            source.scratch(_made(tmp_path / "scratch")),
        ):
            pytest.fail("a twin was made by an account that may not")
    finally:
        postgres_17.run("DROP ROLE humble")


OWN_SERVER = """
import sys
from pathlib import Path
from holdfast.sources.postgres import PostgresOptions, PostgresSource
url, password, tools, folder = sys.argv[1:]
source = PostgresSource("k", PostgresOptions(url=url, password=password, tools=tools))
folder = Path(folder)
for name in ("backup", "scratch"):
    (folder / name).mkdir()
with source.freeze(folder / "backup") as frozen, source.scratch(folder / "scratch") as twin:
    assert "holdfast-" in twin.where and "127.0.0.1" not in twin.where, twin.where
    assert not any(twin.facts().counts.values())
    staged = twin.staging("tag", folder / "staging")
    staged.fill(frozen.artifacts)
    staged.activate()
    staged.settle(None)
    assert twin.facts().counts == frozen.facts().counts == source.facts().counts
    where = twin.where
    frozen.facts()
socket = Path(where.partition("host=")[2].partition("&")[0])
assert not socket.exists(), socket
"""


@as_other_user
def test_a_twin_is_a_server_of_its_own_where_one_can_be_run(
    postgres_17: PostgresServer, small: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Path(f"/tmp/holdfast-test-{os.getpid()}-{small}")  # noqa: S108 - others must reach it
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    try:
        argv = [sys.executable, "-c", OWN_SERVER, postgres_17.url(small), PASSWORD]
        done = subprocess.run(
            [*argv, str(usable_tools("17")), str(folder)],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
