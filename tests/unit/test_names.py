"""Names never lead out of their folder, and templates never make two backups one."""

from __future__ import annotations

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import UnsafeName
from holdfast.model.names import (
    LONGEST_NAME,
    check_template,
    fill,
    safe_backup_id,
    safe_name,
    safe_path,
    template_fields,
    timestamp,
)

ANY_TEXT = st.text(st.characters(codec=None), max_size=30)  # lone surrogates too
IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
LITERALS = st.text(string.ascii_letters + "/-_. ", max_size=6)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "-rf", "a/b", "a\\b", "a b", "a\nb", "a\0b", "a\tb", "a\u202eb",
     "\udcff", "x" * (LONGEST_NAME + 1), "ü" * LONGEST_NAME],
)  # fmt: skip
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(UnsafeName):
        safe_name(name, "name")


@pytest.mark.parametrize("name", ["a", "a.b", "a-b_c", "über", "x" * LONGEST_NAME, "日本"])
def test_ordinary_names_are_safe(name: str) -> None:
    assert safe_name(name, "name") == name


@given(ANY_TEXT)
def test_a_safe_name_is_one_visible_part_of_a_path(name: str) -> None:
    try:
        safe_name(name, "name")
    except UnsafeName:
        return
    assert name
    assert name == safe_path(name, "path")
    assert "/" not in name
    assert name[0] not in ".-"
    assert name.split() == [name]
    name.encode()


@given(ANY_TEXT | st.lists(st.sampled_from(["", ".", "..", "a", " "]), max_size=5).map("/".join))
def test_a_safe_path_stays_below(path: str) -> None:
    import posixpath

    try:
        safe_path(path, "path")
    except UnsafeName:
        return
    assert posixpath.normpath(posixpath.join("/root", path)) == f"/root/{path}"
    assert "\0" not in path


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "a/./b", "a\0"])
def test_paths_that_leave_are_refused(path: str) -> None:
    with pytest.raises(UnsafeName):
        safe_path(path, "path")


@pytest.mark.parametrize("backup_id", ["latest", "latest-verified", "manifests", "../x", ""])
def test_reserved_ids_are_refused(backup_id: str) -> None:
    with pytest.raises(UnsafeName):
        safe_backup_id(backup_id)


def test_timestamps_sort_as_their_instants() -> None:
    assert timestamp(datetime(2026, 2, 4, 12, tzinfo=UTC)) == "20260204_120000"


@given(st.lists(LITERALS | IDENTIFIERS.map("{{{}}}".format), max_size=6).map("".join))
def test_templates_are_filled_as_their_fields_say(template: str) -> None:
    fields = template_fields(template)
    filled = fill(template, {field: f"<{field}>" for field in fields})
    expected = template
    for field in fields:
        expected = expected.replace(f"{{{field}}}", f"<{field}>")
    assert filled == expected


@given(ANY_TEXT | st.text("{}!:.[]ab", max_size=12))
def test_any_template_is_understood_or_refused(template: str) -> None:
    try:
        fields = template_fields(template)
    except ValueError:
        return
    fill(template, dict.fromkeys(fields, "x"))


@pytest.mark.parametrize(
    "template",
    [
        "{",
        "}",
        "{}",
        "{0}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>10}",
        "{a:{b}}",
        "{a b}",
        "{__class__.x}",
    ],
)
def test_fields_that_reach_further_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        template_fields(template)


def test_templates_are_checked_for_unknown_and_needed_fields() -> None:
    check_template("{stack}_{timestamp}", ["stack", "timestamp"], needs=["timestamp"])
    with pytest.raises(ValueError, match=r"unknown field \{stak\}; known: stack, timestamp"):
        check_template("{stak}_{timestamp}", ["stack", "timestamp"])
    with pytest.raises(ValueError, match=r"\{timestamp\} is needed"):
        check_template("{stack}", ["stack", "timestamp"], needs=["timestamp"])
