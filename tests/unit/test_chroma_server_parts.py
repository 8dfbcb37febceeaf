"""The parts of the source for Chroma servers that need no server."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.errors import UsageInvalid
from holdfast.model.artifact import Tree
from holdfast.sources._chroma_folder import ChromaFolder
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.sources._chroma_server import ChromaServer
from holdfast.sources._chroma_server_api import Collection, Page, Place
from holdfast.sources._chroma_server_book import IdBook
from holdfast.sources._chroma_server_format import (
    FlawError,
    begin_line,
    end_line,
    head_line,
    items,
    last_line,
    record_lines,
)
from holdfast.sources._chroma_server_ids import strings
from holdfast.sources._chroma_server_inspect import inspect_export
from holdfast.sources._chroma_server_plan import Plan, Renaming, Staged
from holdfast.sources._chroma_server_scope import DEFAULT, REPLACED, STAGED, Mark, Scope
from holdfast.sources._laid_out import LaidOut
from holdfast.sources.chroma import ChromaSource

URL = "http://localhost:8000"
PLACE = Place("acme", "archive")


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return iter([data[at : at + size] for at in range(0, len(data), size)])


# --- options -------------------------------------------------------------------------------------


def test_the_options_choose_the_source(tmp_path: Path) -> None:
    assert isinstance(ChromaSource("memory", ChromaOptions(path=tmp_path)), ChromaFolder)
    assert isinstance(ChromaSource("memory", ChromaOptions(url=URL)), ChromaServer)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "give either `path` or `url`"),
        ({"path": "/data", "url": URL}, "give either `path` or `url`"),
        ({"path": "/data", "token": "hush"}, "`token`, which does not go with `path`"),
        ({"url": URL, "lock_timeout": 5}, "`lock_timeout`, which does not go with `url`"),
        ({"url": "localhost:8000"}, "must start with http"),
        ({"url": "http://me:hush@localhost"}, "must not hold a password"),
        ({"url": "http://localhost?token=hush"}, "must not have"),
        ({"url": URL, "databases": ()}, "at least 1 item"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem) as caught:
        ChromaOptions(**options)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({}, {}),
        ({"token": "abc"}, {"Authorization": "Bearer abc"}),
        ({"token": "abc", "header": "X-Chroma-Token"}, {"X-Chroma-Token": "abc"}),
        (
            {"token": "abc", "secret_headers": {"X-Key": "k"}},
            {"X-Key": "k", "Authorization": "Bearer abc"},
        ),
    ],
)
def test_a_token_is_sent_as_the_server_wants_it(
    options: dict[str, Any], headers: dict[str, str]
) -> None:
    assert ChromaOptions(url=URL, **options).headers == headers


def test_secrets_stay_out_of_what_is_shown() -> None:
    options = ChromaOptions(url=URL, token="hush", secret_headers={"X-Key": "hush"})
    source = ChromaServer("memory", options)
    staged = source.staging("tag1", Path("/nowhere"))
    assert "hush" not in f"{options} {options!r} {source.where} {staged.token}"


def test_another_place_is_another_server_with_the_same_options(tmp_path: Path) -> None:
    source = ChromaServer("memory", ChromaOptions(url=URL, token="abc", databases=("one",)))
    other = source.elsewhere("https://other.example:8443/chroma/")
    assert other.where == "https://other.example:8443/chroma"
    assert (other.options.token, other.options.databases) == ("abc", ("one",))
    assert isinstance(source.at(tmp_path), LaidOut)
    for url in ("/data/chroma", "ftp://other", "http://me:hush@other"):
        with pytest.raises(UsageInvalid) as caught:
            source.elsewhere(url)
        assert "hush" not in str(caught.value)


def test_a_backup_of_a_folder_is_not_taken_for_an_export(tmp_path: Path) -> None:
    source = ChromaServer("memory", ChromaOptions(url=URL))
    tree = Tree("chroma", open=None)  # type: ignore[arg-type]  # it is not opened
    assert source.inspect([tree], tmp_path).problems


# --- scope and names -----------------------------------------------------------------------------


def test_titles_tell_collections_apart_that_may_be_in_several_databases() -> None:
    assert Scope(("acme",), ("archive",)).title(PLACE, "prose") == "prose"
    assert Scope(("acme",)).title(PLACE, "prose") == "acme/archive/prose"
    assert Scope(("acme", DEFAULT.tenant)).title(DEFAULT, "prose") == "prose"


names = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9_-]{1,510})[a-zA-Z0-9]", fullmatch=True)


@given(names, st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_names_of_ours_are_allowed_and_recognised(name: str, component: str, tag: str) -> None:
    mark = Mark(component, tag)
    for state in (STAGED, REPLACED):
        ours = mark.name(state, name)
        assert 3 <= len(ours) <= 512
        assert ours[-1].isalnum()
        assert ".." not in ours
        assert all(
            character.isascii() and (character.isalnum() or character in "_-.")
            for character in ours
        )
        assert ours.endswith(mark.ending(state))
        assert not Scope(("acme",)).wants(ours)
    assert not mark.earlier(mark.name(REPLACED, name))
    assert not mark.earlier(Mark(component, f"{tag}!").name(STAGED, name))
    assert mark.earlier(Mark(component, f"{tag}!").name(REPLACED, name))
    assert not mark.earlier(Mark(f"{component}-2", tag).name(REPLACED, name))


def test_long_names_stay_different() -> None:
    mark = Mark("memory", "run-1")
    assert mark.name(STAGED, "a" * 512) != mark.name(STAGED, "a" * 511 + "b")
    assert Mark("a-b", "c").ending(STAGED) != Mark("a", "b-c").ending(STAGED)


def test_an_application_may_use_names_that_look_a_little_like_ours() -> None:
    for name in ("prose__holdfast", "my__holdfast_staged", "x__holdfast_made_meanwhile_memory_r1"):
        assert Scope(("acme",)).wants(name)


# --- listings ------------------------------------------------------------------------------------


@given(st.lists(st.text(), max_size=30), st.integers(1, 40))
def test_ids_are_read_wherever_the_answer_is_cut(ids: list[str], size: int) -> None:
    for escaped in (True, False):
        answer = json.dumps({"ids": ids, "documents": None}, ensure_ascii=escaped)
        data = answer.encode("utf-8", "surrogatepass")
        try:
            expected = json.loads(data.decode("utf-8"))["ids"]
        except UnicodeDecodeError:
            continue
        if any(0xD800 <= ord(character) < 0xE000 for one in expected for character in one):
            continue  # no text that a server could hold
        assert [one for some in strings(pieces(data, size)) for one in some] == expected


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "{}",
        '{"ids": null}',
        '{"ids": ["a", "b"',
        '{"ids": ["a", 5]}',
        '{"ids": ["a" "b"]}',
        "[" * 99,
    ],
)
def test_what_is_no_list_of_ids_is_refused(answer: str) -> None:
    with pytest.raises(ValueError, match=r"they are|their list"):
        list(strings(pieces(answer.encode(), 3)))


def test_ids_are_remembered_by_collection(tmp_path: Path) -> None:
    with closing(IdBook(tmp_path / "ids.db")) as ids:
        ids.open("one")
        ids.list(["a", "b", "c"], 1)
        ids.list(["a", "b", "c"], 1)
        ids.take(["a", "b"], 1, [b"1", b"2"])
        ids.list(["b", "c", "d"], 2)
        assert (ids.missing(2), ids.went(2), ids.withheld(2, 1), ids.came()) == (2, 1, 1, 0)
        assert list(ids.listed(2, 0, 10)) == ["c", "d"]
        assert list(ids.listed(2, 0, 10, taken=True)) == ["b"]
        assert not ids.differ(["a", "b"], [b"1", b"2"])
        assert ids.differ(["a", "b"], [b"1", b"3"])
        ids.open("two")
        assert (ids.missing(2), list(ids.all())) == (0, [])


# --- the plan ------------------------------------------------------------------------------------


def test_a_plan_survives(tmp_path: Path) -> None:
    assert Plan.load(tmp_path) is None
    plan = Plan([PLACE, DEFAULT], [PLACE], [Staged(PLACE, "id-1", "prose", "acme/archive/prose")])
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    plan.switch = []
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    plan.switch = [Renaming(PLACE, "id-1", "prose__x", "prose")]
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan


# --- the format ----------------------------------------------------------------------------------

NOW = datetime(2026, 2, 4, tzinfo=UTC)
PROSE = Collection(PLACE, "id-1", "prose", 2, {"a": 1}, {"hnsw": {"space": "l2"}}, None)


def page(*ids: str) -> Page:
    columns: dict[str, list[Any]] = {
        "ids": list(ids),
        "embeddings": [[0.1, -2.5] for _ in ids],
        "documents": ["text\n" for _ in ids],
        "metadatas": [{"n": 1, "x": 1.0, "yes": True} for _ in ids],
        "uris": [None for _ in ids],
    }
    return Page(columns, 100)


def written(*ids: str) -> list[bytes]:
    return [
        head_line([PLACE], "1.0.0", NOW),
        begin_line(PROSE, "prose"),
        *record_lines(page(*ids)),
        end_line(len(ids)),
        last_line(1, len(ids), NOW),
    ]


def inspected(data: bytes, workspace: Path, size: int = 7) -> list[str]:
    return list(inspect_export(pieces(data, size), workspace).problems)


def test_an_export_is_what_its_page_says(tmp_path: Path) -> None:
    head, begin, record, end, last = map(json.loads, written("a"))
    assert head["databases"] == [{"tenant": "acme", "database": "archive"}]
    assert begin["collection"]["configuration"] == {"hnsw": {"space": "l2"}}
    assert struct.unpack("<2f", base64.b64decode(record["embedding"])) == struct.unpack(
        "<2f", struct.pack("<2f", 0.1, -2.5)
    )
    assert (end, last["end"]["records"]) == ({"records": 1}, 1)
    inspection = inspect_export(pieces(b"".join(written("a", "b")), 5), tmp_path)
    assert list(inspection.problems) == []
    assert inspection.facts.counts == {"vectors/prose": 2, "collections": 1}
    assert inspection.facts.details["collections"] == {"prose": {"dimension": 2, "metric": "l2"}}


def test_the_page_of_the_format_names_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "formats" / "chroma-export.md").read_text()
    head, begin, record, _end, last = map(json.loads, written("a"))
    for field in (*head, *begin["collection"], *record, *last["end"]):
        assert f"`{field}`" in text


def test_an_export_that_is_cut_off_anywhere_is_not_whole(tmp_path: Path) -> None:
    whole = b"".join(written("a", "b"))
    assert inspected(whole, tmp_path) == []
    for size in range(len(whole) - 1):  # without its last newline it is whole still
        assert inspected(whole[:size], tmp_path, 50), size


@pytest.mark.parametrize(
    ("number", "line", "problem"),
    [
        (0, b'{"format":"another","version":1}', "it is no holdfast"),
        (0, b'{"format":"holdfast-chroma-export","version":2,"databases":[]}', "version is 2"),
        (0, b"not json", "no JSON"),
        (1, b"[]", "no JSON object"),
        (1, b'{"collection":{"name":"x"}}', "missing"),
        (1, b'{"collection":5}', "missing"),
        (1, b'{"strange":1}', "nothing that is known"),
        (1, b'{"records":0}', "None records"),
        (2, b'{"id":"a","embedding":"AAAA"}', "other fields"),
        (2, b'{"id":"a","embedding":"?","document":null,"metadata":null,"uri":null}', "base64"),
        (
            2,
            b'{"id":"a","embedding":"AAAAAA==","document":null,"metadata":null,"uri":null}',
            "bytes",
        ),
        (2, b'{"id":"a","embedding":null,"document":null,"metadata":null,"uri":null}', "base64"),
        (
            2,
            b'{"id":5,"embedding":"AAAAAAAAAAA=","document":null,"metadata":null,"uri":null}',
            "fields",
        ),
        (
            2,
            b'{"id":"b","embedding":"AAAAAAAAAAA=","document":null,"metadata":null,"uri":null}',
            "twice",
        ),
        (
            2,
            b'{"id":"a","embedding":"AADAfwAAAAA=","document":null,"metadata":null,"uri":null}',
            "finite",
        ),
        (
            2,
            b'{"id":"a","embedding":"AAAAAAAAAAA=","document":7,"metadata":null,"uri":null}',
            "kind",
        ),
        (3, b"", "JSON"),
        (4, b'{"records":5}', "2 records, not 5"),
        (5, b'{"end":{"collections":2,"records":2}}', "1 collections with 2 records"),
        (5, b'{"end":{"collections":1,"records":2}}\n{"end":{}}', "goes on"),
    ],
)
def test_what_is_wrong_with_an_export_is_said(
    tmp_path: Path, number: int, line: bytes, problem: str
) -> None:
    lines = written("a", "b")
    lines[number] = line + b"\n"
    problems = inspected(b"".join(lines), tmp_path)
    assert problems
    assert problem in problems[0]


@given(st.binary(max_size=300))
def test_garbage_is_no_export(data: bytes) -> None:
    with pytest.raises(FlawError):
        list(items(pieces(data, 16)))


def test_a_line_without_end_is_not_gathered_for_ever() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"a" * (1 << 20)

    with pytest.raises(FlawError, match="longer"):
        list(items(endless()))


@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8),
)
def test_numbers_stay_the_same_bit_by_bit(numbers: list[float]) -> None:
    columns: dict[str, list[Any]] = {"ids": ["a"], "embeddings": [numbers]}
    columns |= {name: [None] for name in ("documents", "metadatas", "uris")}
    (line,) = record_lines(Page(columns, 1))
    assert base64.b64decode(json.loads(line)["embedding"]) == struct.pack(
        f"<{len(numbers)}f", *numbers
    )
