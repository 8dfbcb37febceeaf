"""Which kinds of source and vault there are; each is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ..config.kinds import Kinds
from ..errors import ExtraMissing, UnknownName
from ..model.facts import Discovery
from ..model.options import Options
from ..model.stack import VaultSpec
from ..ports import Vault
from .stores import open_store

SOURCES = {
    "chroma": "holdfast.sources.chroma:ChromaSource",
    "files": "holdfast.sources.files:FilesSource",
    "qdrant": "holdfast.sources.qdrant:QdrantSource",
    "objects": "holdfast.sources.objects:ObjectsSource",
    "postgres": "holdfast.sources.postgres:PostgresSource",
    "redis": "holdfast.sources.redis:RedisSource",
    "sqlite": "holdfast.sources.sqlite:SqliteSource",
}
VAULTS = {
    "plain": "holdfast.vaults.plain:PlainVault",
    "repository": "holdfast.vaults.repository.vault:RepositoryVault",
}


def source_class(kind: str) -> Any:
    """Return the class of a kind of source.

    Raises:
        UnknownName: there is no such kind.
        ExtraMissing: its driver is not installed.

    """
    return _load(kind, SOURCES, "kind of source")


def vault_class(kind: str) -> Any:
    """Return the class of a kind of vault; raises `UnknownName`."""
    return _load(kind, VAULTS, "kind of vault")


def _load(kind: str, table: Mapping[str, str], what: str) -> Any:
    if kind not in table:
        raise UnknownName(what=what, name=kind, known=", ".join(sorted(table)))
    module, _colon, name = table[kind].partition(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        package = error.name or module
        if package.startswith("holdfast"):
            raise  # a bug of ours, not a missing driver
        raise ExtraMissing(what=f"{what} {kind}", package=package, extra=kind) from error


def open_vault(spec: VaultSpec) -> Vault:
    """Return a vault on the store that its URL names."""
    kind = vault_class(spec.kind)
    store = open_store(spec.name, spec.options, kind.passing)
    return cast("Vault", kind(spec.name, store, spec.options))


def scratch_vault(folder: Path) -> Vault:
    """Return a plain vault in a folder of our own, for a while."""
    kind = vault_class("plain")
    options = kind.options_model(url=folder)
    return cast("Vault", kind("scratch", open_store("scratch", options, kind.passing), options))


def kinds() -> Kinds:
    """Return, for each kind of source and vault, how to get the model of its options."""
    return Kinds(
        sources={kind: _options(source_class, kind) for kind in SOURCES},
        vaults={kind: _options(vault_class, kind) for kind in VAULTS},
    )


def _options(load: Callable[[str], Any], kind: str) -> Callable[[], type[Options]]:
    return lambda: cast("type[Options]", load(kind).options_model)


def discoveries(folder: Path) -> list[Discovery]:
    """Return what every kind of source finds below a folder; `unread` tells what could not be."""
    return [found for kind in _installed() for found in source_class(kind).discover(folder)]


def unread(folder: Path) -> list[str]:
    """Return a line for each file that could not be read, and each kind that was not looked for."""
    absent = [f"{error}; {error.hint}" for error in _absent().values()]
    return [*import_module("holdfast.sources._compose").survey(folder).left_out, *absent]


def _installed() -> list[str]:
    absent = _absent()
    return [kind for kind in SOURCES if kind not in absent]


def _absent() -> dict[str, ExtraMissing]:
    """Return the kinds whose driver is not installed."""
    absent = {}
    for kind in SOURCES:
        try:
            source_class(kind)
        except ExtraMissing as error:
            absent[kind] = error
    return absent
