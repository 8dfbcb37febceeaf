from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.config.load import Found
from holdfast.config.show import Setting, documents, mask, render, settings
from holdfast.errors import ConfigInvalid
from tests.config_world import FILE, SMALL, VAULTS, examined

FOUND = Found(FILE, "folder")


def shown(text: str, environment: dict[str, str] | None = None) -> dict[str, Setting]:
    return {s.key: s for s in settings(examined(text, environment), FOUND)}


def test_every_value_has_its_origin() -> None:
    lines = shown(SMALL + "plans: {n: {rpo: 24h, keep: {daily: 30d}}}\n")
    assert lines["stack"] == Setting("stack", "brain", "file", "holdfast.yaml:1")
    assert lines["state"] == Setting("state", str(Path.cwd() / ".holdfast"), "default")
    path = str(Path.cwd() / "data/projects.db")
    key = "components.projects.path"
    assert lines[key] == Setting(key, path, "file", "holdfast.yaml:3")
    assert lines["components.projects.timeout"].value == 60.0
    assert lines["components.projects.timeout"].origin == "default"
    assert lines["components.projects.rebuildable"].value is False
    assert (lines["plans.n.rpo"].value, lines["plans.n.rpo"].origin) == ("1d", "file")
    assert lines["plans.n.keep.daily"].value == "30d"
    assert lines["plans.n.components"].value == "all"
    assert lines["services.health_timeout"].value == "1m"


@pytest.mark.parametrize(
    ("origin", "setting"),
    [
        ("flag", Setting("config", "holdfast.yaml", "flag", reference="--config")),
        (
            "environment",
            Setting("config", "holdfast.yaml", "environment", reference="HOLDFAST_CONFIG"),
        ),
        ("folder", Setting("config", "holdfast.yaml", "default")),
    ],
)
def test_the_file_itself_has_an_origin_too(origin: str, setting: Setting) -> None:
    assert settings(examined(SMALL), Found(FILE, origin))[0] == setting


SECRETS = (
    "stack: x\n"
    + VAULTS
    + """\
components:
  a:
    source: server
    url: "https://me:hunter2@host/x?token=hunter2&page=3"
    password: hunter2
  b:
    source: server
    url: "${env:URL}"
    port: "${env:PORT:-6543}"
    password: "${file:/no/such/hunter2-file}"
  token_cache: {source: server, url: plain}
services:
  stop: [stop, --password, hunter2, --verbose, --api-key=hunter2, "${env:URL}", -p, "x"]
hooks:
  on_error: [curl, "https://h/?access_key=hunter2"]
"""
)


def test_secrets_are_masked_whatever_way_they_come() -> None:
    lines = shown(SECRETS, {"URL": "hunter2"})
    assert "hunter2" not in render(list(lines.values())).replace("hunter2-file", "")
    assert lines["components.a.url"].value == "https://me:***@host/x?token=***&page=3"
    assert lines["components.a.password"].value == "***"
    assert lines["components.b.url"].value == "***"
    assert lines["components.b.url"].origin == "environment"
    assert lines["components.b.url"].reference == "${env:URL}"
    assert lines["components.b.port"].value == "***"
    assert lines["components.b.password"].value == "***"
    assert lines["components.b.password"].origin == "file"
    stop = ["stop", "--password", "***", "--verbose", "--api-key=***", "***", "-p", "x"]
    assert lines["services.stop"].value == stop
    # The name of a component is no key: nothing is hidden because of it.
    assert lines["components.token_cache.url"].value == "plain"


def test_an_empty_password_is_shown_as_such() -> None:
    lines = shown(
        SMALL.replace("{source: sqlite, path: data/projects.db}", "{source: server, url: x}")
    )
    assert lines["components.projects.password"].value == ""


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://brain:pw@localhost/k", "postgresql://brain:***@localhost/k"),
        ("redis://:p:w/x@localhost:6379", "redis://:***@localhost:6379"),
        ("http://localhost:8000/a?b", "http://localhost:8000/a?b"),
        ("password=x; user=y", "password=***; user=y"),
        ("SELECT id FROM tokens", "SELECT id FROM tokens"),
    ],
)
def test_passwords_in_urls_and_arguments_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_text_has_one_line_for_each_value() -> None:
    text = render(settings(examined(SMALL), FOUND))
    assert text.startswith(
        'config = "holdfast.yaml"  # default\nstack = "brain"  # holdfast.yaml:1\n'
    )
    assert "components.projects.rebuildable = false  # default\n" in text


def test_json_has_every_field() -> None:
    first = documents(settings(examined(SMALL), FOUND))[1]
    assert first == {
        "key": "stack",
        "value": "brain",
        "origin": "file",
        "place": "holdfast.yaml:1",
        "reference": "",
        "env_file": "",
    }


def test_a_file_with_problems_is_not_shown() -> None:
    with pytest.raises(ConfigInvalid):
        settings(examined("stack: 1\n"), FOUND)


def test_checks_are_shown_one_by_one() -> None:
    lines = shown(SMALL + "checks:\n  - {name: a, component: projects, sql: SELECT 1}\n")
    assert lines["checks[0].sql"] == Setting("checks[0].sql", "SELECT 1", "file", "holdfast.yaml:6")
