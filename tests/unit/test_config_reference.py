from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from holdfast.config.reference import json_schema, render
from holdfast.config.schema import FilePart
from holdfast.runtime.registry import SOURCES, kinds


def properties(schema: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in schema.get("properties", {}).items():
        yield f"{where}.{key}", value
    for name, inner in schema.get("$defs", {}).items():
        yield from properties(inner, name)


def test_every_field_of_every_kind_has_a_description() -> None:
    found = dict(properties(json_schema(kinds())))
    assert len(found) > 40
    assert [where for where, value in found.items() if not value.get("description")] == []


def test_the_schema_knows_each_kind_with_its_own_options() -> None:
    definitions = json_schema(kinds())["$defs"]
    names = [one["$ref"].rpartition(".")[2] for one in definitions["ComponentPart"]["oneOf"]]
    assert sorted(names) == sorted(SOURCES)
    sqlite = definitions["ComponentPart.sqlite"]
    assert sqlite["properties"]["source"]["const"] == "sqlite"
    assert {"source", "path"} <= set(sqlite["required"])
    assert {"rebuildable", "path"} <= set(sqlite["properties"])
    assert sqlite["additionalProperties"] is False


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = json_schema(kinds())
    text = json.dumps(schema)
    wanted = {part.partition('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert wanted <= set(schema["$defs"])


def test_the_schema_accepts_what_is_valid_and_refuses_what_is_not() -> None:
    """Asked of an independent program: the validator that editors use is of the same kind."""
    # Chroma's own package brings it along, untyped.
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    schema = json_schema(kinds())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    stack = {
        "stack": "brain",
        "components": {"p": {"source": "sqlite", "path": "x", "rebuildable": True}},
        "vaults": {"v": {"kind": "plain", "url": "backups"}},
        "plans": {"n": {"components": "all", "keep": {"daily": "30d", "hourly": 3}, "rpo": "1d"}},
    }
    assert list(validator.iter_errors(stack)) == []
    components: dict[str, Any] = {"p": {"source": "sqlite", "pth": "x"}}
    assert list(validator.iter_errors({**stack, "components": components})) != []
    assert list(validator.iter_errors({**stack, "stak": 1})) != []


def test_the_page_has_every_key_of_the_file_and_of_every_kind() -> None:
    page = render(kinds())
    for name in FilePart.model_fields:
        assert f"| `{name}` |" in page
    for heading in ("### `source: sqlite`", "### `source: chroma`", "### `kind: plain`"):
        assert heading in page
    assert "| `lock_timeout` | number | `60.0` |" in page
    assert "| `health_timeout` | duration | `1m` |" in page


def test_tables_of_the_page_have_four_cells_in_every_row() -> None:
    rows = [line for line in render(kinds()).splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}
