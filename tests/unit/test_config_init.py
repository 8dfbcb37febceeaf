from __future__ import annotations

import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.config.document import parse, plain
from holdfast.config.init import init, local_timezone, write_value
from holdfast.config.load import load
from holdfast.errors import StateUnwritable, UsageInvalid
from holdfast.model.facts import Discovery
from holdfast.runtime.registry import SOURCES, discoveries, kinds
from tests.config_world import KINDS

FOUND = [
    Discovery("projects", "sqlite", {"path": "data/projects.db"}, "12 tables"),
    Discovery("uploads", "files", {"path": "data", "exclude": ["*.tmp"]}),
]


def test_the_file_is_valid_and_declares_what_was_found(tmp_path: Path) -> None:
    made = init(tmp_path, FOUND, KINDS)
    assert made.path == tmp_path / "holdfast.yaml"
    assert made.path.read_text("utf-8") == made.text
    stack = load(made.path, KINDS, {})
    assert set(stack.components) == {"projects", "uploads"}
    assert stack.components["projects"].options.path == tmp_path / "data/projects.db"
    assert stack.components["uploads"].options.exclude == ["*.tmp", "/projects.db*"]
    assert stack.vaults["local"].options.url == tmp_path / "backups"
    plan = stack.plans["nightly"]
    assert (plan.schedule, plan.verify, plan.components) == ("0 2 * * *", "checksums", None)
    assert plan.keep is not None
    assert "holdfast backup" in made.hint
    assert "projects: sqlite data/projects.db  (12 tables)" in made.summary
    assert made.document["config"] == str(made.path)


def test_secrets_are_referred_to_and_found_in_the_stacks_own_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DB_PASSWORD=hunter2\n")
    server = Discovery(
        "db",
        "server",
        {"url": "http://localhost", "tags": ["${env:NOT_A_REFERENCE}"]},
        "publish its port; then set OTHER to the value that compose.yaml has; and more",
        {"password": "${env:DB_PASSWORD}"},
        (".env",),
    )
    made = init(tmp_path, [server], KINDS)
    assert "hunter2" not in made.text
    assert "\nenv_file: .env\n" in made.text
    assert '    password: "${env:DB_PASSWORD}"\n' in made.text
    remarks = "  # publish its port\n  # then set OTHER to the value that compose.yaml has\n"
    assert remarks + "  # and more\n  db:\n" in made.text
    options = load(made.path, KINDS, {}).components["db"].options
    assert options.password == "hunter2"
    assert options.tags == ["${env:NOT_A_REFERENCE}"]


def test_files_of_variables_are_a_list_where_there_are_several(tmp_path: Path) -> None:
    stores = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.env").write_text(f"{name}=hunter2\n")
        references = {"password": f"${{env:{name}}}"}
        url = {"url": f"http://{name}"}
        stores.append(Discovery(name, "server", url, "", references, (f"{name}.env",)))
    made = init(tmp_path, stores, KINDS)
    assert "\nenv_file: [one.env, two.env]\n" in made.text
    assert load(made.path, KINDS, {}).components["two"].options.password == "hunter2"


def test_every_section_of_the_file_is_explained(tmp_path: Path) -> None:
    lines = init(tmp_path, FOUND, KINDS).text.splitlines()
    (tmp_path / ".env").touch()
    server = Discovery("db", "server", {"url": "h"}, env_files=(".env",))
    lines += init(tmp_path, [server], KINDS, force=True).text.splitlines()
    for number, line in enumerate(lines):
        if line and not line.startswith((" ", "#")):
            above = lines[number - 1]
            assert above.startswith("# "), f"nothing explains {line!r}"
    assert "    source: sqlite                 # 12 tables" in lines


def test_the_commented_examples_are_valid_too(tmp_path: Path) -> None:
    """What a newcomer gets by taking away the `#` in front of examples must be right."""
    text = init(tmp_path, FOUND, KINDS).text
    live = []
    for line in text.splitlines():
        example = line.startswith(("# checks:", "# services:", "# hooks:", "#   "))
        live.append(line[2:] if example else line)
    (tmp_path / "all.yaml").write_text("\n".join(live).replace("database", "projects"))
    stack = load(tmp_path / "all.yaml", KINDS, {})
    assert stack.checks
    assert stack.services.health
    assert stack.hooks.on_error


