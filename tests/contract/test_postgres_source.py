"""PostgreSQL earns the contract on real servers: 17, and 18 with pgvector."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast.model.artifact import Artifact
from holdfast.ports import Source, Vault
from holdfast.sources.postgres import PostgresOptions, PostgresSource
from holdfast.stores.local import LocalStore
from holdfast.testing.source_contract import SourceContract
from holdfast.vaults.plain import PlainOptions, PlainVault
from servers.postgres import PASSWORD, PostgresServer

SCHEMA = """
CREATE TABLE stories (id serial PRIMARY KEY, title text NOT NULL, body bytea);
CREATE INDEX by_title ON stories (title);
CREATE SCHEMA "more, here";
CREATE TABLE "more, here"."odd ""one"".x" (at timestamptz, "b) FROM stdin;" text);
CREATE TABLE empty ();
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
CREATE TABLE parted (id int, at date) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE FUNCTION hostile() RETURNS text LANGUAGE sql AS
  $$ SELECT 'COPY public.evil FROM stdin;
1
\\.
' $$;
CREATE FUNCTION atomic() RETURNS int LANGUAGE sql
  BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;
CREATE VIEW titles AS SELECT title FROM stories;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM stories;
INSERT INTO stories (title, body)
  SELECT '이야기 ' || i, decode(repeat(md5(i::text), 20), 'hex') FROM generate_series(1, 1500) i;
INSERT INTO "more, here"."odd ""one"".x" VALUES
  ('2026-02-04 12:00+09', E'\\\\.\\n\\\\.\\n'), (NULL, NULL), ('infinity', E'a\\tb\\\\');
INSERT INTO alembic_version VALUES ('4f1c0ffee');
INSERT INTO parted VALUES (1, '2026-03-01');
REFRESH MATERIALIZED VIEW counted;
SELECT lo_from_bytea(0, '\\x6c61726765');
ALTER TABLE stories OWNER TO contract_owner;
GRANT SELECT ON stories TO contract_reader;
"""
# Everything that a restore is to bring back, asked without any of our code.
_TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE relkind IN ('r', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY 1
"""
_CATALOG = {
    "relations": "SELECT oid::regclass::text, relkind::text, pg_get_userbyid(relowner),"
    " relacl::text FROM pg_class WHERE relnamespace NOT IN (SELECT oid FROM pg_namespace"
    " WHERE nspname IN ('pg_catalog', 'information_schema', 'pg_toast')) ORDER BY 1, 2",
    "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod),"
    " attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid WHERE attnum > 0 AND"
    " NOT attisdropped AND relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN"
    " ('pg_catalog', 'information_schema', 'pg_toast')) ORDER BY 1, attnum",
    "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace ="
    " 'public'::regnamespace AND prokind = 'f' AND prolang IN (SELECT oid FROM pg_language WHERE"
    " lanname = 'sql') ORDER BY 1, 2",
    "extensions": "SELECT extname, extversion FROM pg_extension ORDER BY 1",
    "sequences": "SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2",
    "objects": "SELECT oid, encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata ORDER BY 1",
    "database": "SELECT pg_get_userbyid(datdba), (SELECT array_agg(a ORDER BY a::text)::text FROM"
    " unnest(datacl) a), pg_encoding_to_char(encoding), datcollate, datconnlimit,"
    " shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()",
    "settings": "SELECT setrole::regrole::text, setconfig::text FROM pg_db_role_setting"
    " WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " ORDER BY 1",
}


