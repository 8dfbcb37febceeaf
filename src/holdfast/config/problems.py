"""What is wrong with a file, in plain words, with the place and what to do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..errors import ConfigInvalid
from ..i18n import N_, _
from .document import Document, invalid
from .interpolate import references
from .nodes import KeyPath, Node

_MUST_BE: Mapping[str, str] = {
    "string_type": N_("must be text"),
    "string_too_short": N_("is empty"),
    "bool_type": N_("must be true or false"),
    "bool_parsing": N_("must be true or false"),
    "int_type": N_("must be a whole number"),
    "int_parsing": N_("must be a whole number"),
    "int_parsing_size": N_("must be a smaller number"),
    "int_from_float": N_("must be a whole number"),
    "float_type": N_("must be a number"),
    "float_parsing": N_("must be a number"),
    "list_type": N_("must be a list"),
    "tuple_type": N_("must be a list"),
    "dict_type": N_("must be a mapping of names to values"),
    "model_type": N_("must be a mapping of keys to values"),
    "model_attributes_type": N_("must be a mapping of keys to values"),
    "path_type": N_("must be a path"),
}
_MUST_BE_LIKE: Mapping[str, str] = {
    "literal_error": N_("must be {expected}"),
    "greater_than_equal": N_("must be at least {ge}"),
    "less_than_equal": N_("must be at most {le}"),
}
_ADVICE: Mapping[str, str] = {
    "string_type": N_("put it in quotes if it is meant as text"),
    "bool_type": N_("write true or false, without quotes"),
    "bool_parsing": N_("write true or false, without quotes"),
    "list_type": N_("write a list: [first, second]"),
    "tuple_type": N_("write a list: [first, second]"),
    "dict_type": N_("write `name: value` on lines of their own, indented"),
    "model_type": N_("write `key: value` on lines of their own, indented"),
    "path_type": N_("write the path as text"),
}


Located = tuple[KeyPath, ConfigInvalid]


def from_validation(
    error: ValidationError,
    document: Document,
    base: KeyPath,
    model: type[BaseModel],
    common: Iterable[str] = (),
) -> Iterator[Located]:
    """Translate what pydantic found below ``base``; ``common`` keys are known there as well."""
    found = error.errors(include_url=False, include_input=False)
    mistyped: set[KeyPath] = set()
    for item in found:
        loc = tuple(item["loc"])
        if item["type"] == "extra_forbidden":
            known = [*_known(model, loc[:-1]), *(common if len(loc) == 1 else ())]
            mistyped |= {(*loc[:-1], near) for near in get_close_matches(str(loc[-1]), known, n=1)}
            yield _unknown_key(document, (*base, *loc), known)
    for item in found:
        loc = tuple(item["loc"])
        if item["type"] == "missing":
            if loc not in mistyped:  # said already, and better, by the key that is not known
                yield _missing_key(document, (*base, *loc))
        elif item["type"] != "extra_forbidden":
            yield _wrong_value(document, (*base, *loc), dict(item))


def _unknown_key(document: Document, keys: KeyPath, known: Collection[str]) -> Located:
    problem = _("`{key}` is not a key that is known here").format(key=keys[-1])
    return _located(document, keys, problem, nearest(str(keys[-1]), known))


def _missing_key(document: Document, keys: KeyPath) -> Located:
    above, _node = document.nearest(keys[:-1])
    problem = _("`{key}` is missing").format(key=keys[-1])
    return _located(document, above, problem, _("add it; the configuration reference describes it"))


def _wrong_value(document: Document, keys: KeyPath, item: dict[str, Any]) -> Located:
    keys, node = document.nearest(keys)
    kind = item["type"]
    if found := _references(node):  # what they give may be a secret, so nothing of it is told
        problem = _("{reference} does not give what is wanted here ({kind})")
        problem = problem.format(reference=found[0], kind=kind.replace("_", " "))
        return _located(document, keys, problem, _("correct what it refers to"))
    return _located(document, keys, _problem(item, node), _(_ADVICE.get(kind, "")))


def _problem(item: dict[str, Any], node: Node) -> str:
    kind, details = item["type"], item.get("ctx", {})
    if kind in _MUST_BE:
        return _("has no value") if node.value is None else _(_MUST_BE[kind])
    if kind in {"value_error", "assertion_error"}:
        return str(details["error"])
    if kind in _MUST_BE_LIKE:
        return _(_MUST_BE_LIKE[kind]).format(**details)
    return str(item["msg"])


def _references(node: Node) -> tuple[str, ...]:
    """Return the references at or below a place: what they give must not be quoted."""
    if isinstance(node.value, str):
        try:
            return references(node.value)
        except ValueError:
            return ()
    children: Iterable[Node] = ()
    if isinstance(node.value, dict):
        children = node.value.values()
    elif isinstance(node.value, list):
        children = node.value
    return tuple(reference for child in children for reference in _references(child))


def _located(document: Document, keys: KeyPath, problem: str, advice: str = "") -> Located:
    return keys, invalid(document.place(keys), problem, advice)


def nearest(name: str, known: Collection[str]) -> str:
    """Return the advice for an unknown name: the nearest known one, then all of them."""
    listed = _("known: {names}").format(names=", ".join(sorted(known)) or _("none"))
    near = get_close_matches(name, known, n=1)
    return _("did you mean `{name}`? ").format(name=near[0]) + listed if near else listed


def _known(model: type[BaseModel], loc: KeyPath) -> list[str]:
    """Return the keys that a model knows at a place below it."""
    current: type[BaseModel] | None = model
    inside = False  # a mapping or list of models, whose next key is a name or an index
    for key in loc:
        if inside:
            inside = False
            continue
        if current is None or key not in current.model_fields:
            return []
        annotation = current.model_fields[str(key)].annotation
        current, inside = _model_in(annotation), _is_container(annotation)
    return sorted(current.model_fields) if current else []


def _is_container(annotation: Any) -> bool:
    return get_origin(annotation) in {dict, list, tuple}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in get_args(annotation):
        if found := _model_in(inner):
            return found
    return None
