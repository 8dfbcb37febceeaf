"""Compose files and .env as they are found: read as compose reads them, or left out and said."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.sources._compose import Project, Service, Survey, image_name, survey
from holdfast.sources._compose_addresses import place_of, secret_of, secret_of_service
from holdfast.sources._compose_files import LARGEST
from holdfast.sources._compose_ports import Port, read_ports
from holdfast.sources._compose_yaml import read_yaml


def look(folder: Path, **environment: str) -> Survey:
    return survey(folder, environment)


def project(folder: Path, compose: str = "", env: str = "", **environment: str) -> Project:
    if compose:
        (folder / "compose.yaml").write_text(compose)
    if env:
        (folder / ".env").write_text(env)
    found = look(folder, **environment)
    assert found.left_out == ()
    [one] = found.projects
    return one


def service(folder: Path, keys: str, env: str = "", **environment: str) -> Service:
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    [one] = project(folder, f"services:\n  db:\n{lines}", env, **environment).services
    return one


# --- YAML ---


def test_all_values_are_text_and_tags_are_passed_over() -> None:
    text = "a: &x {k: 1, no: no, p: 22:22}\nb: {<<: *x, k: !override '2', n: , m: !reset [3]}\n"
    assert read_yaml(text) == {
        "a": {"k": "1", "no": "no", "p": "22:22"},
        "b": {"k": "2", "no": "no", "p": "22:22", "n": None, "m": None},
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "line 1 is not YAML"),
        ("a: 1\n\t- b", "line 2 is not YAML"),
        ("a: \0", "line 1 is not YAML"),
        ("[" * 5000, "line 1 is nested too deeply"),
        ("a: '\\x'\nb: \"\\x\"", "line 2 is not YAML"),
    ],
)
def test_what_is_not_yaml_is_said_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="line") as caught:
        read_yaml(text)
    assert str(caught.value) == problem


def test_aliases_of_aliases_cost_nothing() -> None:
    doubled = "".join(f"k{n}: &k{n} {{<<: [*k{n - 1}, *k{n - 1}], l: [*k{n - 1}, *k{n - 1}]}}\n"
                      for n in range(1, 60))  # fmt: skip
    began = time.monotonic()
    assert read_yaml("k0: &k0 {a: 1}\n" + doubled)
    assert time.monotonic() - began < 5


@settings(max_examples=300, deadline=None, print_blob=True)
@given(st.text("ab:-?[]{}&*!|>'\"#\n ,", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_yaml(text)
    except ValueError as error:
        assert "line " in str(error)  # noqa: PT017 - most texts are refused, and some are not


# --- ports ---


@pytest.mark.parametrize(
    ("written", "ports"),
    [
        ("5432:5432", [Port(5432, 5432)]),
        ("5433:5432/tcp", [Port(5432, 5433)]),
        ("127.0.0.1:5433:5432", [Port(5432, 5433, "127.0.0.1")]),
        ("0.0.0.0:5433:5432", [Port(5432, 5433)]),
        ("[::1]:5433:5432", [Port(5432, 5433, "[::1]")]),
        ("127.0.0.1::5432", [Port(5432, None, "127.0.0.1")]),
        ("5432", [Port(5432, None)]),
        ("9000-9001:9000-9001", [Port(9000, 9000), Port(9001, 9001)]),
        ("8000-8001:80", [Port(80, None)]),
        ("53:53/udp", []),
        ("${PORT:-6543}:5432", [Port(5432, 6543)]),
        ("70000:5432", [Port(5432, None)]),
        ("1-65535:1-65535", []),
        ("9-1:5432", [Port(5432, None)]),
        ("nonsense", []),
        ("", []),
        ({"target": "5432", "published": "5433", "host_ip": "127.0.0.1", "protocol": "tcp"},
         [Port(5432, 5433, "127.0.0.1")]),
        ({"target": "5432"}, [Port(5432, None)]),
        ({"target": "53", "published": "53", "protocol": "udp"}, []),
        ({"published": "53"}, []),
        (None, []),
        (["a list"], []),
    ],
)  # fmt: skip
def test_ports_are_read_in_every_form(written: object, ports: list[Port]) -> None:
    def text(value: str) -> str:
        return value.replace("${PORT:-6543}", "6543")

    assert list(read_ports([written], text)) == ports  # type: ignore[list-item]


def test_a_service_is_reached_where_its_port_is_published(tmp_path: Path) -> None:
    found = service(tmp_path, "ports: ['9:9', '127.0.0.1:5433:5432', '5432:5432']")
    assert place_of(found, 5432).netloc == "127.0.0.1:5433"
    assert place_of(found, 5432).remark == ""
    assert place_of(service(tmp_path, "ports: ['[::1]:1:5432']"), 5432).netloc == "[::1]:1"


def test_a_service_on_the_hosts_network_is_reached_directly(tmp_path: Path) -> None:
    place = place_of(service(tmp_path, "network_mode: host"), 5432)
    assert (place.netloc, place.remark) == ("localhost:5432", "")


def test_a_service_that_publishes_nothing_says_what_to_do(tmp_path: Path) -> None:
    place = place_of(service(tmp_path, "image: postgres"), 5432)
    line = '`ports: ["127.0.0.1:5432:5432"]` in compose.yaml'
    assert (place.netloc, place.remark) == (
        "localhost:5432",
        f"db publishes no port: give it {line}",
    )
    remark = place_of(service(tmp_path, "ports: ['5432']"), 5432).remark
    assert remark == f"db publishes its port under a number that changes: give it {line}"


# --- files ---


@pytest.mark.parametrize(
    "name", ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"]
)
def test_the_usual_names_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("services: {db: {image: 'postgres:16'}}")
    [found] = look(tmp_path).projects[0].services
    assert (found.name, found.image, found.file) == ("db", "postgres", name)


def test_of_two_usual_files_compose_takes_the_first(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {db: {image: new}}")
    (tmp_path / "docker-compose.yml").write_text("services: {db: {image: old}, more: {image: m}}")
    images = {s.name: s.image for s in look(tmp_path).projects[0].services}
    assert images == {"db": "new", "more": "m"}


def test_an_override_is_said_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(
        "services: {db: {image: a, ports: ['1:5432'], environment: {A: a, B: b}, command: x}}"
    )
    (tmp_path / "docker-compose.override.yml").write_text(
        "services: {db: {image: b, ports: ['2:5432'], environment: [A=override]}}"
    )
    [found] = look(tmp_path).projects[0].services
    assert found.image == "b"
    assert place_of(found, 5432).port == 2
    assert {name: value.text for name, value in found.environment.items()} == {
        "A": "override",
        "B": "b",
    }
    assert [word.text for word in found.command] == ["x"]


def test_an_override_may_take_ports_away(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {db: {ports: ['1:5432']}}")
    (tmp_path / "compose.override.yaml").write_text("services: {db: {ports: !reset []}}")
    assert look(tmp_path).projects[0].services[0].ports == ()


def test_another_variant_only_says_what_the_main_file_does_not(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(
        "services: {db: {image: a, environment: {A: a}}, web: {ports: ['80:80']}}"
    )
    (tmp_path / "docker-compose.dev.yml").write_text(
        "services: {db: {image: b, ports: ['2:5432'], environment: {A: x, B: b}},"
        " web: {ports: ['81:80']}}"
    )
    db, web = look(tmp_path).projects[0].services
    assert (db.image, place_of(db, 5432).port, place_of(web, 80).port) == ("a", 2, 80)
    assert {name: value.text for name, value in db.environment.items()} == {"A": "a", "B": "b"}


def test_compose_file_names_the_files(tmp_path: Path) -> None:
    (tmp_path / "ops").mkdir()
    (tmp_path / "compose.yaml").write_text("services: {db: {image: other}}")
    (tmp_path / "ops/base.yml").write_text("services: {db: {image: a, ports: ['1:5432']}}")
    (tmp_path / "ops/prod.yml").write_text("services: {db: {image: b}}")
    (tmp_path / ".env").write_text("COMPOSE_FILE=ops/base.yml:ops/prod.yml\n")
    [found] = look(tmp_path).projects[0].services
    assert (found.image, found.file) == ("b", "ops/prod.yml")
    (tmp_path / ".env").write_text("COMPOSE_FILE=ops/base.yml,gone\nCOMPOSE_PATH_SEPARATOR=,\n")
    separated = look(tmp_path)
    assert separated.projects[0].services[0].image == "a"
    assert separated.left_out == ("gone: does not exist",)


def test_a_file_that_is_named_is_not_found_once_more_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/compose.yaml").write_text("services: {db: {ports: ['$PORT:5432']}}")
    (tmp_path / ".env").write_text("COMPOSE_FILE=infra/compose.yaml\nPORT=5433\n")
    [one] = look(tmp_path).projects
    assert place_of(one.services[0], 5432).port == 5433


def test_folders_below_are_looked_at_but_not_those_of_tools_and_backups(tmp_path: Path) -> None:
    for name in ("infra/docker", "node_modules/x", ".git", "old", "a/b/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "compose.yaml").write_text("services: {db: {image: i}}")
    (tmp_path / "old/.holdfast").mkdir()
    folders = [str(one.folder.relative_to(tmp_path)) for one in look(tmp_path).projects]
    assert folders == ["infra/docker"]


def test_a_file_in_a_folder_below_is_named_from_the_top(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/compose.yaml").write_text("services: {db: {environment: {P: '${SECRET}'}}}")
    (tmp_path / "infra/.env").write_text("SECRET=hunter2\n")
    [one] = look(tmp_path).projects
    assert one.services[0].file == "infra/compose.yaml"
    secret = secret_of_service(one, one.services[0], "P")
    assert secret is not None
    assert (secret.reference, secret.env_file) == ("${env:SECRET}", "infra/.env")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"services: [", "line 1 is not YAML"),
        (b"services: {db: {image: '\xff'}}", "is not UTF-8 text"),
        (b"#" * (LARGEST + 1), "is larger than 256 KiB"),
        (b"", "declares no services"),
        (b"services: 7", "declares no services"),
        (b"- a list", "declares no services"),
        (b"services: {db: {image: a, ports: ['${A'], command: '${B:-" + b"x" * 70000 + b"}'}}",
         None),
    ],
)  # fmt: skip
def test_a_broken_file_is_left_out_and_said(
    tmp_path: Path, content: bytes, reason: str | None
) -> None:
    (tmp_path / "compose.yaml").write_bytes(content)
    (tmp_path / ".env").write_text("A=1\n")
    found = look(tmp_path)
    assert len(found.projects) == 1  # what can be read, is
    if reason:
        assert found.left_out == (f"compose.yaml: {reason}",)
    else:
        [line] = found.left_out
        assert line.startswith(".: service db: its variables make it longer")


@pytest.mark.parametrize(
    "services",
    [
        "{db: }",
        "{db: text}",
        "{db: [list]}",
        "{1: {image: [a]}}",
        "{db: {image: {a: b}, ports: {a: b}, environment: text, volumes: text, command: {a: b}}}",
        "{db: {ports: [[], {}, {target: []}], environment: [[], {}], env_file: [{}, {path: }]}}",
        "{db: {volumes: [{}, [], ':', 'a', {source: []}], networks: {a: , b: {aliases: text}}}}",
        "{db: {command: [[], {}, \"'\"], entrypoint: \"it's\", image: '///::@@'}}",
        "{db: {image: ''}}",
    ],
)
def test_any_form_of_a_service_is_borne(tmp_path: Path, services: str) -> None:
    (tmp_path / "compose.yaml").write_text(f"services: {services}\nsecrets: [a]\n")
    look(tmp_path)


def test_a_pipe_does_not_stop_the_search(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    os.mkfifo(tmp_path / "compose.yaml")
    assert look(tmp_path).left_out == (".env: is not a file", "compose.yaml: is not a file")


def test_files_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside.yml").write_text("services: {db: {image: a}}")
    (tmp_path / "inside/.env").write_text("COMPOSE_FILE=../outside.yml\n")
    found = look(tmp_path / "inside")
    assert found.left_out == ("../outside.yml: lies outside of the folder that is searched",)


def test_a_broken_env_file_is_left_out_without_its_content(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PASSWORD='hunter2\n")
    found = look(tmp_path)
    assert found.projects == ()
    assert found.left_out == (".env: line 1: a quote is not closed",)


def test_links_that_lead_in_circles_are_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / ".env").symlink_to(".env")
    assert look(tmp_path).left_out == (".env: Too many levels of symbolic links",)


# --- variables ---


def test_variables_come_from_the_environment_then_from_the_file(tmp_path: Path) -> None:
    keys = "image: '${A}/${B:-b}/$$C'\nenvironment: {X: '$A', EMPTY: }"
    found = service(tmp_path, keys, "A=file\nEMPTY=handed-on\n")
    assert found.image == "file/b/$c"
    assert found.text("X") == "file"
    assert found.text("EMPTY") == "handed-on"
    assert service(tmp_path, keys, A="outside").text("X") == "outside"


def test_env_files_of_a_service_stand_behind_its_environment(tmp_path: Path) -> None:
    (tmp_path / "db.env").write_text("A=from-file\nB=${TOP}\n")
    (tmp_path / "more.env").write_text("C=c\n")
    keys = "env_file: [db.env, {path: more.env}, gone.env]\nenvironment: [A=own]"
    found = service(tmp_path, keys, "TOP=top\n")
    texts = {name: value.text for name, value in found.environment.items()}
    assert texts == {"A": "own", "B": "top", "C": "c"}
    assert found.environment["C"].file == "more.env"


def test_values_are_not_shown(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        "services: {db: {environment: {P: hunter2}, command: [--requirepass, hunter2]}}",
        "Q=hunter2\n",
    )
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("postgres", "postgres"),
        ("postgres:16-alpine@sha256:00", "postgres"),
        ("docker.io/library/postgres:16", "postgres"),
        ("ghcr.io/chroma-core/chroma:1.0", "chroma-core/chroma"),
        ("localhost:5000/Team/Redis", "team/redis"),
        ("quay.io/minio/minio", "minio/minio"),
        ("", ""),
    ],
)
def test_an_image_is_known_by_its_name(image: str, name: str) -> None:
    assert image_name(image) == name


# --- secrets ---


def reference(found: Project, name: str) -> tuple[str, str, str]:
    [one] = found.services
    secret = secret_of_service(found, one, name)
    assert secret is not None
    assert "hunter2" not in repr(secret)
    return secret.reference, secret.env_file, secret.remark


def test_a_secret_is_referred_to_by_the_variable_of_the_stacks_own_file(tmp_path: Path) -> None:
    compose = "services: {db: {environment: {P: '${DB_PASSWORD:?set it}'}}}"
    found = project(tmp_path, compose, "DB_PASSWORD=hunter2\n")
    assert reference(found, "P") == ("${env:DB_PASSWORD}", ".env", "")


def test_a_secret_in_an_env_file_of_the_service_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "db.env").write_text("P=hunter2\n")
    found = project(tmp_path, "services: {db: {env_file: db.env}}")
    assert reference(found, "P") == ("${env:P}", "db.env", "")


def test_a_secret_in_the_compose_file_itself_is_to_be_set(tmp_path: Path) -> None:
    found = project(tmp_path, "services: {db: {environment: {P: hunter2}}}")
    remark = "set P to the value that compose.yaml has"
    assert reference(found, "P") == ("${env:P}", "", remark)


def test_a_default_in_the_compose_file_is_to_be_set_too(tmp_path: Path) -> None:
    found = project(tmp_path, "services: {db: {environment: {P: '${PASS:-hunter2}'}}}")
    remark = "set PASS to the value that compose.yaml has"
    assert reference(found, "P") == ("${env:PASS}", "", remark)


def test_a_name_that_means_something_else_already_is_not_taken(tmp_path: Path) -> None:
    compose = "services: {db: {environment: {P: hunter2}}}"
    found = project(tmp_path, compose, "P=something else\n")
    remark = "set DB_P to the value that compose.yaml has"
    assert reference(found, "P") == ("${env:DB_P}", "", remark)


def test_two_services_with_their_own_passwords_are_told_apart(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        "services:\n  one: {environment: {P: hunter2-1}}\n  two: {environment: {P: hunter2-2}}\n",
    )
    secrets = [secret_of_service(found, service, "P") for service in found.services]
    assert [secret and secret.reference for secret in secrets] == ["${env:ONE_P}", "${env:TWO_P}"]


def test_one_name_with_two_values_is_not_confused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "compose.yaml").write_text(
            "services: {db: {environment: {P: '${PASS}'}}}"
        )
        (tmp_path / name / ".env").write_text(f"PASS=hunter2-{name}\n")
    for found in look(tmp_path).projects:
        said, file, remark = reference(found, "P")
        name = f"{found.folder.name}_DB_PASS".upper()
        assert (said, file) == (f"${{env:{name}}}", "")
        assert remark.startswith(f"set {name} to the value that ")


def test_an_env_file_whose_name_means_two_things_is_not_confused_either(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "compose.yaml").write_text("services: {db: {env_file: db.env}}")
        (tmp_path / name / "db.env").write_text(f"P=hunter2-{name}\n")
    for found in look(tmp_path).projects:
        folder = found.folder.name
        name = f"{folder}_DB_P".upper()
        remark = f"set {name} to the value that {folder}/db.env has"
        assert reference(found, "P") == (f"${{env:{name}}}", "", remark)


def test_a_secret_file_of_compose_is_referred_to_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/compose.yaml").write_text(
        "services: {db: {environment: {P_FILE: /run/secrets/pass, Q_FILE: /etc/q}}}\n"
        "secrets: {pass: {file: ./keys/pass.txt}, var: {environment: VAR}}\n"
    )
    [found] = look(tmp_path).projects
    assert reference(found, "P") == ("${file:infra/keys/pass.txt}", "", "")
    assert found.secrets["var"] == "${env:VAR}"
    assert reference(found, "Q") == ("${env:Q}", "", "set Q to what is in the Q_FILE of db")


def test_nothing_is_referred_to_where_there_is_no_secret(tmp_path: Path) -> None:
    found = project(tmp_path, "services: {db: {environment: {P: ''}}}")
    assert secret_of_service(found, found.services[0], "P", "Q") is None
    assert secret_of(found, None) is None
