"""The table of errors is whole, and every row speaks as it should."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import errors
from holdfast.errors import HoldfastError, SourceMissing, fields_of, printable, table

SOURCE = Path(errors.__file__).parent


def test_codes_are_unique_and_look_alike() -> None:
    codes = [row.code for row in table()]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code and "_" not in code for code in codes)


def test_every_exit_status_is_one_of_the_documented() -> None:
    documented = {1, 2, 3, 10, 11, 12, 20, 21, 22, 130}
    assert {row.exit_status for row in table()} <= documented


@pytest.mark.parametrize("row", table(), ids=lambda row: row.code)
def test_a_row_renders_in_one_line_with_its_fields(row: type[HoldfastError]) -> None:
    names = fields_of(row.message) | fields_of(row.hint_text)
    error = row(**{name: f"<{name}\nx>" for name in names})
    assert "\n" not in str(error) + error.hint
    assert all(f"<{name}" in str(error) + error.hint for name in names)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (str(copied), copied.hint) == (str(error), error.hint)


def test_a_wrong_field_is_a_bug_that_shows_at_once() -> None:
    with pytest.raises(TypeError, match="path"):
        SourceMissing(component="c")
    with pytest.raises(TypeError, match="other"):
        SourceMissing(component="c", path="p", other=1)


def test_control_characters_and_broken_text_are_shown_not_obeyed() -> None:
    assert printable("a\nb\x1b[31m\udcff") == "a\\nb\\x1b[31m\\udcff"
    assert printable("백업") == "백업"


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Every place in the product that makes a row, with the call that does."""
    rows = {row.__name__ for row in table()}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in rows:
                assert isinstance(node, ast.Call)
                yield f"{path.name}:{node.lineno}", node


def test_every_place_that_raises_a_row_names_all_its_fields() -> None:
    by_name = {row.__name__: row for row in table()}
    wrong = []
    for place, call in raised():
        assert isinstance(call.func, ast.Name)
        row = by_name[call.func.id]
        if any(keyword.arg is None for keyword in call.keywords):
            continue  # **fields: looked at when it runs
        given = {keyword.arg for keyword in call.keywords}
        if call.args or given != fields_of(row.message) | fields_of(row.hint_text):
            wrong.append(f"{place}: {row.__name__}({', '.join(sorted(map(str, given)))})")
    assert wrong == []


def test_every_row_is_used() -> None:
    text = "".join(
        path.read_text("utf-8") for path in SOURCE.rglob("*.py") if path.name != "errors.py"
    )
    assert [row.__name__ for row in table() if row.__name__ not in text] == []
