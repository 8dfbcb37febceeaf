from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.config.load import find, load
from holdfast.errors import ConfigInvalid, ConfigMissing, SecretMissing
from holdfast.model.retention import Keep, Span
from holdfast.model.stack import Check, Hooks, Plan, Selector, Services
from tests.config_world import KINDS, SMALL, VAULTS, DatabaseOptions, FolderOptions

WHOLE = """\
stack: brain
state: records

components:
  projects: {source: sqlite, path: data/projects.db, timeout: 5}
  cache: {source: server, url: h, password: "${env:CACHE_PASSWORD}", rebuildable: true}
  uploads:
    source: files
    paths: [data/uploads, /srv/more]
    exclude: ["*.tmp"]

vaults:
  local: {kind: plain, url: backups}

plans:
  nightly:
    schedule: "0 2 * * *"
    timezone: Asia/Seoul
    components: [projects, uploads]
    vaults: all
    keep: {last: 3, hourly: 24h, daily: 30, within: 30d, max_count: 10}
    verify: checksums
    archive: tar.gz
    rpo: 24h
    rto: 1h30m
  weekly: {schedule: weekly}

checks:
  - name: every episode belongs to a project
    component: projects
    sql: SELECT 1
  - name: every chunk has its vector
    left: {component: projects, sql: SELECT 2}
    right: {component: uploads, glob: "*"}
    one_way: true

services:
  stop: [docker, stop, "${env:SERVICE:-api}"]
  health: ["http://localhost:8000/health"]

hooks: {before_backup: [pause]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "holdfast.yaml"
    path.write_text(WHOLE)
    return path


def test_a_whole_file_becomes_a_stack(file: Path) -> None:
    stack = load(file, KINDS, {"CACHE_PASSWORD": "hunter2"})
    folder = file.parent
    assert (stack.name, stack.file, stack.state) == ("brain", file, folder / "records")
    assert list(stack.components) == ["projects", "cache", "uploads"]
    projects = stack.components["projects"]
    assert (projects.name, projects.source, projects.rebuildable) == ("projects", "sqlite", False)
    assert projects.options == DatabaseOptions(path=folder / "data/projects.db", timeout=5)
    assert stack.components["cache"].rebuildable
    assert stack.components["cache"].options.password == "hunter2"
    uploads = FolderOptions(paths=[folder / "data/uploads", Path("/srv/more")], exclude=["*.tmp"])
    assert stack.components["uploads"].options == uploads
    assert stack.vaults["local"].kind == "plain"
    assert stack.vaults["local"].options.url == folder / "backups"
    assert stack.plans == {
        "nightly": Plan(
            name="nightly",
            components=("projects", "uploads"),
            vaults=None,
            keep=Keep(last=3, hourly=Span(24, "h"), daily=30, within=Span(30, "d"), max_count=10),
            verify="checksums",
            archive="tar.gz",
            schedule="0 2 * * *",
            timezone="Asia/Seoul",
            rpo=timedelta(hours=24),
            rto=timedelta(minutes=90),
        ),
        "weekly": Plan(name="weekly", schedule="weekly"),
    }
    assert stack.checks == (
        Check("every episode belongs to a project", component="projects", sql="SELECT 1"),
        Check(
            "every chunk has its vector",
            left=Selector("projects", {"sql": "SELECT 2"}),
            right=Selector("uploads", {"glob": "*"}),
            one_way=True,
        ),
    )
    assert stack.services == Services(
        stop=("docker", "stop", "api"), health=("http://localhost:8000/health",)
    )
    assert stack.hooks == Hooks(before_backup=("pause",))


def test_the_state_is_beside_the_file_by_default(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text(SMALL)
    stack = load(path, KINDS, {})
    assert stack.state == tmp_path / ".holdfast"
    assert stack.plans == {}
    assert stack.services == Services()


def test_relative_paths_start_from_the_file_wherever_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/holdfast.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    stack = load(Path("etc/holdfast.yaml"), KINDS, {})
    assert stack.file == tmp_path / "etc/holdfast.yaml"
    assert stack.components["projects"].options.path == tmp_path / "etc/data/projects.db"


def test_sections_with_nothing_in_them_are_as_good_as_left_out(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text(SMALL + "plans:\nchecks:\n  # - none yet\nservices:\nhooks:\nstate:\n")
    stack = load(path, KINDS, {})
    assert (stack.plans, stack.checks, stack.state) == ({}, (), tmp_path / ".holdfast")


def test_the_first_problem_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "holdfast.yaml"
    path.write_text("stack: 1\nstate: 2\n")
    with pytest.raises(ConfigInvalid) as caught:
        load(path, KINDS, {})
    assert caught.value.fields["place"] == f"{path}:1 stack"


# --- secrets come late ---------------------------------------------------------------------------


def test_a_missing_secret_is_missed_only_by_who_uses_it(file: Path) -> None:
    stack = load(file, KINDS, {})
    assert list(stack.components) == ["projects", "cache", "uploads"]
    assert "cache" in stack.components
    assert len(stack.components) == 3
    assert stack.components["projects"].source == "sqlite"
    for _ in range(2):
        with pytest.raises(SecretMissing) as caught:
            stack.components["cache"]
    place = f"{file}:6 components.cache.password"
    assert str(caught.value) == (
        f"{place}: ${{env:CACHE_PASSWORD}} cannot be read: the environment variable is not set"
    )
    with pytest.raises(SecretMissing):
        stack.components.get("cache")


def test_an_unknown_component_is_a_key_error(file: Path) -> None:
    stack = load(file, KINDS, {})
    with pytest.raises(KeyError):
        stack.components["nosuch"]
    assert stack.components.get("nosuch") is None


def test_nothing_that_is_shown_of_a_stack_has_a_secret_in_it(file: Path) -> None:
    environment = {"CACHE_PASSWORD": "hunter2", "SERVICE": "hunter3"}
    stack = load(file, KINDS, environment)
    assert stack.services.stop == ("docker", "stop", "hunter3")
    shown = f"{stack} {stack.components['cache']} {stack.components['cache'].options!r}"
    assert "hunter" not in shown


def test_the_environment_of_the_process_is_used_by_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_PASSWORD", "hunter2")
    assert load(file, KINDS).components["cache"].options.password == "hunter2"


def test_a_secret_file_beside_the_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    path = tmp_path / "holdfast.yaml"
    server = '{source: server, url: h, password: "${file:secret}"}'
    path.write_text(f"stack: x\ncomponents: {{db: {server}}}\n{VAULTS}")
    assert load(path, KINDS, {}).components["db"].options.password == "hunter2"


# --- finding -------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("here", "xdg/holdfast", "home/.config/holdfast", "named"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "holdfast.yaml").write_text(SMALL)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_the_flag_comes_first(world: Path) -> None:
    named = world / "named/holdfast.yaml"
    environment = {"HOLDFAST_CONFIG": str(world / "xdg/holdfast/holdfast.yaml")}
    found = find(named, environment)
    assert (found.path, found.origin) == (named, "flag")


def test_the_environment_comes_before_the_folder(world: Path) -> None:
    named = world / "named/holdfast.yaml"
    found = find(None, {"HOLDFAST_CONFIG": str(named)})
    assert (found.path, found.origin) == (named, "environment")


def test_the_working_folder_comes_before_the_users(world: Path) -> None:
    found = find(None, {"XDG_CONFIG_HOME": str(world / "xdg"), "HOLDFAST_CONFIG": ""})
    assert (found.path, found.origin) == (Path("holdfast.yaml"), "folder")


def test_the_users_file_is_found_by_xdg_or_at_home(world: Path) -> None:
    Path("holdfast.yaml").unlink()
    found = find(None, {"XDG_CONFIG_HOME": str(world / "xdg"), "HOME": str(world / "home")})
    assert found.path == world / "xdg/holdfast/holdfast.yaml"
    found = find(None, {"HOME": str(world / "home")})
    assert found.path == world / "home/.config/holdfast/holdfast.yaml"
    relative = find(None, {"XDG_CONFIG_HOME": "../xdg", "HOME": str(world / "home")})
    assert relative.path == found.path


@pytest.mark.skipif(Path("/etc/holdfast").exists(), reason="this machine has a file of its own")
def test_without_any_file_all_places_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigMissing) as caught:
        find(None, {"HOME": "/home/me"})
    assert caught.value.fields["places"] == (
        "holdfast.yaml, /home/me/.config/holdfast/holdfast.yaml, /etc/holdfast/holdfast.yaml"
    )


def test_a_named_file_that_is_not_there_is_an_error_even_if_another_is(world: Path) -> None:
    with pytest.raises(ConfigMissing) as caught:
        find(Path("nosuch.yaml"), {})
    assert caught.value.fields["places"] == "nosuch.yaml"
    with pytest.raises(ConfigMissing):
        find(None, {"HOLDFAST_CONFIG": "nosuch.yaml"})


def test_a_link_that_leads_nowhere_is_found_and_then_cannot_be_read(world: Path) -> None:
    Path("holdfast.yaml").unlink()
    Path("holdfast.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigInvalid, match="cannot be read: No such file"):
        load(find(None, {}).path, KINDS, {})
