"""The pages on formats name every field that the code writes, and no other."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from holdfast.model.facts import Facts
from holdfast.model.manifest import FORMAT, Component, Manifest, Stored, encode
from holdfast.model.marks import Marks, Proof
from holdfast.testing.memory import MemoryStore
from holdfast.vaults._marks_text import encode_marks
from holdfast.vaults._naming import NAME_FIELDS
from holdfast.vaults._plain_layout import LAYOUT_FIELDS
from tests.vault_world import keep, make_vault

PAGES = Path(__file__).parents[2] / "docs" / "formats"


def table(page: str, heading: str) -> list[str]:
    """Return the first column of the first table below a heading."""
    text = (PAGES / page).read_text()
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    found = next(part for part in section if part.startswith(f"{heading}\n"))
    rows = re.findall(r"^\| `([^`]+)` \|", found, flags=re.MULTILINE)
    assert rows, f"no table below {heading}"
    return rows


def names(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("The backup", ["format", *names(Manifest)]),
        ("A component", names(Component)),
        ("The facts of a component", names(Facts)),
        ("An artifact", names(Stored)),
    ],
)
def test_the_manifest_page_names_every_field(heading: str, expected: list[str]) -> None:
    assert table("manifest.md", heading) == expected


def test_the_page_describes_this_format() -> None:
    assert f"describes format {FORMAT}." in (PAGES / "manifest.md").read_text()


def test_what_is_written_has_the_fields_of_the_page() -> None:
    manifest = keep(make_vault(MemoryStore(), "boxed"))
    document = json.loads(encode(manifest))
    assert list(document) == table("manifest.md", "The backup")
    assert list(document["components"][0]) == table("manifest.md", "A component")
    assert list(document["components"][0]["facts"]) == table(
        "manifest.md", "The facts of a component"
    )
    assert list(document["artifacts"][0]) == table("manifest.md", "An artifact")


def test_the_page_of_the_plain_vault_names_every_field() -> None:
    rows = table("plain-vault.md", "Layouts")
    assert sorted(rows) == sorted(f"{{{field}}}" for field in LAYOUT_FIELDS)
    assert set(NAME_FIELDS) <= set(LAYOUT_FIELDS)


def test_the_page_names_every_field_beside_an_artifact() -> None:
    store = MemoryStore()
    keep(make_vault(store, "flat"))
    metas = [json.loads(data) for name, data in store.held.items() if name.endswith(".meta")]
    assert metas
    for meta in metas:
        assert list(meta) == table("plain-vault.md", "`.meta`")


def test_the_page_names_every_field_of_marks() -> None:
    marks = json.loads(encode_marks(Marks()))["marks"]
    text = (PAGES / "plain-vault.md").read_text()
    assert [field for field in marks if f"| `{field}` |" not in text] == []
    assert all(f"`{name}`" in text for name in names(Proof))
