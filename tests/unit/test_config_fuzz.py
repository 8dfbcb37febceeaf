"""Whatever a file holds, reading it ends in a stack or in an error that we foresaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.config.document import parse
from holdfast.config.examine import Examined, examine
from holdfast.config.init import write_value
from holdfast.config.load import Found
from holdfast.config.show import render
from holdfast.config.show import settings as shown
from holdfast.errors import HoldfastError
from holdfast.runtime.registry import kinds
from tests.config_world import FILE, KINDS

ENVIRONMENT = {"SECRET": "hunter2", "EMPTY": ""}

TOKENS = [
    "stack: x", "components:", "vaults:", "plans:", "  a:", "    source: sqlite", "    path: b",
    "- ", ": ", "\n", "\n", "\n  ", "  ", "\t", "[", "]", "{", "}", ",", "&x ", "*x", "!!str ", "!",
    "|\n", ">\n", "'", '"', "\\", "#", "%YAML 1.2\n", "---\n", "...\n", "? ", "<<: ", "\u2028",
    "\x85", "\ufeff", "é", "0x1F", "1e999", "~", "${env:SECRET}", "${", "${file:/no}", "$${", "24h",
    "null", "\0", "\ud7ff", "\U0001f600", "9" * 40,
]  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["all", "30d", "24h", "sqlite", "files", "server", "plain", "0 2 * * *", ""])
    | st.sampled_from(["${env:SECRET}", "${env:NONE}", "${env:EMPTY:-x}", "${file:/no}", "${", "."])
)
KEYS = [
    "stack", "state", "components", "vaults", "plans", "checks", "services", "hooks", "notify",
    "source", "kind", "path", "paths", "url", "exclude", "password", "port", "tags", "rebuildable",
    "schedule", "timezone", "keep", "verify", "archive", "rpo", "rto", "last", "hourly", "daily",
    "within", "max_count", "name", "component", "sql", "left", "right", "one_way", "stop", "start",
    "health", "health_timeout", "on_error", "before_backup", "a", "b", "all",
]  # fmt: skip
PLAN_KEYS = [
    "schedule", "timezone", "components", "vaults", "keep", "verify", "archive", "rpo", "rto",
]  # fmt: skip
keys = st.sampled_from(KEYS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
components = st.dictionaries(
    st.sampled_from(["a", "b", "all", "../c", ""]) | st.text(max_size=4),
    st.fixed_dictionaries(
        {"source": st.sampled_from(["sqlite", "files", "server", "heavy", "redis"]) | scalars},
        optional={
            "path": values,
            "paths": values,
            "url": values,
            "password": scalars,
            "port": scalars,
            "exclude": values,
            "rebuildable": scalars,
        },
    ),
    max_size=3,
)
files = st.fixed_dictionaries(
    {"stack": st.just("brain") | scalars, "components": components | values},
    optional={
        "state": scalars,
        "vaults": values
        | st.just({"v": {"kind": "plain", "url": "x"}})
        | st.dictionaries(keys, st.fixed_dictionaries({"kind": st.just("plain"), "url": scalars})),
        "plans": st.dictionaries(
            keys,
            st.dictionaries(
                st.sampled_from(
                    [
                        "schedule",
                        "timezone",
                        "components",
                        "vaults",
                        "keep",
                        "verify",
                        "archive",
                        "rpo",
                        "rto",
                    ]
                ),
                values,
            ),
            max_size=2,
        )
        | values,
        "checks": st.lists(st.dictionaries(keys, values, max_size=4), max_size=2) | values,
        "services": st.dictionaries(keys, values, max_size=3) | values,
        "hooks": st.dictionaries(keys, values, max_size=3) | values,
    },
)


def survive(content: bytes) -> bool:
    """Examine and show a file as the commands do; tell whether it was valid."""
    try:
        found: Examined | None = examine(parse(content, FILE), KINDS, ENVIRONMENT)
        assert found is not None
        for problem in (*found.problems, *found.missing):
            assert isinstance(problem, HoldfastError)
            assert "\n" not in str(problem)
            assert "hunter2" not in f"{problem} {problem.hint}"
        text = render(shown(found, Found(FILE, "folder")))
    except HoldfastError as error:
        text = f"{error} {error.hint}"
        found = None
    assert "hunter2" not in text
    if found is None:
        return False
    assert "hunter2" not in repr(found.stack)
    assert found.stack is not None
    return True


@settings(max_examples=150, deadline=None, print_blob=True)
@given(st.binary(max_size=200))
def test_random_bytes(content: bytes) -> None:
    survive(content)


@settings(max_examples=250, deadline=None, print_blob=True)
@given(st.lists(st.sampled_from(TOKENS), max_size=25))
def test_random_yaml(tokens: list[str]) -> None:
    survive("".join(tokens).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None, print_blob=True)
@given(files)
def test_random_values_in_the_shape_of_a_configuration(file: dict[str, Any]) -> None:
    text = "".join(f"{key}: {write_value(value)}\n" for key, value in file.items())
    survive(text.replace("$${", "${").encode("utf-8", "surrogatepass"))


VALID = """\
stack: brain
components:
  projects: {source: sqlite, path: data/projects.db}
  cache: {source: server, url: h, password: "${env:SECRET}"}
vaults: {local: {kind: plain, url: backups}}
plans: {nightly: {schedule: "0 2 * * *", timezone: Asia/Seoul, keep: {last: 3, daily: 30d}}}
checks: [{name: a, component: projects, sql: SELECT 1}]
services: {stop: [stop, "${env:SECRET}"], health: ["http://localhost"]}
"""


def test_the_valid_example_is_valid() -> None:
    assert survive(VALID.encode())


@settings(max_examples=250, deadline=None, print_blob=True)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 12), st.sampled_from(TOKENS))
def test_a_valid_file_with_one_place_damaged(at: int, length: int, token: str) -> None:
    damaged = VALID[:at] + token + VALID[at + length :]
    survive(damaged.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("content", [VALID.encode("utf-16"), b"\xff" * 9, b"\0" * 50])
def test_what_is_no_text_at_all(content: bytes) -> None:
    assert not survive(content)


@settings(max_examples=100, deadline=None, print_blob=True)
@given(st.sampled_from(["sqlite", "files", "chroma"]), st.dictionaries(keys, values, max_size=4))
def test_the_real_kinds_foresee_every_mistake_too(kind: str, options: dict[str, Any]) -> None:
    component = write_value({**options, "source": kind})
    text = f"stack: x\ncomponents: {{a: {component}}}\nvaults: {{v: {{kind: plain, url: y}}}}\n"
    text = text.replace("$${", "${")
    try:
        document = parse(text.encode("utf-8", "surrogatepass"), Path("holdfast.yaml"))
        found = examine(document, kinds(), ENVIRONMENT)
    except HoldfastError:
        return
    assert found.stack is not None or found.problems
