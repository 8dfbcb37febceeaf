"""Imports flow one way. The table below is the architecture; these tests keep it true."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "holdfast"
ROOT = Path(__file__).parents[2] / "src" / PACKAGE

BASE = {"i18n", "errors", "__init__"}
CORE = BASE | {"model"}
SEAMS = CORE | {"ports"}
ADAPTERS = {"sources", "stores", "vaults", "verbs"}

MAY_IMPORT: dict[str, set[str]] = {
    "i18n": set(),
    "errors": {"i18n"},
    "model": BASE,
    "ports": CORE,
    "config": SEAMS,
    "s3": CORE,
    "sources": SEAMS | {"s3"},
    "stores": SEAMS | {"s3"},
    "vaults": SEAMS,
    "verbs": SEAMS,
    "testing": SEAMS,
    "runtime": SEAMS | ADAPTERS | {"config"},
    "cli": SEAMS | {"runtime", "config", "verbs"},
    "__main__": {"cli", "__init__"},
    "__init__": set(),
}

# Folders whose modules must not know each other, but for helpers that start with an underscore.
APART = {"sources", "stores"}

# Modules that hold one idea and are longer than 300 lines; none may pass 500.
LONGEST = 500
MAY_BE_LONG = {"errors.py": "one table, read from end to end, without a line of logic in it"}


def imports(path: Path, root: Path) -> Iterator[list[str]]:
    """The parts below the package of every import in a file, function-local ones included."""
    inside = path.relative_to(root)
    here = [PACKAGE, *inside.with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for parts in targets:
            if parts[0] == PACKAGE:
                below = parts[1:]
                if (
                    below
                    and not (root / below[0]).is_dir()
                    and not (root / f"{below[0]}.py").exists()
                ):
                    below = ["__init__"]  # a name of the package itself, such as its version
                yield below or ["__init__"]


def trespasses(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root).with_suffix("").parts
        layer = where[0]
        for target in imports(path, root):
            if target[0] not in MAY_IMPORT[layer] | {layer}:
                found.append(f"{'/'.join(where)} imports {'.'.join(target)}")
            elif layer in APART and target[0] == layer and _sibling(where, target):
                found.append(f"{'/'.join(where)} imports its sibling {target[1]}")
    return found


def _sibling(where: tuple[str, ...], target: list[str]) -> bool:
    public = len(target) > 1 and not target[1].startswith("_")
    return public and target[1] != where[1]


def test_imports_flow_one_way() -> None:
    assert trespasses(ROOT) == []


def test_every_layer_is_in_the_table() -> None:
    layers = {path.name.removesuffix(".py") for path in ROOT.iterdir() if _is_code(path)}
    assert layers == set(MAY_IMPORT)


def _is_code(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())


def test_a_trespass_is_seen(tmp_path: Path) -> None:
    for layer in ("sources", "vaults", "verbs"):
        (tmp_path / layer).mkdir()
    (tmp_path / "errors.py").touch()
    (tmp_path / "sources" / "redis.py").write_text("from ..errors import Row\n")
    (tmp_path / "vaults" / "plain.py").write_text("from holdfast.sources import redis\n")
    (tmp_path / "verbs" / "backup.py").write_text("def f():\n    from ..vaults.plain import V\n")
    (tmp_path / "sources" / "sqlite.py").write_text("from . import redis, _command\n")
    assert trespasses(tmp_path) == [
        "sources/sqlite imports its sibling redis",
        "vaults/plain imports sources.redis",
        "verbs/backup imports vaults.plain.V",
    ]


def test_no_module_is_too_long() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in ROOT.rglob("*.py")}
    long = {str(path.relative_to(ROOT)) for path, lines in lengths.items() if lines > LONGEST}
    assert long == MAY_BE_LONG.keys()


def test_heavy_libraries_are_loaded_on_use() -> None:
    heavy = ["chromadb", "numpy", "zstandard", "isal", "pydantic", "ruamel", "sqlite3", "pathspec"]
    program = (
        "import sys, holdfast.cli.app, holdfast.ports\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_kind_of_store_can_be_named_and_described_without_its_driver() -> None:
    script = """
import sys
for driver in ("boto3", "botocore", "chromadb", "httpx", "numpy", "psycopg", "redis"):
    sys.modules[driver] = None
from holdfast.runtime.registry import SOURCES, source_class
for kind in SOURCES:
    source_class(kind).options_model.model_json_schema()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
