"""`holdfast config show`: every value that is in force, where it comes from, secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .document import dotted, plain
from .env_files import Variables
from .examine import STORES, Examined
from .interpolate import references, variable_of
from .load import VARIABLE, Found
from .nodes import KeyPath, Node

MASK = "***"

_SECRET_KEY = re.compile(
    r"passw|passphrase|secret|token|api_?key|access_?key|private_?key|credential|authorization",
    re.IGNORECASE,
)
# To the last @ of the word: rather too much than half a password with a stray / or @ in it.
_IN_URL = re.compile(r"(?<=://)([^/\s:@]*):\S*@")
_IN_TEXT = re.compile(
    r"(?i)((?:passw\w*|passphrase|secret\w*|token|api[_-]?key|access[_-]?key)\s*[=:]\s*)[^\s&;,]+"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value in force.

    ``origin`` is ``flag``, ``environment``, ``env_file``, ``file`` or ``default``.
    """

    key: str
    value: Any
    origin: str
    place: str = ""  # the line of the file
    reference: str = ""  # what the value was read from, for example ${env:X}
    env_file: str = ""  # the file that the variable stands in

    @property
    def source(self) -> str:
        """Where the value comes from, as a person reads it."""
        words = [self.origin, self.env_file, self.reference, self.place]
        return " ".join(word for word in words if word and (word != "file" or not self.place))


def settings(examined: Examined, found: Found) -> list[Setting]:
    """Return every value in force, in the order of the reference. Secrets are masked.

    Raises:
        ConfigInvalid: the first problem of the file, if it has any.

    """
    if examined.part is None or examined.stack is None:
        raise examined.problems[0]
    lines = [_file(found)]
    for section, value in examined.part.model_dump(mode="json").items():
        if section in STORES:
            for name in value:
                lines += _store(examined, (section, name), value[name])
        else:
            lines += _walk(examined, (section,), value)
    return lines


def render(shown: list[Setting]) -> str:
    """Return the settings as lines of text: key, value, origin."""
    texts = [(s.key, json.dumps(s.value, ensure_ascii=False), s.source) for s in shown]
    return "".join(f"{key} = {value}  # {source}\n" for key, value, source in texts)


def documents(shown: list[Setting]) -> list[dict[str, Any]]:
    """Return the settings as plain JSON values."""
    return [asdict(setting) for setting in shown]


def _file(found: Found) -> Setting:
    references = {"flag": "--config", "environment": VARIABLE}
    origin = found.origin if found.origin in references else "default"
    return Setting("config", str(found.path), origin, reference=references.get(origin, ""))


def _store(examined: Examined, keys: tuple[str, str], part: dict[str, Any]) -> Iterator[Setting]:
    """Give the settings of one component or vault: the common keys, then those of its kind."""
    document = examined.document
    options = (examined.options or {}).get(keys)
    if options is None:  # a secret is missing: what the file says is all there is to show
        node = document.node(keys)
        values = {**part, **(plain(node) if node else {})}
    else:
        common = {key: part[key] for key in part if key not in type(options).model_fields}
        values = {**common, **options.model_dump(mode="json")}
    for key, value in values.items():
        yield from _walk(examined, (*keys, key), value)


def _walk(examined: Examined, keys: KeyPath, value: Any) -> Iterator[Setting]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _walk(examined, (*keys, key), child)
    elif isinstance(value, list) and any(isinstance(child, dict) for child in value):
        for index, child in enumerate(value):
            yield from _walk(examined, (*keys, index), child)
    else:
        yield _setting(examined, keys, value)


def _setting(examined: Examined, keys: KeyPath, value: Any) -> Setting:
    document = examined.document
    node = document.node(keys)
    if node is None:
        return Setting(dotted(keys), _masked(keys, value, None), "default")
    refers = _references(node)
    origin, env_file = _origin(refers, examined.variables)
    return Setting(
        key=dotted(keys),
        value=_masked(keys, value, node),
        origin=origin,
        place=f"{document.path}:{node.line}",
        reference=" ".join(refers),
        env_file=env_file,
    )


def _origin(refers: Sequence[str], variables: Variables) -> tuple[str, str]:
    """Return where a value comes from, and which files its variables stand in."""
    names = [name for reference in refers if (name := variable_of(reference))]
    files = dict.fromkeys(str(variables.files[name]) for name in names if name in variables.files)
    if names and all(name in variables.files for name in names):
        return "env_file", " ".join(files)
    return "environment" if names else "file", " ".join(files)


def _references(node: Node) -> tuple[str, ...]:
    if isinstance(node.value, list):
        return tuple(reference for child in node.value for reference in _references(child))
    return references(node.value) if isinstance(node.value, str) else ()


def _masked(keys: KeyPath, value: Any, node: Node | None) -> Any:
    """Return the value with everything in it hidden that is, or may well be, a secret."""
    if isinstance(value, list):
        nodes = node.value if node and isinstance(node.value, list) else [node] * len(value)
        return _masked_words(keys, value, nodes)
    if node and _references(node):
        return MASK
    if value not in (None, "", False, True) and _is_secret(keys):
        return MASK
    return mask(value) if isinstance(value, str) else value


def _masked_words(keys: KeyPath, words: list[Any], nodes: list[Any]) -> list[Any]:
    shown = []
    hide_next = False  # after an option such as --password comes the password
    for word, node in zip(words, nodes, strict=True):
        shown.append(MASK if hide_next else _masked(keys, word, node))
        hide_next = isinstance(word, str) and bool(re.match(r"--?\w", word)) and "=" not in word
        hide_next = hide_next and bool(_SECRET_KEY.search(word.replace("-", "_")))
    return shown


def _is_secret(keys: KeyPath) -> bool:
    own = keys[2:] if keys[0] in {*STORES, "plans"} else keys  # names are not keys
    return any(isinstance(key, str) and _SECRET_KEY.search(key) for key in own)


def mask(text: str) -> str:
    """Return a text without the passwords that URLs and arguments in it carry."""
    return _IN_TEXT.sub(rf"\1{MASK}", _IN_URL.sub(rf"\1:{MASK}@", text))
