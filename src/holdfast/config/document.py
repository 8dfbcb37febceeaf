"""A configuration file as values that know their place, and how places are named in errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import ConfigInvalid
from ..i18n import _
from .nodes import KeyPath, Node, Reader, Refused

LARGEST_FILE = 1 << 20  # bytes


class Document:
    """A configuration file that was read but not yet understood."""

    def __init__(self, path: Path, root: Node) -> None:
        self.path = path
        self.root = root

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the file start from."""
        return self.path.absolute().parent

    def node(self, keys: KeyPath) -> Node | None:
        """Return the value at a place, or None where the file has none."""
        node = self.root
        for key in keys:
            found = _child(node, key)
            if found is None:
                return None
            node = found
        return node

    def nearest(self, keys: KeyPath) -> tuple[KeyPath, Node]:
        """Return the deepest place on the way to ``keys`` that the file has, and its value."""
        node = self.root
        for depth, key in enumerate(keys):
            found = _child(node, key)
            if found is None:
                return keys[:depth], node
            node = found
        return keys, node

    def line(self, keys: KeyPath) -> int:
        """Return the line of a place, or of the nearest above it that the file has."""
        return self.nearest(keys)[1].line

    def place(self, keys: KeyPath) -> str:
        """Return a place as errors name it: ``holdfast.yaml:12 components.projects.path``."""
        return place(self.path, self.line(keys), keys)


def _child(node: Node, key: str | int) -> Node | None:
    if isinstance(node.value, dict) and isinstance(key, str):
        return node.value.get(key)
    if isinstance(node.value, list) and isinstance(key, int) and 0 <= key < len(node.value):
        return node.value[key]
    return None


def invalid(where: object, problem: object, advice: str = "") -> ConfigInvalid:
    """Return the error for a mistake in the file; there is always something to do about it."""
    advice = advice or _("the configuration reference describes what may stand here")
    return ConfigInvalid(place=where, problem=problem, advice=advice)


def place(path: Path, line: int, keys: KeyPath = ()) -> str:
    """Return how errors name a place in a file."""
    return f"{path}:{line} {dotted(keys)}".rstrip()


def dotted(keys: KeyPath) -> str:
    """Return a path of keys as people write it: ``checks[0].left.sql``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".")


def plain(node: Node) -> Any:
    """Return the value without its lines: dictionaries, lists and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def read(path: Path) -> Document:
    """Read and parse a file.

    Raises:
        ConfigInvalid: it cannot be read, is too large, is not UTF-8, or is not a mapping in YAML.

    """
    return parse(_content(path), path)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        problem = _("cannot be read: {reason}").format(reason=reason)
        advice = _("name a file that you may read with --config")
        raise invalid(path, problem, advice) from error
    if len(content) > LARGEST_FILE:
        problem = _("is larger than {limit} KiB").format(limit=LARGEST_FILE >> 10)
        advice = _("this can hardly be a configuration file; check its name")
        raise invalid(path, problem, advice)
    return content


def parse(content: bytes, path: Path) -> Document:
    """Parse what a file holds; ``path`` names it in errors. Raises `ConfigInvalid`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        problem = _("is not UTF-8 text from here on")
        advice = _("save the file as UTF-8")
        raise invalid(place(path, line), problem, advice) from error
    try:
        root = Reader(text).document()
    except Refused as refused:
        where = place(path, refused.line, refused.keys)
        raise invalid(where, refused.problem, refused.advice) from refused.__cause__
    return Document(path, root)