def test_without_stores_an_example_stands_ready(tmp_path: Path) -> None:
    made = init(tmp_path, [], KINDS)
    assert "no stores were found here" in made.hint
    values = plain(parse(made.text.encode(), made.path).root)
    assert "components" not in values
    lines = made.text.splitlines()
    first = lines.index("# components:")
    last = lines.index("", first)
    lines[first:last] = [line[2:] for line in lines[first:last]]
    (tmp_path / "holdfast.yaml").write_text("\n".join(lines))
    secrets = {"POSTGRES_PASSWORD": "p", "S3_ACCESS_KEY": "k", "S3_SECRET_KEY": "s"}
    stack = load(tmp_path / "holdfast.yaml", kinds(), secrets)
    assert {c.source for c in stack.components.values()} == set(SOURCES)


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = init(tmp_path, FOUND, KINDS).path
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["holdfast.yaml"]  # noqa: PTH208 - hidden files count as well


def test_a_file_that_is_there_is_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("mine")
    with pytest.raises(UsageInvalid, match="exists already; --force replaces it"):
        init(tmp_path, FOUND, KINDS)
    assert path.read_text() == "mine"
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UsageInvalid):
        init(tmp_path, FOUND, KINDS)


def test_force_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("mine")
    path.chmod(0o644)
    init(tmp_path, FOUND, KINDS, force=True)
    assert path.read_text().startswith("# What Holdfast backs up")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_of_several_at_once_one_wins_and_the_others_are_told(tmp_path: Path) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def race() -> None:
        start.wait()
        try:
            outcomes.append(init(tmp_path, FOUND, KINDS).text)
        except UsageInvalid:
            outcomes.append("refused")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[1:] == ["refused"] * 7
    assert (tmp_path / "holdfast.yaml").read_text() == min(outcomes)
    assert len(os.listdir(tmp_path)) == 1  # noqa: PTH208 - hidden files count as well


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StateUnwritable, match="cannot be written: No such file or directory"):
        init(tmp_path / "none", FOUND, KINDS)


def test_the_vault_never_holds_a_store_nor_lies_in_one(tmp_path: Path) -> None:
    cases = {
        "backups/old.db": "holdfast-backups",
        "backups": "holdfast-backups",
        "app/backups": "backups",
    }
    for path, folder in cases.items():
        made = init(tmp_path, [Discovery("a", "files", {"path": path})], KINDS, force=True)
        assert load(made.path, KINDS, {}).vaults["local"].options.url == tmp_path / folder
    everything = Discovery("a", "files", {"path": ".", "exclude": [".holdfast/"]})
    made = init(tmp_path, [everything], KINDS, force=True)
    vault = load(made.path, KINDS, {}).vaults["local"].options.url
    assert vault == tmp_path / f"../{tmp_path.name}-backups"


def test_a_real_application_is_found_and_described(tmp_path: Path) -> None:
    folder = tmp_path / "my app ${env:HOME}"
    (folder / "data/uploads").mkdir(parents=True)
    (folder / "data/uploads/photo.jpg").write_bytes(b"x")
    for name in ("data/app.db", 'data/it\'s: a #1 "db".db', "data/${env:HOME}.db"):
        with sqlite3.connect(folder / name) as connection:
            connection.execute("CREATE TABLE t (a)")
        connection.close()
    made = init(folder, discoveries(folder), kinds())
    stack = load(made.path, kinds(), {})
    paths = {spec.options.path for spec in stack.components.values() if spec.options.path}
    assert paths == {
        folder / "data/app.db",
        folder / 'data/it\'s: a #1 "db".db',
        folder / "data/${env:HOME}.db",
        folder / "data/uploads",
    }


def test_init_again_does_not_take_backups_for_stores(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    (tmp_path / "backups/.holdfast").mkdir(parents=True)
    (tmp_path / "backups/b1").mkdir()
    (tmp_path / "backups/b1/app.db").write_bytes((tmp_path / "app.db").read_bytes())
    made = init(tmp_path, discoveries(tmp_path), kinds())
    assert [component.name for component in made.proposal.components] == ["app"]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=300, deadline=None, print_blob=True)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab: #'\"\n"), inner),
        max_leaves=6,
    )
)
def test_any_value_is_written_so_that_it_is_read_alike(value: object) -> None:
    read = plain(parse(f"key: {write_value(value)}\n".encode(), Path("f")).root)["key"]
    assert read == escaped(value)


def escaped(value: object) -> object:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [escaped(child) for child in value]
    if isinstance(value, dict):
        return {key: escaped(child) for key, child in value.items()}
    return value


def test_the_machines_own_time_zone_is_proposed(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Seoul")
    assert local_timezone(link) == "Asia/Seoul"
    link.unlink()
    assert local_timezone(link) == "UTC"
    link.symlink_to("/usr/share/zoneinfo/Not/There")
    assert local_timezone(link) == "UTC"
