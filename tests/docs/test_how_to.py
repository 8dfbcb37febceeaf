"""What the how-to pages tell people to write down is valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from holdfast.config.load import load
from holdfast.runtime.registry import kinds

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"\$\{env:(\w+)\}")
AROUND = "stack: brain\ncomponents:\n{}vaults:\n  local: {{kind: plain, url: backups}}\n"

BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(HOW_TO.glob("*.md"))
    for number, block in enumerate(YAML.findall(page.read_text("utf-8")))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_is_a_configuration(block: str, tmp_path: Path) -> None:
    (tmp_path / ".env").touch()
    file = tmp_path / "holdfast.yaml"
    file.write_text(block if block.startswith("stack:") else AROUND.format(block))
    stack = load(file, kinds(), dict.fromkeys(VARIABLE.findall(block), "a secret"))
    assert [spec.options for spec in stack.components.values()]
