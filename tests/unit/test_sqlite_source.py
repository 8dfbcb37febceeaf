"""What a database source counts, asks, finds, inspects and stages."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.errors import BackupDamaged, SourceUnfit, TargetUnfit, UsageInvalid
from holdfast.model.artifact import Chunks, Stream
from holdfast.model.facts import differences
from holdfast.ports import Keyed, Queryable
from holdfast.sources._sqlite_names import unique_names
from holdfast.sources.sqlite import SqliteOptions, SqliteSource
from tests.nowhere import NOWHERE
from tests.real.test_sqlite_live import freeze_to, picture, source_of
from tests.sqlite_world import create


def make(path: Path, *statements: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def stored(path: Path, *, in_place: bool = True) -> Stream:
    """Return a file as a vault would give it."""

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter([path.read_bytes()])

    return Stream(path.name, opened, path.stat().st_size, path=path if in_place else None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "live" / "bank.db"
    path.parent.mkdir()
    create(path, "wal")
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return workspace


# --- counting ---


def test_tables_of_every_kind_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "all.db"
    make(
        path,
        "CREATE TABLE plain (id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
        'CREATE TABLE "odd ""name" (a)',
        "CREATE TABLE sqlitelike (a)",
        "CREATE TABLE narrow (a PRIMARY KEY, b) WITHOUT ROWID",
        "CREATE TABLE computed (a INTEGER, b AS (a * 2) STORED)",
        "CREATE VIRTUAL TABLE words USING fts5(body)",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x1, x2)",
        "CREATE VIEW seen AS SELECT * FROM plain",
        "INSERT INTO plain (a) VALUES (1), (2)",
        'INSERT INTO "odd ""name" VALUES (1)',
        "INSERT INTO narrow VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO computed (a) VALUES (1)",
        "INSERT INTO words VALUES ('a b'), ('c')",
        "INSERT INTO boxes VALUES (1, 0, 1)",
        "ANALYZE",
        "PRAGMA user_version = 7",
    )
    _copy, facts = freeze_to(source_of(path, check="full"), tmp_path / "trial")
    assert facts.counts == {
        "rows/plain": 2,
        'rows/odd "name': 1,
        "rows/sqlitelike": 0,
        "rows/narrow": 3,
        "rows/computed": 1,
        "rows/words": 2,
        "rows/boxes": 1,
    }
    assert facts.details["tables"] == 7
    assert facts.details["user_version"] == 7
    assert facts.details["encoding"] == "UTF-8"
    assert facts.details["page_size"] == 4096
    assert facts.details["journal_mode"] == "rollback"
    assert facts.notes == ()


def test_what_sqlite_here_does_not_know_is_noted_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_collation("KOREAN", lambda a, b: (a > b) - (a < b))
        connection.create_function("known_here", 1, lambda value: value, deterministic=True)
        connection.execute("CREATE TABLE names (name TEXT COLLATE KOREAN PRIMARY KEY)")
        connection.execute("CREATE TABLE guarded (a CHECK (known_here(a) > 0))")
        connection.execute("INSERT INTO names VALUES ('가'), ('나')")
        connection.execute("INSERT INTO guarded VALUES (1)")
        connection.execute("CREATE TABLE plain (a)")
        connection.execute("CREATE VIRTUAL TABLE vectors USING fts5(body)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'vec0')")
        connection.commit()
    copy, facts = freeze_to(source_of(path), tmp_path / "trial")
    assert facts.counts["rows/names"] == 2
    assert facts.counts["rows/guarded"] == 1
    assert facts.counts["rows/plain"] == 0
    assert "rows/vectors" not in facts.counts
    assert any("vectors" in note and "vec0" in note for note in facts.notes)
    assert any("names" in note and "KOREAN" in note for note in facts.notes)
    inspection = source_of(path).inspect([stored(copy)], tmp_path)
    assert inspection.problems == ()
    assert differences(facts, inspection.facts) == []


_INSERT = "INSERT INTO {} VALUES ('a1')"


@pytest.mark.parametrize(
    ("statements", "version"),
    [
        (["CREATE TABLE meta (schema_version)", "INSERT INTO meta VALUES ('1.0.0')"], "1.0.0"),
        (["CREATE TABLE alembic_version (version_num)", _INSERT.format("alembic_version")], "a1"),
        (["CREATE TABLE schema_migrations (version)", _INSERT.format("schema_migrations")], "a1"),
        (["CREATE TABLE meta (key, value)"], None),
        (["CREATE TABLE meta (other)"], None),
    ],
)  # fmt: skip
def test_the_schema_version_is_read_where_the_application_keeps_it(
    tmp_path: Path, statements: list[str], version: str | None
) -> None:
    path = tmp_path / "app.db"
    make(path, *statements)
    assert source_of(path).facts().details.get("schema_version") == version


def test_a_check_can_be_left_out_or_be_thorough(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    make(path, "CREATE TABLE t (a)", "CREATE INDEX i ON t (a)", "INSERT INTO t VALUES (1), (2)")
    make(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE INDEX i ON t (a DESC)' WHERE name = 'i'",
    )
    freeze_to(source_of(path, check="none"), tmp_path / "none")
    freeze_to(source_of(path, check="quick"), tmp_path / "quick")
    with pytest.raises(Exception, match="damaged"):
        freeze_to(source_of(path, check="full"), tmp_path / "full")


def test_options_are_strict(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        SqliteOptions.model_validate({"path": "x", "checks": "quick"})
    with pytest.raises(ValidationError):
        SqliteOptions.model_validate({"path": "x", "lock_timeout": -1})
    options = SqliteOptions.model_validate({"path": "data/x.db"}, context={"base": tmp_path})
    assert options.path == tmp_path / "data/x.db"
    assert all(field.description for field in SqliteOptions.model_fields.values())


# --- asking ---


def test_rows_come_in_every_type_and_number(path: Path) -> None:
    source = source_of(path)
    assert isinstance(source, Queryable)
    assert isinstance(source, Keyed)
    with source.query("SELECT 1, 2.5, 'ä', x'00ff', NULL") as rows:
        assert list(rows) == [(1, 2.5, "ä", b"\0\xff", None)]
    with source.query("SELECT id, body FROM pages ORDER BY id") as rows:
        assert [row[0] for row in rows] == list(range(500))
    with source.query("SELECT id FROM pages WHERE 0") as rows:
        assert list(rows) == []


def test_rows_that_nobody_wants_are_not_read(path: Path) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with source_of(path).query(endless) as rows:
        assert [next(rows) for _ in range(3)] == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM pages",
        "INSERT INTO pages VALUES (-1, '')",
        "CREATE TABLE more (a)",
        "DROP TABLE pages",
        "PRAGMA user_version = 3",
        "PRAGMA journal_mode = DELETE",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'other.db'",
        "VACUUM",
        "SELECT 1; DELETE FROM pages",
        "BEGIN IMMEDIATE",
        "CREATE TEMP TABLE more (a)",
        "UPDATE pages SET body = '' RETURNING id",
        "WITH x AS (SELECT 1) DELETE FROM pages",
        "SELECT load_extension('x')",
        "SELECT * FROM nowhere",
        "not SQL",
        "",
    ],
)
def test_a_statement_that_does_not_read_is_refused(path: Path, sql: str) -> None:
    before = picture(path.parent)
    with pytest.raises(UsageInvalid), source_of(path).query(sql) as rows:
        list(rows)
    assert picture(path.parent) == before


def test_full_text_tables_answer(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    make(path, "CREATE VIRTUAL TABLE w USING fts5(body)", "INSERT INTO w VALUES ('a b'), ('c')")
    with source_of(path).query("SELECT body FROM w WHERE w MATCH 'a'") as rows:
        assert list(rows) == [("a b",)]


def test_keys_are_the_first_column_as_text(path: Path) -> None:
    sql = "SELECT 7, 1 UNION ALL SELECT 'k', 2 UNION ALL SELECT NULL, 3 UNION ALL SELECT x'6b32', 4"
    with source_of(path).keys({"sql": sql}) as keys:
        assert sorted(keys) == ["7", "k", "k2"]
    with pytest.raises(UsageInvalid), source_of(path).keys({"collection": "x"}):
        pytest.fail("it took another kind's options")


# --- finding ---


def test_databases_are_found_by_how_they_begin(tmp_path: Path) -> None:
    for name in ("app.db", "data/no-suffix", "data/deep/app.sqlite", "a b/ünï.db"):
        make(tmp_path / name, "CREATE TABLE t (a)")
    make(tmp_path / "data/log.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)")
    elsewhere = (
        "chroma/chroma.sqlite3", "chroma/other.db", ".git/index.db", "web/node_modules/x/cache.db",
        ".venv/x.db", "env/x.db", "backups/plain/x.db", "old/x.db", "1/2/3/4/5/6/7/deep.db",
    )  # fmt: skip
    for name in elsewhere:
        make(tmp_path / name, "CREATE TABLE t (a)")
    (tmp_path / "env/pyvenv.cfg").touch()
    (tmp_path / "backups/.holdfast").touch()
    (tmp_path / "old/metadata.json").touch()
    (tmp_path / "old/SHA256SUMS").touch()
    (tmp_path / "data/fake.db").write_bytes(b"no database")
    (tmp_path / "data/empty.db").touch()
    (tmp_path / "data/link.db").symlink_to(tmp_path / "app.db")
    os.mkfifo(tmp_path / "data/pipe.db")
    found = {one.options["path"]: one.name for one in SqliteSource.discover(tmp_path)}
    assert found == {
        "app.db": "app",
        "a b/ünï.db": "n",
        "data/log.db": "log",
        "data/no-suffix": "no-suffix",
        "data/deep/app.sqlite": "deep-app",
    }


def test_names_are_unique() -> None:
    paths = [Path("x/a.db"), Path("y/a.db"), Path("y/a.sqlite"), Path("z/!.db"), Path("z/?.db")]
    assert list(unique_names(paths)) == ["a", "y-a", "y-a-2", "database", "z"]


# --- inspecting ---


def test_a_sealed_file_is_inspected_in_place_and_read_once(path: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    shutil.copy(path, sealed / "bank.db")
    (sealed / "bank.db").chmod(0o400)
    before = picture(sealed)
    opened = []

    @contextmanager
    def counting() -> Iterator[Chunks]:
        opened.append("begun")
        yield iter([b"content"])
        opened.append("ended")

    artifact = replace(stored(sealed / "bank.db"), open=counting)
    workspace = tmp_path / "inspecting"
    workspace.mkdir()
    inspection = source_of(path).inspect([artifact], workspace)
    assert opened == ["begun", "ended"]
    assert inspection.problems == ()
    assert differences(inspection.facts, source_of(path).facts()) == []
    assert picture(sealed) == before
    assert not any(workspace.iterdir())


@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "streamed"])
def test_inspecting_finds_damage_and_lost_references(
    tmp_path: Path, workspace: Path, *, in_place: bool
) -> None:
    path = tmp_path / "app.db"
    make(
        path,
        "CREATE TABLE projects (id INTEGER PRIMARY KEY)",
        "CREATE TABLE episodes (id INTEGER PRIMARY KEY, project REFERENCES projects)",
        "INSERT INTO episodes VALUES (1, 5), (2, 6)",
    )
    artifact = stored(path, in_place=in_place)
    (problem,) = source_of(path).inspect([artifact], workspace).problems
    assert "2 rows of episodes" in problem
    assert source_of(path, foreign_keys=False).inspect([artifact], workspace).problems == ()
    data = bytearray(path.read_bytes())
    data[4096 * 2 :] = b"\xa5" * (len(data) - 4096 * 2)
    path.write_bytes(data)
    assert source_of(path).inspect([artifact], workspace).problems
    path.write_bytes(b"no database" * 1000)
    assert source_of(path).inspect([artifact], workspace).problems
    assert source_of(path).inspect([], workspace).problems


@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "streamed"])
def test_inspecting_hears_of_a_wrong_checksum(
    path: Path, workspace: Path, *, in_place: bool
) -> None:
    def rotten() -> Chunks:
        yield path.read_bytes()
        raise BackupDamaged(backup="b", path="p", reason="its checksum differs")

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield rotten()

    artifact = replace(stored(path, in_place=in_place), open=opened)
    with pytest.raises(BackupDamaged):
        source_of(path).inspect([artifact], workspace)


# --- restoring ---


def test_an_old_log_is_never_applied_to_the_new_file(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    shutil.copy(path, backup)
    leftovers = _leave_a_log(path)
    source = source_of(path)
    staged = source.staging("tag1", NOWHERE)
    staged.fill([stored(backup)])
    staged.activate()
    assert path.read_bytes() == backup.read_bytes()
    assert [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] == ["bank.db"]
    staged.revert()
    assert {name: data for name, (data, _) in picture(path.parent).items()} == leftovers
    staged = source.staging("tag2", NOWHERE)
    staged.fill([stored(backup)])
    staged.activate()
    kept = staged.settle(tmp_path / "attic")
    assert kept
    assert sorted(os.listdir(kept)) == ["bank.db", "bank.db-shm", "bank.db-wal"]  # noqa: PTH208
    assert os.listdir(path.parent) == ["bank.db"]  # noqa: PTH208 - names alone


def _leave_a_log(path: Path) -> dict[str, str]:
    """Leave the database as a crash would: commits in the log only."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM pages")
        members = {p: p.read_bytes() for p in path.parent.iterdir()}
    for member, data in members.items():
        member.write_bytes(data)
    return {name: data for name, (data, _) in picture(path.parent).items()}