class TestPostgresSource(SourceContract):
    discoverable = False
    extra: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _server(self, postgres_17: PostgresServer) -> Iterator[None]:
        yield from self._on(postgres_17)

    def _on(self, server: PostgresServer) -> Iterator[None]:
        self.server = server
        self._made: set[str] = set()
        with server.connect() as connection:
            for role in ("contract_owner", "contract_reader"):
                if not connection.execute(
                    "SELECT 1 FROM pg_roles WHERE rolname = %s", [role]
                ).fetchone():
                    connection.execute(f"CREATE ROLE {role}")
        yield
        with server.connect() as connection:
            for (name,) in connection.execute("SELECT datname FROM pg_database").fetchall():
                if any(name.startswith(own) for own in self._made):
                    connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE false')
                    connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def database(self, folder: Path) -> str:
        """Return the name of the database that stands for a folder."""
        name = f"c{hashlib.sha256(bytes(folder)).hexdigest()[:8]} Wissen"
        self._made.add(name)
        return name

    def make_source(self, name: str, folder: Path) -> PostgresSource:
        url = self.server.url(self.database(folder))
        options = {"url": url, "password": PASSWORD, "tools": self.server.tools, **self.options}
        return PostgresSource(name, PostgresOptions(**options))

    def other_place(self, source: Source, folder: Path) -> Source:
        return source.elsewhere(self.server.url(self.database(folder)))

    def create(self, source: Source) -> None:
        name = self._name(source)
        with self.server.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" OWNER contract_owner TEMPLATE template0')
            connection.execute(f"""COMMENT ON DATABASE "{name}" IS 'what ''we'' know\nof it'""")
            connection.execute(f"""ALTER DATABASE "{name}" SET work_mem = '5MB'""")
            connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 30')
            connection.execute(
                f'ALTER ROLE contract_owner IN DATABASE "{name}" SET search_path = a, "B c"'
            )
            connection.execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
            connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO contract_reader')
        with self.server.connect(name) as connection:
            connection.execute(SCHEMA + self.extra)

    def change(self, source: Source) -> None:
        with self.server.connect(self._name(source)) as connection:
            connection.execute("INSERT INTO stories (title) VALUES ('later')")
            connection.execute("UPDATE stories SET body = NULL WHERE id < 100")
            connection.execute("CREATE TABLE IF NOT EXISTS came_later (id int)")
            connection.execute("REFRESH MATERIALIZED VIEW counted")  # as a restore does

    def content(self, source: Source) -> object:
        return self._content(self._name(source))

    def _content(self, name: str) -> object:
        with self.server.connect(name) as connection:
            found: dict[str, object] = {
                what: connection.execute(question).fetchall() for what, question in _CATALOG.items()
            }
            # Until a restore is settled, a line of ours comes before the comment.
            found["database"] = re.sub(r"holdfast restore \w+\\n", "", repr(found["database"]))
            for (table,) in connection.execute(_TABLES).fetchall():
                rows = f"SELECT t::text FROM {table} t ORDER BY 1"
                found[table] = connection.execute(rows).fetchall()
        return found

    def litter(self, folder: Path) -> set[str]:
        """The databases that begin as that of the folder, and all roles."""
        name = self.database(folder)
        names = {row[0] for row in self.server.run("SELECT datname FROM pg_database")}
        roles = {row[0] for row in self.server.run("SELECT rolname FROM pg_roles")}
        return {one for one in names - {name} if one.startswith(name)} | (
            roles
            - {"contract_owner", "contract_reader", "postgres"}
            - {role for role in roles if role.startswith("pg_")}
        )

    def guided_content(self, source: Source, target: Path) -> object:
        return self._content(self.database(target))

    def guide_environment(self, target: Path) -> Mapping[str, str]:
        return {**self.server.environment, "DATABASE_NAME": self.database(target)}

    def _name(self, source: Source) -> str:
        assert isinstance(source, PostgresSource)
        (name,) = source.databases.values()
        return name


def only(*names: str) -> dict[str, None]:
    """Return what takes all other tests out of a class that inherits the contract."""
    tests = {name for name in dir(SourceContract) if name.startswith("test_")}
    assert set(names) <= tests
    return dict.fromkeys(tests - set(names))


class TestPostgres18(TestPostgresSource):
    """With vectors and their index, large tables apart, and a restore from files."""

    extra = """
    CREATE EXTENSION vector;
    CREATE TABLE vectors (id int PRIMARY KEY, v vector(64) NOT NULL);
    INSERT INTO vectors SELECT i, (SELECT array_agg(sin(i * j))::vector(64)
      FROM generate_series(1, 64) j) FROM generate_series(1, 4200) i;
    CREATE INDEX near ON vectors USING hnsw (v vector_l2_ops);
    CREATE TABLE noise AS SELECT i, repeat(md5(i::text), 10) AS text
      FROM generate_series(1, 4000) i;
    """
    options: ClassVar[Mapping[str, Any]] = {"split": 1}

    @pytest.fixture(autouse=True)
    def _server(self, postgres_18: PostgresServer) -> Iterator[None]:
        yield from self._on(postgres_18)

    def make_vault(self, folder: Path) -> Vault:
        return PlainVault("local", LocalStore(folder), PlainOptions(url=folder))

    def test_the_large_tables_lie_apart(self, artifacts: list[Artifact]) -> None:
        assert [artifact.part for artifact in artifacts] == ["", "1", "2", "globals"]

    vars().update(
        only(
            "test_what_is_frozen_can_be_read_twice",
            "test_stored_artifacts_count_as_the_frozen_store",
            "test_an_empty_twin_can_be_restored_into",
            "test_the_guide_restores_it_without_holdfast",
            "test_activating_switches_to_what_was_backed_up",
        )
    )


class TestPostgresInPlace(TestPostgresSource):
    """Where an account may not make databases: the database itself stays."""

    options: ClassVar[Mapping[str, Any]] = {"in_place": True}

    def _content(self, name: str) -> object:
        found = super()._content(name)
        assert isinstance(found, dict)
        return {what: rows for what, rows in found.items() if what not in {"database", "settings"}}

    vars().update(
        only(
            "test_activating_switches_to_what_was_backed_up",
            "test_filling_leaves_the_live_store_alone",
            "test_reverting_puts_everything_back",
            "test_rotten_artifacts_are_not_taken",
            "test_settling_twice_is_as_good_as_once",
            "test_the_old_content_can_be_kept",
            "test_what_is_staged_counts_as_what_was_backed_up",
        )
    )
