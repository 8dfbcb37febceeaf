"""Reading SQL scripts: where statements end, what is a name, and where rows begin and end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources._postgres_load import database_token
from holdfast.sources._postgres_script import MalformedScript, Statement, plain, statements

SCRIPT = rb"""-- a comment; with a semicolon 'and a quote
\restrict abc;'"
SET a = 'it''s; "x';
/* one /* nested; */ 'quote */ SELECT $$;'$$, $tag$ $$ ; $tag$, E'\';', "a;""b";
CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC
 SELECT CASE WHEN true THEN 1 END; SELECT 2;
END;
CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END;
CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);
BEGIN;
COPY public.t (a, "b) FROM stdin;") FROM stdin;
1	x;
\\.	\N
2	\.
\.
COPY empty  FROM stdin;
\.
COPY t TO '/nowhere';
COMMIT;

\unrestrict abc
-- the end"""


def texts(script: bytes, sizes: list[int] | None = None) -> list[tuple[bytes, bytes | None]]:
    return [
        (s.text, None if s.rows is None else b"".join(map(bytes, s.rows)))
        for s in statements(pieces(script, sizes or [len(script)]))
    ]


def pieces(script: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = number = 0
    while at < len(script):
        size = sizes[number % len(sizes)]
        yield script[at : at + size]
        at += size
        number += 1


def test_statements_end_where_they_should() -> None:
    found = texts(SCRIPT)
    begins = [text.split(b"(")[0].split(b"\n")[0][:14] for text, _rows in found]
    assert begins == [
        b"SET a = 'it''s",
        b"SELECT $$;'$$,",
        b"CREATE FUNCTIO",
        b"CREATE OR REPL",
        b"CREATE RULE r ",
        b"BEGIN;",
        b"COPY public.t ",
        b"COPY empty  FR",
        b"COPY t TO '/no",
        b"COMMIT;",
    ]
    assert [rows for _text, rows in found if rows is not None] == [
        b"1\tx;\n\\\\.\t\\N\n2\t\\.\n",
        b"",
    ]


@given(st.lists(st.integers(1, 70), min_size=1, max_size=9))
def test_it_does_not_matter_how_a_script_is_cut_into_chunks(sizes: list[int]) -> None:
    assert texts(SCRIPT, sizes) == texts(SCRIPT)


def test_rows_that_nobody_reads_are_passed_over() -> None:
    assert len(list(statements([SCRIPT]))) == len(texts(SCRIPT))


@pytest.mark.parametrize(
    "script",
    [b"SELECT 'x", b"SELECT $$ ;", b"SELECT (1;", b"COPY t FROM stdin;\n1\n", b"SELECT 1"],
)
def test_a_script_that_ends_too_early_is_refused(script: bytes) -> None:
    with pytest.raises(MalformedScript):
        texts(script)


def test_a_script_may_be_empty() -> None:
    assert texts(b"") == texts(b"  -- nothing") == texts(b"\\connect x") == []


@pytest.mark.parametrize(
    ("statement", "schema", "name"),
    [
        (b"COPY public.stories (id) FROM stdin;\n\\.\n", "public", "stories"),
        (b'COPY "My S"."od""d.t" (a) FROM stdin;\n\\.\n', "My S", 'od"d.t'),
        (b"COPY alone FROM stdin;\n\\.\n", "", "alone"),
        ('COPY "이야기"."열" FROM stdin;\n\\.\n'.encode(), "이야기", "열"),
    ],
)
def test_the_table_of_a_copy(statement: bytes, schema: str, name: str) -> None:
    (found,) = statements([statement])
    assert found.table == (schema, name)


@pytest.mark.parametrize(
    ("statement", "renamed"),
    [
        (b"CREATE DATABASE k WITH TEMPLATE = template0;", b'CREATE DATABASE "n""w" WITH'),
        (b'ALTER DATABASE "k k" SET work_mem TO 1;', b'ALTER DATABASE "n""w" SET'),
        (b"COMMENT ON DATABASE k IS 'DATABASE k';", b'COMMENT ON DATABASE "n""w" IS \'DATA'),
        (b"ALTER ROLE r IN DATABASE k SET a TO 'b';", b'ALTER ROLE r IN DATABASE "n""w" SET a'),
        (b'GRANT ALL ON DATABASE k TO "DATABASE";', b'GRANT ALL ON DATABASE "n""w" TO'),
        (b"REVOKE CONNECT,TEMPORARY ON DATABASE k FROM PUBLIC;", b'ON DATABASE "n""w" FROM'),
        (b"SECURITY LABEL FOR x ON DATABASE k IS 'y';", b'ON DATABASE "n""w" IS'),
    ],
)
def test_statements_about_a_database_are_renamed(statement: bytes, renamed: bytes) -> None:
    found = only(statement)
    place = database_token(found)
    assert place is not None
    assert renamed in found.renamed(found.tokens[place], 'n"w')


@pytest.mark.parametrize(
    "statement",
    [b"GRANT ALL ON TABLE database TO k;", b"ALTER ROLE r SET a TO 1;", b"SELECT 'DATABASE k';"],
)
def test_other_statements_are_not_about_a_database(statement: bytes) -> None:
    assert database_token(only(statement)) is None


def only(script: bytes) -> Statement:
    (found,) = statements([script])
    return found


def test_names_lose_their_quotes() -> None:
    assert plain(b'"a""b"') == 'a"b'
    assert plain(b"plain") == "plain"
