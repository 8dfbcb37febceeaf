"""YAML of other programs, read with indulgence: tags are passed over, and all values are text.

No loader: an alias costs nothing however often it is used, and no tag ever makes an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

DEEPEST = 40

Plain = None | str | list["Plain"] | dict[str, "Plain"]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_RESET = "!reset"  # of Compose: the value of an earlier file is not taken over


@lru_cache(maxsize=32)  # every kind of source looks at the same files
def read_yaml(text: str) -> Plain:
    """Return the first document of a text; None where there is none.

    Raises ``ValueError`` with the line where it is not YAML, or nested too deeply.
    """
    reader = _Reader(text)
    return reader.document()


class _Reader:
    def __init__(self, text: str) -> None:
        self._events = _events(text)
        self._anchors: dict[str, Plain] = {}

    def document(self) -> Plain:
        next(self._events)  # the stream starts
        if _name(next(self._events)) == "StreamEnd":
            return None
        return self._value(next(self._events), 0)

    def _value(self, event: Any, depth: int) -> Plain:
        if depth > DEEPEST:
            raise _wrong(event.start_mark.line + 1, "is nested too deeply")
        if _name(event) == "Alias":
            return self._anchors.get(event.anchor)
        value: Plain
        if _name(event) == "Scalar":
            value = None if event.implicit[0] and event.value in _NULL else str(event.value)
        elif _name(event) == "SequenceStart":
            value = self._list(depth)
        else:
            value = self._mapping(depth)
        if event.tag == _RESET:
            value = None
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _list(self, depth: int) -> Plain:
        items: list[Plain] = []
        while _name(event := next(self._events)) != "SequenceEnd":
            items.append(self._value(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> Plain:
        items: dict[str, Plain] = {}
        inherited: dict[str, Plain] = {}
        while _name(event := next(self._events)) != "MappingEnd":
            key = self._value(event, depth + 1)
            value = self._value(next(self._events), depth + 1)
            if key == "<<":
                for giver in value if isinstance(value, list) else [value]:
                    if isinstance(giver, dict):
                        inherited = {**giver, **inherited}
            elif isinstance(key, str):
                items[key] = value
        return {**inherited, **items}


def _name(event: Any) -> str:
    return type(event).__name__.removesuffix("Event")


def _events(text: str) -> Iterator[Any]:
    """Give the parser's events."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    line = 1
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            line = event.start_mark.line + 1
            yield event
    except (MarkedYAMLError, ReaderError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        raise _wrong(line if mark is None else mark.line + 1, "is not YAML") from error


def _wrong(line: int, problem: str) -> ValueError:
    return ValueError(f"line {line} {problem}")
