"""A YAML 1.2 file as values that know their line.

Read from the parser's events, not by a loader: so every value keeps its place, a key given twice
is seen, an alias costs nothing however often it is used, and no tag ever makes an object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigInvalid
from ..i18n import _

LARGEST_FILE = 1 << 20  # bytes
MOST_VALUES = 50_000  # aliases counted as if written out
DEEPEST = 40

KeyPath = tuple[str | int, ...]
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file. ``line`` counts from 1 and is where its key stands, if it has one."""

    value: Scalar | dict[str, Node] | list[Node] = field(repr=False)
    line: int
    size: int = 1  # how many values it is, itself included, with aliases written out


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
        root = _Reader(text).document()
    except _Refused as refused:
        where = place(path, refused.line, refused.keys)
        raise invalid(where, refused.problem, refused.advice) from refused.__cause__
    return Document(path, root)


class _Refused(Exception):
    def __init__(self, line: int, problem: str, advice: str = "", keys: KeyPath = ()) -> None:
        super().__init__(problem)
        self.line, self.problem, self.advice, self.keys = line, problem, advice, keys


class _Reader:
    """Builds nodes from the events of one document."""

    def __init__(self, text: str) -> None:
        self._events = _events(text)
        self._anchors: dict[str, Node] = {}

    def document(self) -> Node:
        """Return the root, which is a mapping, of the one document there is."""
        next(self._events)  # the stream starts
        start = next(self._events)
        if _is(start, "StreamEnd"):
            raise _nothing_in_it()
        if start.version not in {None, (1, 2)}:
            raise _Refused(_line(start), _("only YAML 1.2 is read"), _("remove the %YAML line"))
        first = next(self._events)
        root = self._node(first, ())
        if root.value is None:
            raise _nothing_in_it()
        if not isinstance(root.value, dict):
            problem = _("must be a mapping of keys to values")
            raise _Refused(root.line, problem, _("start from what `holdfast init` writes"))
        next(self._events)  # the document ends
        after = next(self._events)
        if not _is(after, "StreamEnd"):
            raise _Refused(_line(after), _("a second document starts here"), _("remove the ---"))
        return root

    def _node(self, event: Any, keys: KeyPath) -> Node:
        if len(keys) > DEEPEST:
            raise _Refused(_line(event), _("is nested too deeply"), keys=keys[:3])
        if _is(event, "Alias"):
            return self._alias(event, keys)
        if event.tag not in {None, "!", "tag:yaml.org,2002:str"}:
            problem = _("YAML tags such as {tag} are not used here").format(tag=event.tag)
            raise _Refused(_line(event), problem, _("remove the tag"), keys)
        if _is(event, "Scalar"):
            node = Node(self._scalar(event, keys), _line(event))
        elif _is(event, "MappingStart"):
            node = self._mapping(event, keys)
        else:
            node = self._sequence(event, keys)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: Any, keys: KeyPath) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            problem = _("*{name} refers to nothing that is complete before it")
            advice = _("mark a value above with &{name}, or put the text in quotes")
            name = event.anchor
            raise _Refused(_line(event), problem.format(name=name), advice.format(name=name), keys)
        return replace(node, line=_line(event))

    def _sequence(self, start: Any, keys: KeyPath) -> Node:
        items: list[Node] = []
        size = 1
        while not _is(event := next(self._events), "SequenceEnd"):
            item = self._node(event, (*keys, len(items)))
            items.append(item)
            size = _sized(size, item, _line(event), keys)
        return Node(items, _line(start), size)

    def _mapping(self, start: Any, keys: KeyPath) -> Node:
        items: dict[str, Node] = {}
        inherited: dict[str, Node] = {}
        size = 1
        while not _is(event := next(self._events), "MappingEnd"):
            key, line = self._key(event, keys), _line(event)
            node = self._node(next(self._events), (*keys, key))
            size = _sized(size, node, line, keys)
            if key == "<<":
                _inherit(inherited, node, line, keys)
                continue
            if key in items:
                raise _twice(key, items[key].line, line, keys)
            items[key] = replace(node, line=line)
        return Node({**inherited, **items}, _line(start), size)

    def _key(self, event: Any, keys: KeyPath) -> str:
        if _is(event, "Scalar"):
            key = self._scalar(event, keys)
            if isinstance(key, str):
                return key
        problem = _("a key must be text")
        raise _Refused(_line(event), problem, _("put the key in quotes"), keys)

    def _scalar(self, event: Any, keys: KeyPath) -> Scalar:
        try:
            value = resolve(event.value) if event.implicit[0] else event.value
        except ValueError as error:  # more digits than Python takes
            problem = _("is too long for a number")
            raise _Refused(_line(event), problem, _("put it in quotes"), keys) from error
        if isinstance(value, str) and _NO_TEXT.search(value):
            problem = _("has a character in it that no text may have")
            raise _Refused(_line(event), problem, keys=keys)
        return value


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _inherit(inherited: dict[str, Node], node: Node, line: int, keys: KeyPath) -> None:
    """Take over what a ``<<`` gives; the first that gives a key wins, as YAML has it."""
    givers = node.value if isinstance(node.value, list) else [node]
    for giver in givers:
        if not isinstance(giver.value, dict):
            problem = _("<< needs a mapping, or a list of mappings")
            raise _Refused(line, problem, keys=keys)
        for key, child in giver.value.items():
            inherited.setdefault(key, replace(child, line=line))


def _sized(size: int, node: Node, line: int, keys: KeyPath) -> int:
    if size + node.size > MOST_VALUES:
        problem = _("holds more than {limit} values, with aliases written out")
        raise _Refused(line, problem.format(limit=MOST_VALUES), keys=keys[:3])
    return size + node.size


def _twice(key: str, first: int, second: int, keys: KeyPath) -> _Refused:
    problem = _("`{key}` is given twice: in line {first} and in line {second}")
    problem = problem.format(key=key, first=first, second=second)
    return _Refused(second, problem, _("remove one of them"), (*keys, key))


def _nothing_in_it() -> _Refused:
    return _Refused(1, _("is empty"), _("start from what `holdfast init` writes"))


_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Mapping[str, bool] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


def resolve(text: str) -> Scalar:
    """Return what an unquoted scalar means in the core schema of YAML 1.2: ``no`` is text.

    Raises ``ValueError`` for a number with more digits than Python takes.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _is(event: Any, name: str) -> bool:
    return type(event).__name__ == f"{name}Event"


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _events(text: str) -> Iterator[Any]:
    """Give the parser's events; what it cannot read is refused with the line."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    line = 1
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            line = _line(event)
            yield event
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _syntax(line if mark is None else mark.line + 1, error.problem or "") from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Refused(line, _("has a control character in it"), _("remove it")) from error
    except ValueError as error:  # an escape that is no character
        raise _syntax(line, str(error)) from error


def _syntax(line: int, problem: str) -> _Refused:
    if "'\\t'" in problem:
        return _Refused(line, _("has a tab where YAML allows only spaces"), _("indent with spaces"))
    text = _("is not YAML: {problem}").format(problem=problem)
    advice = _("look at the line above too; text with `: `, ` #`, or [ { * & ! % @ ` in front "
               "needs quotes")  # fmt: skip
    return _Refused(line, text, advice)
