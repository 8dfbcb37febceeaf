from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.config.document import LARGEST_FILE, parse, plain, read
from holdfast.errors import ConfigInvalid

FILE = Path("holdfast.yaml")


def value(text: str) -> object:
    return plain(parse(text.encode(), FILE).root)


def refusal(text: str | bytes) -> tuple[str, str, str]:
    with pytest.raises(ConfigInvalid) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), FILE)
    fields = caught.value.fields
    return fields["place"], fields["problem"], fields["advice"]


def test_scalars_mean_what_yaml_1_2_says() -> None:
    text = "{a: no, b: on, c: true, d: 012, e: 0x1F, f: 1e3, g: ~, h: 1:30, i: 2026-02-04, j: '1'}"
    assert value(text) == {
        "a": "no",
        "b": "on",
        "c": True,
        "d": 12,
        "e": 31,
        "f": 1000.0,
        "g": None,
        "h": "1:30",
        "i": "2026-02-04",
        "j": "1",
    }


def test_each_value_knows_the_line_of_its_key() -> None:
    document = parse(b"# a comment\na:\n  b:\n    - x\n    - y: 1\n", FILE)
    assert document.place(("a",)) == "holdfast.yaml:2 a"
    assert document.place(("a", "b", 0)) == "holdfast.yaml:4 a.b[0]"
    assert document.place(("a", "b", 1, "y")) == "holdfast.yaml:5 a.b[1].y"
    assert document.place(("a", "gone", "deeper")) == "holdfast.yaml:2 a.gone.deeper"


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    assert refusal("a: 1\nb:\n  x: 1\n  y: 2\n  x: 3\n") == (
        "holdfast.yaml:5 b.x",
        "`x` is given twice: in line 3 and in line 5",
        "remove one of them",
    )


def test_a_tab_is_named_as_such() -> None:
    place, problem, advice = refusal("a:\n  b: 1\n\tc: 2\n")
    assert (place, advice) == ("holdfast.yaml:3", "indent with spaces")
    assert problem == "has a tab where YAML allows only spaces"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [1, 2\nb: 3\n", "holdfast.yaml:2"),
        ("a: @x\n", "holdfast.yaml:1"),
        ("a: 1\n b: 2\n", "holdfast.yaml:2"),
        ("a: 'x\n\n", "holdfast.yaml:3"),
        ('a: "\\U00110000"\n', "holdfast.yaml:1"),
        ("a: b: c\n", "holdfast.yaml:1"),
    ],
)
def test_a_syntax_error_has_its_line(text: str, place: str) -> None:
    where, problem, advice = refusal(text)
    assert where == place
    assert problem.startswith("is not YAML: ")
    assert "quotes" in advice


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~\n", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(text: str) -> None:
    assert refusal(text) == (
        "holdfast.yaml:1",
        "is empty",
        "start from what `holdfast init` writes",
    )


