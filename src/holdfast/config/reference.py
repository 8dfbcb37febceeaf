"""The JSON Schema of the configuration, and the reference page that is made from it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..model.options import Options
from .kinds import Kinds, OptionsOf
from .schema import ComponentPart, FilePart, Part, VaultPart

Schema = dict[str, Any]

HEADER = """\
# Configuration reference

<!-- Made from the schema by `scripts/reference`; do not edit by hand. -->

One YAML file, `holdfast.yaml`, says what an application consists of, where its backups go, when
they are made and which are kept. It is found by `--config FILE`, then `$HOLDFAST_CONFIG`, then in
the working folder, in `$XDG_CONFIG_HOME/holdfast/` (`~/.config/holdfast/`) and in `/etc/holdfast/`.

- `holdfast init` writes one for what it finds, `holdfast config validate` checks it,
  `holdfast config show` prints every value in force and where it comes from, and
  `holdfast config schema` prints the JSON Schema for editors.
- It is YAML 1.2: `no`, `off` and `on` are text; only `true` and `false` are not. Unknown keys and
  keys given twice are refused with their line. Anchors, aliases and `<<` work.
- Relative paths start from the folder of the file; `~` is the home folder.
- `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` in a value stand for an environment
  variable or the content of a file, which are read when they are needed and never printed. Write
  `$${` for `${` itself.
- Durations are written `90s`, `15m`, `6h`, `1h30m`, `1d`, `2w` (`m` is minutes). Spans of
  retention are written `24h`, `30d`, `12w`, `12m`, `1y` (`m` is months).
- Names of components, vaults and plans are single words: no white space, no `/`, no leading `.` or
  `-`, and not `all`.
"""

_SECTIONS = (
    ("The file", "FilePart"),
    ("`components`: each component", "ComponentPart"),
    ("`vaults`: each vault", "VaultPart"),
    ("`plans`: each plan", "PlanPart"),
    ("`keep`: what a plan keeps", "KeepPart"),
    ("`checks`: each check", "CheckPart"),
    ("`left` and `right` of a check", "SelectorPart"),
    ("`services`", "ServicesPart"),
    ("`hooks`", "HooksPart"),
)
_STORES = {"ComponentPart": ("source", "sources"), "VaultPart": ("kind", "vaults")}


def json_schema(kinds: Kinds) -> Schema:
    """Return the JSON Schema (2020-12) of the file, with the options of every kind in it."""
    schema = FilePart.model_json_schema()
    definitions = schema["$defs"]
    for part, key, options in (
        (ComponentPart, "source", kinds.sources),
        (VaultPart, "kind", kinds.vaults),
    ):
        one_of = []
        for kind in sorted(options):
            name = f"{part.__name__}.{kind}"
            own = _kind_schema(part, key, kind, options[kind]())
            definitions.update(own.pop("$defs", {}))
            definitions[name] = own
            one_of.append({"$ref": f"#/$defs/{name}"})
        whole = definitions[part.__name__]
        definitions[part.__name__] = {"description": whole["description"], "oneOf": one_of}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _kind_schema(part: type[Part], key: str, kind: str, options: type[Options]) -> Schema:
    """Return the schema of one kind: the keys that all kinds have, then its own."""
    own = options.model_json_schema(ref_template=f"#/$defs/{kind}.{{model}}")
    own["$defs"] = {f"{kind}.{name}": inner for name, inner in own.get("$defs", {}).items()}
    common = part.model_json_schema()["properties"]
    common[key] = {**common[key], "const": kind}
    own["properties"] = {**common, **own.get("properties", {})}
    own["required"] = [key, *own.get("required", [])]
    return own


def render(kinds: Kinds) -> str:
    """Return the reference page in Markdown."""
    whole = FilePart.model_json_schema()
    schemas = {"FilePart": whole, **whole["$defs"]}
    texts = [HEADER]
    for title, name in _SECTIONS:
        texts.append(_section(f"## {title}", schemas[name], schemas))
        if name in _STORES:
            key, attribute = _STORES[name]
            texts += _kinds(key, getattr(kinds, attribute))
    return "\n".join(texts)


def _kinds(key: str, options: OptionsOf) -> Iterator[str]:
    for kind in sorted(options):
        schema = options[kind]().model_json_schema()
        yield _section(f"### `{key}: {kind}`", schema, schema.get("$defs", {}))


def _section(title: str, schema: Schema, definitions: Mapping[str, Schema]) -> str:
    lines = [title, "", *_introduction(schema), "| key | value | default | what it means |"]
    lines.append("|---|---|---|---|")
    required = schema.get("required", [])
    for key, value in schema.get("properties", {}).items():
        default = "required" if key in required else _code(value.get("default"))
        meaning = _cell(value.get("description", ""))
        example = "".join(f" For example: {_code(e)}." for e in value.get("examples", [])[:1])
        kind = _cell(_type(value, definitions))
        lines.append(f"| `{key}` | {kind} | {default} | {meaning}{example} |")
    return "\n".join([*lines, ""])


def _introduction(schema: Schema) -> list[str]:
    text = schema.get("description", "")
    return [*text.replace("``", "`").splitlines(), ""] if text else []


def _default(value: Schema) -> Any:
    return value.get("default")


def _code(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


_NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "object": "mapping",
}


def _type(value: Schema, definitions: Mapping[str, Schema]) -> str:
    """Return in words what a value may be."""
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        return _either(f"`{one}`" for one in value["enum"])
    if "anyOf" in value:
        inner = [one for one in value["anyOf"] if one.get("type") != "null"]
        return _either(_type(one, definitions) for one in inner)
    if value.get("type") == "array":
        return f"list of {_type(value.get('items', {}), definitions)}"
    if value.get("format") in {"duration", "span", "path"}:
        return str(value["format"])
    return _NAMES.get(str(value.get("type")), "mapping")


def _either(words: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(words))
