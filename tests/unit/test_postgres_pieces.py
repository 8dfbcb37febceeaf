"""Names, versions, addresses and options of PostgreSQL: what needs no server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.errors import ToolMissing, ToolTooOld
from holdfast.model.artifact import Stream
from holdfast.sources._postgres_address import Address
from holdfast.sources._postgres_backup import backup_of
from holdfast.sources._postgres_count import Selection, Table
from holdfast.sources._postgres_dump import HOLDS, TABLE, dated
from holdfast.sources._postgres_frozen import changed
from holdfast.sources._postgres_guide import guide
from holdfast.sources._postgres_names import LONGEST_NAME, mark, name_of, unmarked
from holdfast.sources._postgres_tools import Toolbox, read_version
from holdfast.sources.postgres import PostgresOptions, PostgresSource

# --- names ---


@given(st.text(min_size=1, max_size=63), st.text("abc0123456789_", min_size=1, max_size=60))
def test_names_fit_and_differ(database: str, tag: str) -> None:
    staged, replaced = (name_of(database, kind, tag) for kind in ("holdfast", "replaced"))
    assert len({staged, replaced, database}) == 3
    assert max(len(name.encode()) for name in (staged, replaced)) <= LONGEST_NAME


def test_long_names_stay_apart() -> None:
    one, other = "x" * 60 + "1", "x" * 60 + "2"
    assert name_of(one, "holdfast", "tag") != name_of(other, "holdfast", "tag")
    assert name_of(one, "holdfast", "tag") != name_of(one, "holdfast", "gat")


def test_a_mark_keeps_the_comment_before() -> None:
    assert unmarked(mark("tag", "mine\nand yours"), "tag") == "mine\nand yours"
    assert unmarked(mark("tag"), "tag") == ""
    assert unmarked(mark("tag2", "mine"), "tag") is None
    assert unmarked("mine", "tag") is None


# --- programs ---


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("pg_dump (PostgreSQL) 17.10", (17, 10)),
        ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("pg_dump (PostgreSQL) 19beta1", (19, 0)),
        ("", (0, 0)),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int]) -> None:
    assert read_version(text) == version


def install(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for tool in ("pg_dump", "pg_restore"):
        (folder / tool).write_text(f'#!/bin/sh\necho "{tool} (PostgreSQL) {version}"\n')
        (folder / tool).chmod(0o755)
    return folder


def test_the_program_of_the_same_version_is_preferred_then_the_nearest_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = ("13.4", "15.2", "15.9", "17.1", "16.8")
    folders = [install(tmp_path / version, version) for version in versions]
    monkeypatch.setenv("PATH", ":".join(map(str, folders)))
    monkeypatch.setattr("holdfast.sources._postgres_tools._USUAL", ())
    box = Toolbox("k", None)
    assert box.for_server((15, 3)).shown == "15.9"
    assert box.for_server((14, 1)).shown == "15.9"
    assert box.for_server((16, 1)).shown == "16.8"
    assert box.for_archive((0, 0)).shown == "17.1"
    with pytest.raises(ToolTooOld, match=r"17\.1, but the server is 18\.3"):
        box.for_server((18, 3))
    with pytest.raises(ToolMissing):
        box.for_server((15, 1), "initdb")
    assert Toolbox("k", folders[0]).for_server((13, 1)).folder == folders[0]


# --- addresses and options ---


def test_an_address_never_shows_its_password() -> None:
    address = Address.parsed("postgresql://u:s%23cret@[::1]:5433/db?sslmode=require", "", 10)
    assert address.password == "s#cret"
    assert address.where == "postgresql://u@::1:5433/db"
    shown = f"{address!r} {address.argument()} {address.where} {address.environment()!r}"
    assert "cret" not in shown
    assert address.environment().secrets == {"PGPASSFILE": b"*:*:*:*:s#cret\n"}
    assert "sslmode=require" in address.argument()


def test_a_password_is_escaped_for_its_file() -> None:
    secrets = Address.parsed("postgresql:///db", "a:b\\c", 10).environment().secrets
    assert secrets["PGPASSFILE"] == b"*:*:*:*:a\\:b\\\\c\n"


def test_the_option_of_a_password_comes_before_the_url() -> None:
    assert Address.parsed("postgresql://u:one@h/d", "two", 10).password == "two"


@pytest.mark.parametrize(
    "options",
    [
        {"url": "mysql://u:s3cret@h/d"},
        {"url": "s3cret"},
        {"url": "postgresql:///d?sslpassword=s3cret"},
        {"url": "postgresql:///d", "password": "s3cret\nx"},
        {"url": "postgresql:///d", "jobs": 0},
        {"url": "postgresql:///d", "databases": [""]},
    ],
)
def test_options_that_cannot_be_are_refused_without_repeating_them(
    options: dict[str, object],
) -> None:
    with pytest.raises(ValidationError) as raised:
        PostgresOptions.model_validate(options)
    assert "s3cret" not in str(raised.value)


def test_making_a_source_touches_nothing() -> None:
    source = PostgresSource("k", PostgresOptions(url="postgresql://u@no-such-host.invalid/d"))
    assert source.where == "postgresql://u@no-such-host.invalid/d"
    assert list(source.occupants()) == []
    assert not source.probe().reachable


# --- backups ---


def stream(name: str, part: str = "", **labels: str) -> Stream:
    return Stream(name, lambda: None, part=part, labels=labels)  # type: ignore[arg-type, return-value]


def test_parts_belong_to_the_dump_of_their_database() -> None:
    one, two = stream("1.dump", "1", **{HOLDS: "a"}), stream("2.dump", "2", **{HOLDS: "b"})
    part = stream("1-1.dump", "1-1", **{HOLDS: "a", TABLE: "t"})
    roles = stream("globals.sql", "globals")
    backup = backup_of([one, part, two, roles], "k", "there")
    assert [(dumped.main, list(dumped.parts)) for dumped in backup.dumps] == [
        (one, [part]),
        (two, []),
    ]
    assert backup.roles is roles
    assert backup.prefix(backup.dumps[0]) == "a/"


def test_patterns_choose_tables() -> None:
    tables = [Table("public", "log"), Table("app", "log"), Table("app", "data.log")]
    assert Selection(["log"]).excluded(tables) == tables[:2]
    assert Selection(["app.*"]).excluded(tables) == tables[1:]
    assert Selection(["app.l*"], ["*log"]).emptied(tables) == [tables[0], tables[2]]
    assert Selection(["LOG"]).counted(tables) == tables
    assert [table.shown for table in tables] == ["log", "app.log", 'app."data.log"']


def test_the_guide_knows_large_tables_from_databases() -> None:
    lines = "\n".join(
        guide({"a": "a.dump.zst", "a-1": "a-1.dump.zst", "b": "b.dump", "b-2": "x.dump"})
    )
    assert lines.count("--section=pre-data -f -") == 2 * 2
    assert "zstd -dc a-1.dump.zst | pg_restore" in lines
    assert "cat x.dump | pg_restore" in lines


def test_the_beginning_of_an_archive_is_dated_only_where_it_is_known() -> None:
    instant = datetime(2026, 2, 4, 12, 0, 7, tzinfo=UTC)
    head = b"PGDMP\x01\x10\x00\x04\x08\x01\x00" + b"\0\x38\0\0\0" * 7 + b"the rest of it" * 5
    changed = dated(head, instant)
    assert changed[12:17] == b"\0\x07\0\0\0"
    assert (changed[:12], changed[47:]) == (head[:12], head[47:])
    for other in (b"PGDMP\x01\x20\x00" + head[8:], head[:50], b"x" * 100):
        assert dated(other, instant) == other


def test_the_statement_that_loads_a_table_is_changed_only_where_it_is_whole() -> None:
    def string(text: bytes) -> bytes:
        return b"\0" + len(text).to_bytes(4, "little") + text

    copy = b'COPY public."a ""b" (id, "c) FROM stdin;") FROM stdin;\n'
    both = (
        b'TRUNCATE ONLY public."a ""b"; COPY public."a ""b" (id, "c) FROM stdin;")'
        b" FROM stdin WITH (FREEZE);\n"
    )
    head = string(b"TABLE DATA") + b"%b" + string(b"public")
    assert changed(head % string(copy) + copy) == head % string(both) + copy
    for other in (b"\0\x09\0\0\0" + copy, string(b"x" + copy), string(copy[:-1])):
        assert changed(head % other) == head % other