@pytest.mark.parametrize("text", ["- a\n- b\n", "text\n", "12\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    place, problem, _advice = refusal(text)
    assert (place, problem) == ("holdfast.yaml:1", "must be a mapping of keys to values")


def test_anchors_aliases_and_merges_work() -> None:
    text = "base: &base {x: 1, y: 2}\na: {<<: *base, y: 3}\nb: *base\nc: {<<: [{z: 1}, *base]}\n"
    assert value(text) == {
        "base": {"x": 1, "y": 2},
        "a": {"x": 1, "y": 3},
        "b": {"x": 1, "y": 2},
        "c": {"z": 1, "x": 1, "y": 2},
    }


def test_of_several_merged_mappings_the_first_that_gives_a_key_wins() -> None:
    assert value("a: {<<: [{x: 1}, {x: 2, y: 2}], y: 3}\n") == {"a": {"x": 1, "y": 3}}


def test_a_bomb_of_aliases_is_refused_before_it_goes_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    place, problem, _advice = refusal("\n".join(lines))
    assert (place, problem) == (
        "holdfast.yaml:5 a4",
        "holds more than 50000 values, with aliases written out",
    )


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: *b\n", "a: *b\nb: &b 1\n", "a: &a {x: *a}\n"])
def test_an_alias_to_what_is_not_complete_is_refused(text: str) -> None:
    place, problem, _advice = refusal(text)
    assert place.startswith("holdfast.yaml:1 a")
    assert "refers to nothing that is complete before it" in problem


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_deep_nesting_is_refused_without_a_long_wait(opening: str) -> None:
    place, problem, _advice = refusal("x:\n  " + opening * 100_000)
    assert place.startswith("holdfast.yaml:2 x")
    assert problem == "is nested too deeply"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("a: !!python/object:os.system {}\n", "holdfast.yaml:1 a", "YAML tags such as"),
        ("a: !mine x\n", "holdfast.yaml:1 a", "YAML tags such as"),
        ("x: 1\n1: b\n", "holdfast.yaml:2", "a key must be text"),
        ("x:\n  ? [a]\n  : b\n", "holdfast.yaml:2 x", "a key must be text"),
        ("a: {<<: 3}\n", "holdfast.yaml:1 a", "<< needs a mapping, or a list of mappings"),
        ('a: "\\0"\n', "holdfast.yaml:1 a", "has a character in it that no text may have"),
        ('a: "\\ud800"\n', "holdfast.yaml:1 a", "has a character in it that no text may have"),
        ("a: 1\nb: \x07\n", "holdfast.yaml:2", "has a control character in it"),
        ("a: " + "1" * 5000, "holdfast.yaml:1 a", "is too long for a number"),
        ("%YAML 1.1\n---\na: no\n", "holdfast.yaml:2", "only YAML 1.2 is read"),
        ("a: 1\n---\nb: 1\n", "holdfast.yaml:2", "a second document starts here"),
    ],
)
def test_what_else_is_refused_has_its_line(text: str, place: str, problem: str) -> None:
    where, what, _advice = refusal(text)
    assert where == place
    assert what.startswith(problem)


def test_a_byte_order_mark_is_passed_over() -> None:
    assert plain(parse(b"\xef\xbb\xbfa: 1\n", FILE).root) == {"a": 1}


def test_a_file_that_is_not_utf_8_is_refused_with_the_line() -> None:
    place, problem, advice = refusal(b"a: 1\nb: caf\xe9\n")
    assert place == "holdfast.yaml:2"
    assert problem == "is not UTF-8 text from here on"
    assert advice == "save the file as UTF-8"
    assert refusal("a: 1\n".encode("utf-16"))[1] == "is not UTF-8 text from here on"


def test_a_very_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_bytes(b"a: 1\n" + b"#" * LARGEST_FILE)
    with pytest.raises(ConfigInvalid, match="is larger than 1024 KiB") as caught:
        read(path)
    assert caught.value.fields["place"] == str(path)


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_bytes(b"a: 1\n" + b"#" * (LARGEST_FILE - 5))
    assert plain(read(path).root) == {"a": 1}


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read: Is a directory"):
        read(tmp_path)


def test_a_name_with_nul_in_it_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read(Path("a\0b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; see the next test")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("a: 1\n")
    path.chmod(0)
    with pytest.raises(ConfigInvalid, match="cannot be read: Permission denied"):
        read(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("a: 1\n")
    path.chmod(0o600)
    tmp_path.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from holdfast.config.document import read\n"
        "from holdfast.errors import ConfigInvalid\n"
        "import ruamel.yaml\n"
        "file = os.open(sys.argv[1], os.O_PATH); os.setuid(65534)\n"
        "try: read(Path(f'/proc/self/fd/{file}'))\n"
        "except ConfigInvalid as error: print(error.fields['problem'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "cannot be read: Permission denied\n"


def test_values_stay_out_of_what_is_shown_of_a_document() -> None:
    assert "hunter2" not in repr(parse(b"password: hunter2\n", FILE).root)
