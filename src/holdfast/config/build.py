"""From checked parts of the file to the values that runs use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from ..errors import SecretMissing
from ..model.retention import Keep
from ..model.stack import Check, Hooks, Plan, Selector, Services
from .interpolate import Revealed
from .schema import CheckPart, FilePart, HooksPart, KeepPart, PlanPart, SelectorPart, ServicesPart

Spec = TypeVar("Spec")


class Late(Mapping[str, Spec]):
    """Components or vaults by name. One whose secret is missing is missed only by who uses it.

    So `holdfast list` does not need the password of a database.
    """

    def __init__(
        self, names: Iterable[str], ready: Mapping[str, Spec], missing: Mapping[str, SecretMissing]
    ) -> None:
        self._names = tuple(name for name in names if name in ready or name in missing)
        self._ready = ready
        self._missing = missing

    def __getitem__(self, name: str) -> Spec:
        """Return one by its name. Raises `SecretMissing` where it cannot be complete."""
        if name in self._missing:
            raise SecretMissing(**self._missing[name].fields)
        return self._ready[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return f"Late({', '.join(self._names)})"


def plans(part: FilePart) -> dict[str, Plan]:
    """Return the plans by name."""
    return {name: _plan(name, plan) for name, plan in part.plans.items()}


def _plan(name: str, part: PlanPart) -> Plan:
    return Plan(
        name=name,
        components=part.components,
        vaults=part.vaults,
        keep=keep(part.keep) if part.keep else None,
        verify="" if part.verify == "none" else part.verify,
        archive=part.archive,
        schedule=part.schedule or "",
        timezone=part.timezone,
        rpo=part.rpo,
        rto=part.rto,
    )


def keep(part: KeepPart) -> Keep:
    """Return a retention policy."""
    return Keep(**{name: getattr(part, name) for name in KeepPart.model_fields})


def checks(part: FilePart) -> tuple[Check, ...]:
    """Return the checks in the order of the file."""
    return tuple(_check(check) for check in part.checks)


def _check(part: CheckPart) -> Check:
    return Check(
        name=part.name,
        component=part.component,
        sql=part.sql,
        left=_selector(part.left),
        right=_selector(part.right),
        one_way=part.one_way,
    )


def _selector(part: SelectorPart | None) -> Selector | None:
    return Selector(part.component, dict(part.__pydantic_extra__)) if part else None


def services(part: ServicesPart, raw: object) -> Services:
    """Return the services; ``raw`` is what the file gave, which knows what is secret."""
    return Services(
        stop=_kept_secret(part.stop, raw, "stop"),
        start=_kept_secret(part.start, raw, "start"),
        health=_kept_secret(part.health, raw, "health"),
        health_timeout=part.health_timeout,
    )


def hooks(part: HooksPart, raw: object) -> Hooks:
    """Return the hooks; ``raw`` is what the file gave, which knows what is secret."""
    return Hooks(
        **{name: _kept_secret(getattr(part, name), raw, name) for name in HooksPart.model_fields}
    )


def _kept_secret(words: tuple[str, ...], raw: object, key: str) -> tuple[str, ...]:
    """Return the words of a command with the revealed ones still masked where they are shown."""
    given = raw.get(key) if isinstance(raw, dict) else None
    if not isinstance(given, list):
        return words
    return tuple(
        Revealed(word) if isinstance(before, Revealed) else word
        for word, before in zip(words, given, strict=True)
    )
