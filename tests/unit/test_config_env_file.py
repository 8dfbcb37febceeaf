from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from holdfast.config.kinds import Kinds
from holdfast.config.load import Found, load
from holdfast.config.reference import json_schema, render
from holdfast.config.show import Setting, settings
from holdfast.config.show import render as show
from holdfast.errors import ConfigInvalid, SecretMissing
from tests.config_world import KINDS, VAULTS, ServerOptions, examined

SERVER = """\
stack: brain
components:
  db: {source: server, url: h, password: "${env:PASSWORD}"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / ".env").write_text("PASSWORD=from-the-file\nOTHER=x\n")
    return tmp_path / "holdfast.yaml"


def written(file: Path, env_file: str) -> Path:
    file.write_text(SERVER + VAULTS + f"env_file: {env_file}\n")
    return file


def password(file: Path, **environment: str) -> str:
    return str(load(file, KINDS, environment).components["db"].options.password)


def test_a_reference_is_found_in_the_stacks_own_file(file: Path) -> None:
    assert password(written(file, ".env")) == "from-the-file"


def test_the_real_environment_wins(file: Path) -> None:
    assert password(written(file, ".env"), PASSWORD="from-outside") == "from-outside"


def test_of_several_files_the_later_one_wins(file: Path) -> None:
    (file.parent / "more").mkdir()
    (file.parent / "more/db.env").write_text("PASSWORD=${OTHER}-later\n")
    assert password(written(file, "[.env, more/db.env]")) == "x-later"
    assert password(written(file, "[more/db.env, .env]")) == "from-the-file"


def test_the_path_may_itself_be_a_reference(file: Path) -> None:
    assert password(written(file, '"${env:WHERE}/.env"'), WHERE=str(file.parent)) == "from-the-file"


def test_a_variable_in_no_file_is_still_missing(file: Path) -> None:
    (file.parent / ".env").write_text("# nothing here\n")
    with pytest.raises(SecretMissing, match="PASSWORD"):
        password(written(file, ".env"))


def test_without_the_option_no_file_is_read(file: Path) -> None:
    file.write_text(SERVER + VAULTS)
    with pytest.raises(SecretMissing):
        password(file)


def problem(file: Path) -> tuple[str, str, str]:
    with pytest.raises(ConfigInvalid) as caught:
        load(file, KINDS, {})
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    fields = caught.value.fields
    return fields["place"], fields["problem"], fields["advice"]


def test_a_missing_file_is_an_error_that_names_it(file: Path) -> None:
    gone = file.parent / "gone.env"
    place, text, advice = problem(written(file, "gone.env"))
    assert place == f"{file}:5 env_file"
    assert text == f"{gone} cannot be read: No such file or directory"
    assert advice == "create it, or take it out of `env_file`"
    assert problem(written(file, "[.env, gone.env]"))[0] == f"{file}:5 env_file[1]"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PASSWORD='hunter2", "line 1: a quote is not closed"),
        (b"A=1\nhunter2 hunter2\n", "line 2: there is no NAME=value"),
        (b"PASSWORD=hunter2 \xff", "the file is not UTF-8 text"),
        (b"PASSWORD=hunter2\0", "the file has a NUL byte in it"),
        (b"A=1\n" * (1 << 18) + b"B", "the file is larger than 1024 KiB"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_without_its_content(
    file: Path, content: bytes, reason: str
) -> None:
    (file.parent / "bad.env").write_bytes(content)
    assert problem(written(file, "bad.env"))[1].endswith(f"bad.env cannot be read: {reason}")


@pytest.mark.parametrize(
    ("env_file", "text"),
    [
        ("7", "must be a list"),
        ("{a: b}", "must be a list"),
        ("[1]", "must be a path"),
        ('""', "is empty"),
        ('"${env:NO_SUCH"', "has a ${ that begins no reference"),
    ],
)
def test_what_names_no_file_is_refused(file: Path, env_file: str, text: str) -> None:
    assert problem(written(file, env_file))[1] == text


def test_an_unreadable_file_hides_no_other_problem(file: Path) -> None:
    file.write_text("env_file: gone.env\n" + SERVER + VAULTS + "plans: {p: {vaults: [none]}}\n")
    found = examined(file.read_text(), path=file)
    assert len(found.problems) == 1
    text = file.read_text().replace("source: server", "source: nothing")
    assert len(examined(text, path=file).problems) == 2


def test_it_is_shown_where_a_value_comes_from_and_no_value(file: Path) -> None:
    text = SERVER + VAULTS + "env_file: .env\nhooks: {on_error: ['${env:OTHER}', '${env:HOOK}']}\n"
    found = settings(examined(text, {"HOOK": "hunter2"}, file), Found(file, "folder"))
    lines = {setting.key: setting for setting in found}
    env_file = str(file.parent / ".env")
    assert lines["components.db.password"] == Setting(
        "components.db.password",
        "***",
        "env_file",
        f"{file}:3",
        "${env:PASSWORD}",
        env_file,
    )
    assert lines["env_file"].value == [env_file]
    assert lines["hooks.on_error"].origin == "environment"
    assert lines["hooks.on_error"].env_file == env_file
    assert f"# env_file {env_file} ${{env:PASSWORD}} {file}:3\n" in show(found)
    assert "from-the-file" not in show(found) + repr(examined(text, {}, file))


def test_a_variable_of_the_environment_is_not_said_to_be_the_files(file: Path) -> None:
    text = SERVER + VAULTS + "env_file: .env\n"
    found = settings(examined(text, {"PASSWORD": "hunter2"}, file), Found(file, "folder"))
    [setting] = [one for one in found if one.key == "components.db.password"]
    assert (setting.origin, setting.env_file) == ("environment", "")


def test_a_path_that_a_reference_gave_is_masked_like_any_other(file: Path) -> None:
    text = SERVER + VAULTS + 'env_file: "${env:WHERE}/.env"\n'
    found = settings(examined(text, {"WHERE": str(file.parent)}, file), Found(file, "folder"))
    assert [one.value for one in found if one.key == "env_file"] == [["***"]]


def test_the_schema_and_the_reference_know_it() -> None:
    kinds = Kinds(sources={"server": lambda: ServerOptions}, vaults=KINDS.vaults)
    schema = json_schema(kinds)["properties"]["env_file"]
    assert {form["type"] for form in schema["anyOf"]} == {"string", "array"}
    assert "| `env_file` | path or list of path |" in render(kinds)