def test_the_new_file_takes_over_mode_and_owner(path: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    shutil.copy(path, backup)
    path.chmod(0o664)
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(path, *owner)
    staged = source_of(path).staging("tag1", NOWHERE)
    staged.fill([stored(backup)])
    staged.activate()
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o664
    assert (found.st_uid, found.st_gid) == owner


@pytest.mark.parametrize(("mask", "mode"), [("022", 0o644), ("077", 0o600)])
def test_a_file_where_none_was_gets_the_usual_mode(
    path: Path, tmp_path: Path, mask: str, mode: int
) -> None:
    before = os.umask(int(mask, 8))
    try:
        staged = source_of(path).at(tmp_path / "new").staging("tag1", NOWHERE)
        staged.fill([stored(path)])
        staged.activate()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "bank.db").stat().st_mode) == mode


def test_what_is_no_database_is_not_staged(path: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.db"
    wrong.write_bytes(b"no database" * 1000)
    before = picture(path.parent)
    staged = source_of(path).staging("tag1", NOWHERE)
    with pytest.raises(SourceUnfit):
        staged.fill([stored(wrong)])
    staged.revert()
    with pytest.raises(TargetUnfit):
        source_of(path).staging("tag2", NOWHERE).fill([])
    assert picture(path.parent) == before


def test_staged_content_answers_checks(path: Path, tmp_path: Path) -> None:
    staged = source_of(path).at(tmp_path / "new").staging("tag1", NOWHERE)
    staged.fill([stored(path)])
    view: Any = staged.view
    with view.query("SELECT count(*) FROM pages") as rows:
        assert list(rows) == [(500,)]
    with view.keys({"sql": "SELECT id FROM accounts"}) as keys:
        assert len(list(keys)) == 50
    staged.revert()
    assert not (tmp_path / "new").exists()


def test_the_guide_sets_aside_what_is_there(path: Path, tmp_path: Path) -> None:
    source = source_of(path)
    target = tmp_path / "by hand"
    target.mkdir()
    for suffix in ("", "-wal", "-shm"):
        (target / f"bank.db{suffix}").write_text(f"old{suffix}")
    lines = source.guide({"": f"'{path}'"})
    done = subprocess.run(
        ["sh", "-eu", "-c", "\n".join(lines)],
        env={"PATH": os.environ["PATH"], "TARGET": str(target)},
        check=True,
        stdout=subprocess.PIPE,
    )
    assert done.stdout == b"ok\n"
    assert (target / "bank.db").read_bytes() == path.read_bytes()
    aside = sorted(p.name.split(".before-")[0] for p in target.glob("*.before-*"))
    assert aside == ["bank.db", "bank.db-shm", "bank.db-wal"]
