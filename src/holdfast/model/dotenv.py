"""Files of variables such as ``.env``, read as Docker Compose reads them.

``NAME=value`` on each line, ``export`` in front or not; ``#`` begins a comment. A value in single
quotes is meant literally. One in double quotes may have escapes in it, and may go over several
lines. Outside of single quotes ``$NAME`` and ``${NAME}`` stand for other variables, with
``${NAME:-default}`` and its kin; ``$$`` is a ``$``. What such files hold may be secret, so no error
quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from ..i18n import _

LARGEST_VALUE = 1 << 16  # characters; variables that double one another would fill the memory
DEEPEST = 20  # defaults within defaults

Lookup = Callable[[str], str | None]

_KEY = re.compile(r"(?:export[ \t]+)?(?P<key>[A-Za-z_][\w.\-]*)[ \t]*", re.ASCII)
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_SINGLE = re.compile(r"[ \t]*'((?:\\.|[^'\\])*)'", re.DOTALL)
_DOUBLE = re.compile(r'[ \t]*"((?:\\.|[^"\\])*)"', re.DOTALL)
_BARE = re.compile(r"[ \t]*(?![ \t'\"])[^\n]*")
_COMMENT = re.compile(r"[ \t]#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "b": "\b", "a": "\a", "v": "\v", "$": "$$"}

_MARK = re.compile(r"\$\$|\$\{|\}")
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(rf"\$(?:(?P<dollar>\$)|(?P<name>{_NAME})|(?P<braced>\{{))", re.ASCII)
_INSIDE = re.compile(rf"(?P<name>{_NAME})(?:(?P<how>:?[-+?])|\Z)", re.ASCII)
_WHOLE = re.compile(rf"\$(?:({_NAME})|\{{({_NAME})(?::?[-?].*)?\}})", re.ASCII | re.DOTALL)


def parse(text: str, outer: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a file. ``outer`` is the environment, which wins where values refer.

    Raises ``ValueError`` with the number of the line that cannot be read.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}

    def look_up(name: str) -> str | None:
        return outer.get(name, found.get(name))

    position = 0
    while position < len(text):
        if blank := _BLANK.match(text, position):
            position = blank.end()
            continue
        line = text.count("\n", 0, position) + 1
        key, value, position = _variable(text, position, line, look_up)
        if value is not None:
            found[key] = value
    return found


def _variable(text: str, position: int, line: int, look_up: Lookup) -> tuple[str, str | None, int]:
    """Return a name, its value, and where the next line begins."""
    while text[position] in " \t":
        position += 1
    key = _KEY.match(text, position)
    if key is None:
        raise _wrong(line, _("there is no NAME=value"))
    position = key.end()
    if _BLANK.match(text, position):
        # A name alone hands on what the environment has.
        return key["key"], look_up(key["key"]), _next_line(text, position, line)
    if text[position] not in "=:":
        raise _wrong(line, _("there is no NAME=value"))
    try:
        value, position = _value(text, position + 1, look_up)
    except ValueError as error:
        raise _wrong(line, str(error)) from None
    return key["key"], value, _next_line(text, position, line)


def _value(text: str, position: int, look_up: Lookup) -> tuple[str, int]:
    if bare := _BARE.match(text, position):
        return substitute(_COMMENT.sub("", bare[0]).strip(), look_up), bare.end()
    if single := _SINGLE.match(text, position):
        return single[1].replace("\\'", "'"), single.end()
    if double := _DOUBLE.match(text, position):
        unescaped = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), double[1])
        return substitute(unescaped, look_up), double.end()
    raise ValueError(_("a quote is not closed"))


def _next_line(text: str, position: int, line: int) -> int:
    rest = _BLANK.match(text, position)
    if rest is None:
        raise _wrong(line, _("something follows the closing quote"))
    return rest.end()


def _wrong(line: int, problem: str) -> ValueError:
    return ValueError(_("line {line}: {problem}").format(line=line, problem=problem))


def substitute(template: str, look_up: Lookup) -> str:
    """Return a text with its variables replaced; one that is not set is empty.

    A ``$`` that begins no variable stays. Raises ``ValueError`` where the result is too large.
    """
    if "$" not in template:
        return template
    return _Substitution(template, look_up).between(0, len(template), 0)


def variable_of(template: str) -> str:
    """Return the name of the one variable that a text consists of; empty if it is anything else."""
    whole = _WHOLE.fullmatch(template.strip())
    return (whole[1] or whole[2]) if whole else ""


class _Substitution:
    """One text whose variables are replaced; what is between two places of it is a text, too."""

    def __init__(self, template: str, look_up: Lookup) -> None:
        self._template = template
        self._look_up = look_up
        self._closings = _closings(template)

    def between(self, start: int, end: int, depth: int) -> str:
        parts: list[str] = []
        size = 0
        position = start
        while token := _TOKEN.search(self._template, position, end):
            parts.append(self._template[position : token.start()])
            given, position = self._replacement(token, end, depth)
            parts.append(given)
            size += len(parts[-1]) + len(parts[-2])
            if size > LARGEST_VALUE:
                problem = _("its variables make it longer than {limit} characters")
                raise ValueError(problem.format(limit=LARGEST_VALUE))
        return "".join([*parts, self._template[position:end]])

    def _replacement(self, token: re.Match[str], end: int, depth: int) -> tuple[str, int]:
        """Return what takes the place of a token, and where to go on."""
        if token["dollar"]:
            return "$", token.end()
        if token["name"]:
            return self._look_up(token["name"]) or "", token.end()
        closing = self._closings.get(token.start(), end)
        inside = _INSIDE.match(self._template, token.end(), closing)
        if closing >= end or inside is None or depth >= DEEPEST:
            return "${", token.end()
        word = (inside.end(), closing, depth + 1)
        return self._chosen(inside["name"], inside["how"] or "", word), closing + 1

    def _chosen(self, name: str, how: str, word: tuple[int, int, int]) -> str:
        """Return a variable's value, or what stands beside its name."""
        value = self._look_up(name)
        there = bool(value) if how.startswith(":") else value is not None
        if how.endswith("+"):
            return self.between(*word) if there else ""
        if how.endswith("-") and not there:
            return self.between(*word)
        return value or ""


def _closings(template: str) -> dict[int, int]:
    """Return for each ``${`` where the brace is that closes it."""
    opened: list[int] = []
    closings = {}
    for mark in _MARK.finditer(template):
        if mark[0] == "${":
            opened.append(mark.start())
        elif mark[0] == "}" and opened:
            closings[opened.pop()] = mark.start()
    return closings
