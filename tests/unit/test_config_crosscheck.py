from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import ConfigInvalid
from tests.config_world import examined


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/uploads").mkdir(parents=True)
    (tmp_path / "data/app.db").touch()
    return tmp_path


def found(folder: Path, components: str, vault: str = "backups", rest: str = "") -> list[str]:
    text = (
        f"stack: x\nvaults:\n  v: {{kind: plain, url: {vault}}}\n{rest}\ncomponents:\n{components}"
    )
    problems = examined(text, path=folder / "holdfast.yaml").problems
    assert all(isinstance(problem, ConfigInvalid) for problem in problems), problems
    return [str(problem).removeprefix(f"{folder}/") + "; " + problem.hint for problem in problems]


def test_stores_beside_each_other_are_fine(folder: Path) -> None:
    both = "  a: {source: sqlite, path: data/app.db}\n  b: {source: files, path: data/uploads}\n"
    assert found(folder, both) == []
    # A name that another name begins with is no folder of it.
    both = "  a: {source: files, path: data/up}\n  b: {source: files, path: data/uploads}\n"
    assert found(folder, both, vault="data/uploads-backups") == []


def test_two_components_with_one_path_are_refused_whichever_way_it_is_written(folder: Path) -> None:
    (folder / "link").symlink_to("data")
    for other in ("data/app.db", "./data/../data/app.db", f"{folder}/data/app.db", "link/app.db"):
        both = (
            f"  a: {{source: sqlite, path: data/app.db}}\n  b: {{source: sqlite, path: {other}}}\n"
        )
        assert found(folder, both) == [
            "holdfast.yaml:7 components.b.path: has the same path as `a`; keep one of the two"
        ]


def test_one_path_twice_in_one_component_is_refused(folder: Path) -> None:
    assert found(folder, "  a: {source: files, paths: [data, data/]}\n") == [
        "holdfast.yaml:6 components.a.paths[1]: has the same path as `a`; keep one of the two"
    ]


def test_two_vaults_in_one_folder_are_refused(folder: Path) -> None:
    rest = "  w: {kind: plain, url: ./backups}"
    assert found(folder, "  a: {source: sqlite, path: x}\n", rest=rest) == [
        "holdfast.yaml:4 vaults.w.url: has the same path as `v`; keep one of the two"
    ]


@pytest.mark.parametrize("vault", ["data", "data/backups", "data/a/b"])
def test_a_vault_in_a_component_would_back_itself_up(folder: Path, vault: str) -> None:
    for exclude in ("", ", exclude: [/backups/, /a/]"):
        component = f"  a: {{source: files, path: data{exclude}}}\n"
        assert found(folder, component, vault=vault) == [
            (
                "holdfast.yaml:3 vaults.v.url: lies in the component `a`, which would back"
                " itself up; put the vault elsewhere; best on another disk"
            )
        ]


def test_a_component_in_a_vault_is_refused(folder: Path) -> None:
    assert found(folder, "  a: {source: sqlite, path: data/app.db}\n", vault="data") == [
        (
            "holdfast.yaml:6 components.a.path: lies in the vault `v`, among the backups; "
            "put the vault elsewhere; best on another disk"
        )
    ]


def test_a_store_in_a_folder_that_is_a_component_must_be_excluded_there(folder: Path) -> None:
    inner = "  b: {source: sqlite, path: data/app.db}\n"
    assert found(folder, "  a: {source: files, path: data}\n" + inner) == [
        (
            "holdfast.yaml:6 components.a.path: holds the component `b`: it would be kept twice, "
            'once torn; add "/app.db" to the `exclude` of `a`, or take one of them out'
        )
    ]
    for pattern in ("/app.db", "*.db", "app*"):
        outer = f'  a: {{source: files, path: data, exclude: ["{pattern}"]}}\n'
        assert found(folder, outer + inner) == [], pattern
    assert len(found(folder, "  a: {source: files, path: data, exclude: [/*.log]}\n" + inner)) == 1


def test_with_several_paths_patterns_start_from_the_folder_of_the_file(folder: Path) -> None:
    inner = "  b: {source: sqlite, path: data/app.db}\n"
    for pattern, problems in (("/data/app.db", 0), ("/app.db", 1)):
        outer = f'  a: {{source: files, paths: [data, more], exclude: ["{pattern}"]}}\n'
        assert len(found(folder, outer + inner)) == problems, pattern
    [refused] = found(folder, "  a: {source: files, paths: [data]}\n" + inner)
    assert 'add "/data/app.db" to the `exclude` of `a`' in refused


def test_the_state_in_a_component_must_be_excluded(folder: Path) -> None:
    component = "  a: {source: files, path: .}\n"
    assert found(folder, component, vault="../elsewhere") == [
        (
            "holdfast.yaml:1 state: lies in the component `a`, and changes while that is"
            ' backed up; add "/.holdfast/" to the `exclude` of `a`, or set `state` elsewhere'
        )
    ]
    for pattern in ("/.holdfast/", ".holdfast", ".*"):
        component = f'  a: {{source: files, path: ., exclude: ["{pattern}"]}}\n'
        assert found(folder, component, vault="../elsewhere") == [], pattern


def test_the_advice_for_the_state_can_be_followed(folder: Path) -> None:
    rest = "state: data/deep/er"
    [refused] = found(folder, "  a: {source: files, path: data}\n", rest=rest)
    pattern = refused.partition("add ")[2].partition(" to the")[0]
    component = f"  a: {{source: files, path: data, exclude: [{pattern}]}}\n"
    assert found(folder, component, rest=rest) == []


def test_the_state_that_is_a_component_itself_is_refused(folder: Path) -> None:
    component = "  a: {source: files, path: data, exclude: ['*']}\n"
    [refused] = found(folder, component, rest="state: data")
    assert refused.startswith("holdfast.yaml:4 state: lies in the component `a`")


def test_paths_that_a_missing_secret_hides_are_not_guessed_at(folder: Path) -> None:
    assert found(folder, '  a: {source: files, path: "${env:NO_SUCH}"}\n') == []


def test_a_path_that_came_from_a_reference_is_not_told(folder: Path) -> None:
    text = (
        "stack: x\nvaults: {v: {kind: plain, url: '${env:SECRET}'}}\n"
        "components: {a: {source: files, path: '${env:SECRET}'}}\n"
    )
    secret = str(folder / "hunter2")
    [problem] = examined(text, {"SECRET": secret}, folder / "holdfast.yaml").problems
    assert "hunter2" not in f"{problem} {problem.hint}"
