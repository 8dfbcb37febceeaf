"""From the events of the YAML parser to nodes that know their line.

No loader, so that a key given twice is seen, an alias costs nothing however often it is used, and
no tag ever makes an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..i18n import _

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


class Refused(Exception):
    """What cannot be read, and in which line; `document` says in which file."""

    def __init__(self, line: int, problem: str, advice: str = "", keys: KeyPath = ()) -> None:
        super().__init__(problem)
        self.line, self.problem, self.advice, self.keys = line, problem, advice, keys


class Reader:
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
            raise Refused(_line(start), _("only YAML 1.2 is read"), _("remove the %YAML line"))
        first = next(self._events)
        root = self._node(first, ())
        if root.value is None:
            raise _nothing_in_it()
        if not isinstance(root.value, dict):
            problem = _("must be a mapping of keys to values")
            raise Refused(root.line, problem, _("start from what `holdfast init` writes"))
        next(self._events)  # the document ends
        after = next(self._events)
        if not _is(after, "StreamEnd"):
            raise Refused(_line(after), _("a second document starts here"), _("remove the ---"))
        return root

    def _node(self, event: Any, keys: KeyPath) -> Node:
        if len(keys) > DEEPEST:
            raise Refused(_line(event), _("is nested too deeply"), keys=keys[:3])
        if _is(event, "Alias"):
            return self._alias(event, keys)
        if event.tag not in {None, "!", "tag:yaml.org,2002:str"}:
            problem = _("YAML tags such as {tag} are not used here").format(tag=event.tag)
            raise Refused(_line(event), problem, _("remove the tag"), keys)
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
            raise Refused(_line(event), problem.format(name=name), advice.format(name=name), keys)
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
        raise Refused(_line(event), problem, _("put the key in quotes"), keys)

    def _scalar(self, event: Any, keys: KeyPath) -> Scalar:
        try:
            value = resolve(event.value) if event.implicit[0] else event.value
        except ValueError as error:  # more digits than Python takes
            problem = _("is too long for a number")
            raise Refused(_line(event), problem, _("put it in quotes"), keys) from error
        if isinstance(value, str) and _NO_TEXT.search(value):
            problem = _("has a character in it that no text may have")
            raise Refused(_line(event), problem, keys=keys)
        return value


_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _inherit(inherited: dict[str, Node], node: Node, line: int, keys: KeyPath) -> None:
    """Take over what a ``<<`` gives; the first that gives a key wins, as YAML has it."""
    givers = node.value if isinstance(node.value, list) else [node]
    for giver in givers:
        if not isinstance(giver.value, dict):
            problem = _("<< needs a mapping, or a list of mappings")
            raise Refused(line, problem, keys=keys)
        for key, child in giver.value.items():
            inherited.setdefault(key, replace(child, line=line))


def _sized(size: int, node: Node, line: int, keys: KeyPath) -> int:
    if size + node.size > MOST_VALUES:
        problem = _("holds more than {limit} values, with aliases written out")
        raise Refused(line, problem.format(limit=MOST_VALUES), keys=keys[:3])
    return size + node.size


def _twice(key: str, first: int, second: int, keys: KeyPath) -> Refused:
    problem = _("`{key}` is given twice: in line {first} and in line {second}")
    problem = problem.format(key=key, first=first, second=second)
    return Refused(second, problem, _("remove one of them"), (*keys, key))


def _nothing_in_it() -> Refused:
    return Refused(1, _("is empty"), _("start from what `holdfast init` writes"))


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
        raise Refused(line, _("has a control character in it"), _("remove it")) from error
    except ValueError as error:  # an escape that is no character
        raise _syntax(line, str(error)) from error


def _syntax(line: int, problem: str) -> Refused:
    if "'\\t'" in problem:
        return Refused(line, _("has a tab where YAML allows only spaces"), _("indent with spaces"))
    text = _("is not YAML: {problem}").format(problem=problem)
    advice = _("look at the line above too; text with `: `, ` #`, or [ { * & ! % @ ` in front "
               "needs quotes")  # fmt: skip
    return Refused(line, text, advice)
