from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.model.dotenv import LARGEST_VALUE, parse, substitute, variable_of


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("X=plain", "plain"),
        ("export X=plain", "plain"),
        ("  X = spaced out  ", "spaced out"),
        ("X: yaml", "yaml"),
        ("X=", ""),
        ("X", "from outside"),
        ("X=two words # and a comment", "two words"),
        ("X=a#b", "a#b"),
        ("X= # nothing", ""),
        ("X='literal $OUT ${OUT} \\n # no comment'", "literal $OUT ${OUT} \\n # no comment"),
        ("X='it\\'s'  # comment", "it's"),
        ('X="a\\nb\\t\\"c\\" \\\\ $OUT # no comment"', 'a\nb\t"c" \\ out # no comment'),
        ('X="first\nsecond"', "first\nsecond"),
        ('X="\\$OUT"', "$OUT"),
        ("X=pa$$word", "pa$word"),
        ("X=$OUT-${OUT}", "out-out"),
        ("X=${NO:-default}", "default"),
        ("X=${EMPTY:-default}${EMPTY-kept}", "default"),
        ("X=${NO:-${ALSO_NO:-deep}}", "deep"),
        ("X=${OUT:+there}${NO:+absent}", "there"),
        ("X=${NO:?must be set}", ""),
        ("X=100% $ {} $5 ${", "100% $ {} $5 ${"),
        ("\ufeffX=after a byte order mark", "after a byte order mark"),
        ("X=crlf\r\nY=next\r\n", "crlf"),
    ],
)
def test_a_line_is_read_as_compose_reads_it(line: str, value: str) -> None:
    outside = {"OUT": "out", "EMPTY": "", "X": "from outside"}
    assert parse(line, outside)["X"] == value


def test_a_value_may_refer_to_lines_above_it_and_the_environment_wins() -> None:
    text = "A=1\nB=${A}${OUT}\nOUT=inside\nC=$OUT\n"
    assert parse(text, {"OUT": "outside"}) == {
        "A": "1",
        "B": "1outside",
        "OUT": "inside",
        "C": "outside",
    }


def test_comments_blank_lines_and_names_alone_are_passed_over() -> None:
    assert parse("# one\n\n   \n  # two\nALONE\nA=1", {}) == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\n= hunter2", "line 2: there is no NAME=value"),
        ("A=1\n\n1A=hunter2", "line 3: there is no NAME=value"),
        ("hunter2 hunter2", "line 1: there is no NAME=value"),
        ("A='hunter2\n\n", "line 1: a quote is not closed"),
        ('A="hunter2', "line 1: a quote is not closed"),
        ("A='x' hunter2", "line 1: something follows the closing quote"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line_and_not_quoted(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="line") as caught:
        parse(text, {})
    assert str(caught.value) == problem
    assert caught.value.__cause__ is None


def test_variables_that_double_one_another_do_not_fill_the_memory() -> None:
    lines = ["A0=xxxxxxxxxx", *(f"A{n}=$A{n - 1}$A{n - 1}" for n in range(1, 60))]
    with pytest.raises(ValueError, match=f"longer than {LARGEST_VALUE} characters"):
        parse("\n".join(lines), {})


@pytest.mark.parametrize("piece", ["${A:-", "${", "$", "${A", '"', "'\\", "$A${A:+"])
def test_a_hostile_text_takes_no_time(piece: str) -> None:
    began = time.monotonic()
    hostile = piece * (LARGEST_VALUE // len(piece))
    assert substitute(hostile, {"A": ""}.get) is not None
    assert time.monotonic() - began < 5


@settings(max_examples=500, deadline=None, print_blob=True)
@given(st.text("A=:'\"$\\{}#- \n\r\tx", max_size=24))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert all(parse(text, {"A": "v"}))
        return
    with pytest.raises(ValueError, match=r"^line \d+: "):
        parse(text, {"A": "v"})


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("${A}", "A"),
        ("$A", "A"),
        (" ${A:-x${B}} ", "A"),
        ("${A:?say so}", "A"),
        ("${A}x", ""),
        ("${A:+x}", ""),
        ("$$A", ""),
        ("", ""),
    ],
)
def test_a_text_that_is_one_variable_is_told(template: str, name: str) -> None:
    assert variable_of(template) == name
