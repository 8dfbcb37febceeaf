from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from holdfast.config.document import parse, plain
from holdfast.config.interpolate import LARGEST_SECRET, Interpolation, Revealed, references
from holdfast.errors import ConfigInvalid, SecretMissing


def reveal(text: str, folder: Path = Path(), **environment: str) -> object:
    document = parse(f"key: {text}\n".encode(), folder / "holdfast.yaml")
    return Interpolation(document, environment).reveal((), plain(document.root))["key"]


def missing(text: str, folder: Path = Path(), **environment: str) -> tuple[str, str, str]:
    with pytest.raises(SecretMissing) as caught:
        reveal(text, folder, **environment)
    fields = caught.value.fields
    return fields["place"], fields["reference"], fields["reason"]


def test_an_environment_variable_takes_the_place_of_its_reference() -> None:
    assert reveal("postgres://${env:USER_}@${env:HOST_}/x", USER_="me", HOST_="h") == (
        "postgres://me@h/x"
    )


def test_a_default_is_used_for_what_is_not_set_or_empty() -> None:
    assert reveal("'${env:X:-a default: of [any] kind}'") == "a default: of [any] kind"
    assert reveal("'${env:X:-}'") == ""
    assert reveal("${env:X:-d}", X="") == "d"
    assert reveal("${env:X:-d}", X="set") == "set"


def test_a_variable_that_is_set_but_empty_is_empty() -> None:
    assert reveal("'${env:X}'", X="") == ""


def test_a_missing_variable_is_named_with_file_line_and_key() -> None:
    assert missing("'${env:NO_SUCH}'") == (
        "holdfast.yaml:1 key",
        "${env:NO_SUCH}",
        "the environment variable is not set",
    )


def test_the_content_of_a_file_takes_the_place_of_its_reference(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret with spaces \n")
    assert reveal(f"${{file:{tmp_path}/secret}}") == "s3cret with spaces "
    assert reveal("${file:secret}", tmp_path) == "s3cret with spaces "


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    reference = f"${{file:{tmp_path}/none}}"
    assert missing(reference) == ("holdfast.yaml:1 key", reference, "No such file or directory")
    assert missing(f"${{file:{tmp_path}}}")[2] == "Is a directory"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"a\0b", "the file has a NUL byte in it"),
        (b"caf\xe9", "the file is not UTF-8 text"),
        (b"x" * (LARGEST_SECRET + 1), "the file is larger than 64 KiB"),
    ],
)
def test_a_file_that_can_be_no_secret_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert missing("${file:secret}", tmp_path)[2] == reason


def test_two_dollars_stand_for_one() -> None:
    assert reveal("$${env:X} $5 $$ $") == "${env:X} $5 $$ $"
    assert reveal("$$${env:X}", X="1") == "$${env:X}"


def test_what_a_reference_gives_is_not_interpreted_again() -> None:
    assert reveal("${env:X}", X="${env:Y} $${ [a, b]") == "${env:Y} $${ [a, b]"


@pytest.mark.parametrize(
    "text",
    ["${X}", "${env:}", "${env:A B}", "${env:X", "${file:}", "${}", "${env:X:default}", "a ${ b"],
)
def test_a_malformed_reference_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        reveal(f"'{text}'", X="1")
    fields = caught.value.fields
    assert fields["place"] == "holdfast.yaml:1 key"
    assert fields["problem"] == "has a ${ that begins no reference"
    assert "${env:NAME:-default}" in fields["advice"]


def test_references_are_named_without_their_defaults() -> None:
    assert references("a ${env:X:-hunter2} ${file:/run/x} $${env:Y}") == (
        "${env:X}",
        "${file:/run/x}",
    )


def test_a_revealed_value_works_as_text_and_is_not_shown() -> None:
    value = reveal("${env:X}", X="hunter2")
    assert isinstance(value, Revealed)
    assert value == "hunter2"
    assert "hunter2" not in repr({"a": [value]})


def test_a_value_without_references_is_plain() -> None:
    assert type(reveal("plain")) is str
    assert type(reveal("$${x}")) is str


def test_no_error_has_a_secret_in_it_or_behind_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"hunter2 \xff")
    with pytest.raises(SecretMissing) as caught:
        reveal("${file:secret}", tmp_path)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    interpolation = Interpolation(parse(b"a: 1", Path("f")), {"X": "hunter2"})
    assert "hunter2" not in repr(interpolation)
