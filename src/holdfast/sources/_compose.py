"""What compose files and ``.env`` below a folder tell of the servers of a stack.

Read as Docker Compose reads them, but with indulgence: what is broken or hostile is left out, and
said. Nothing here knows which image is which store; that is each kind's own `_…_find` module.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.model.dotenv import parse, substitute

from ._compose_files import Files, Raw, Unreadable, folders_of
from ._compose_ports import Port, read_ports
from ._compose_yaml import Plain

SECRET = re.compile(r"passw|pwd|pass$|secret|token|key|credential", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Value:
    """A variable as it is written and as it is meant. Both may be secret, and are not shown.

    ``file`` is the file of variables that it stands in, from the folder that is searched; empty for
    one that stands in a compose file.
    """

    name: str
    written: str = field(repr=False)
    text: str = field(repr=False)
    file: str = ""


Scope = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a compose file."""

    name: str
    file: str  # the compose file, from the folder that is searched
    image: str  # without registry, tag and digest: `bitnami/redis`
    aliases: frozenset[str]  # other names that its neighbours reach it by
    environment: Scope
    ports: tuple[Port, ...]
    volumes: tuple[tuple[Path, str], ...]  # folders of this machine, and what they are inside
    command: tuple[Value, ...]  # the words of entrypoint and command
    on_host: bool  # it has this machine's own network

    def variable(self, *names: str) -> Value | None:
        """Return the first of these variables that is set to anything."""
        return first(self.environment, names)

    def text(self, *names: str, default: str = "") -> str:
        """Return the text of the first of these variables that is set to anything."""
        value = self.variable(*names)
        return value.text if value else default


def first(scope: Scope, names: Sequence[str]) -> Value | None:
    """Return the first of these variables that is set to anything."""
    return next((scope[name] for name in names if name in scope and scope[name].text), None)


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with compose files, with a ``.env``, or with both."""

    folder: Path
    variables: Scope  # of its `.env`
    services: tuple[Service, ...]
    secrets: Mapping[str, str]  # of compose files: name → how a configuration refers to it
    ambiguous: frozenset[str]  # variables with different values in different files of variables
    several: frozenset[str]  # the same, with what stands in the compose files too

    def scopes(self) -> Iterator[tuple[Service | None, Scope]]:
        """Give the variables of ``.env``, and of every service."""
        yield None, self.variables
        for service in self.services:
            yield service, service.environment

    def service(self, host: str) -> Service | None:
        """Return the service that others reach by the name ``host``."""
        named = (s for s in self.services if host == s.name or host in s.aliases)
        return next(named, None)


@dataclass(frozen=True, slots=True)
class Survey:
    """Everything that was read, and one line for each file that could not be."""

    projects: tuple[Project, ...]
    left_out: tuple[str, ...]


def survey(folder: Path, environment: Mapping[str, str] | None = None) -> Survey:
    """Read the compose files and ``.env`` of a folder and of those below it; never raises for them.

    ``environment`` is what variables refer to before they refer to ``.env``; the process's own.
    """
    outer = os.environ if environment is None else environment
    files = Files(folder)
    readings = [_Reading(files, below, outer) for below in folders_of(folder)]
    ambiguous = _ambiguous(meaning for reading in readings for meaning in reading.meanings)
    several = _ambiguous(
        (name, value.text)
        for reading in readings
        for scope in (reading.variables, *(service.environment for service in reading.services))
        for name, value in scope.items()
    )
    projects = [
        Project(
            folder=reading.folder,
            variables=reading.variables,
            services=tuple(reading.services),
            secrets=reading.secrets,
            ambiguous=ambiguous,
            several=several,
        )
        for reading in readings
        if reading.variables or reading.services
    ]
    return Survey(tuple(projects), tuple(files.left_out))


def _ambiguous(meanings: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return the names that are given with more than one value."""
    known: dict[str, str] = {}
    return frozenset(name for name, text in meanings if known.setdefault(name, text) != text)


class _Reading:
    """One folder being read."""

    def __init__(self, files: Files, folder: Path, outer: Mapping[str, str]) -> None:
        self.folder = folder
        self.meanings: list[tuple[str, str]] = []  # of variables in files of variables
        self._files = files
        self._outer = outer
        self.variables = self._env_file(".env", {})
        self._known = {name: value.text for name, value in self.variables.items()}
        separator = self._known.get("COMPOSE_PATH_SEPARATOR") or ":"
        named = self._known.get("COMPOSE_FILE", "").split(separator)
        declared = files.declared(folder, list(filter(None, named)))
        self.secrets = declared.secrets
        self.services = [
            service
            for name, raw in declared.services.items()
            if (service := self._service(name, raw))
        ]

    def _env_file(self, name: str, known: Mapping[str, str]) -> dict[str, Value]:
        """Return the variables of a file; none where it is not there or cannot be read."""
        path = self.folder / name
        try:
            found = parse(self._files.content(path), {**known, **self._outer})
        except FileNotFoundError:
            return {}
        except (Unreadable, ValueError) as error:
            self._files.leave_out(path, str(error))
            return {}
        self.meanings += found.items()
        where = self._files.name(path)
        return {name: Value(name, text, text, where) for name, text in found.items()}

    def _service(self, name: str, raw: Raw) -> Service | None:
        try:
            return Service(
                name=name,
                file=raw.file,
                image=image_name(self._text(raw.image)),
                aliases=frozenset(self._text(alias) for alias in raw.aliases),
                environment=self._environment(raw),
                ports=tuple(read_ports(raw.ports, self._text)),
                volumes=tuple(self._volumes(raw.volumes)),
                command=tuple(self._words(raw.command)),
                on_host=raw.on_host,
            )
        except ValueError as error:
            self._files.leave_out(self.folder, f"service {name}: {error}")
            return None

    def _text(self, written: str) -> str:
        return substitute(written, lambda name: self._outer.get(name, self._known.get(name)))

    def _value(self, name: str, written: str) -> Value:
        return Value(name, written, self._text(written))

    def _environment(self, raw: Raw) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for name in raw.env_files:
            found |= self._env_file(self._text(name), self._known)
        for name, written in raw.environment.items():
            if written is not None:
                found[name] = self._value(name, written)
            elif name in self.variables:  # handed on from there
                found[name] = self.variables[name]
        return found

    def _volumes(self, volumes: Sequence[Plain]) -> Iterator[tuple[Path, str]]:
        for volume in volumes:
            if isinstance(volume, dict):
                source, target = volume.get("source"), volume.get("target")
            else:
                source, _colon, target = self._text(str(volume)).partition(":")
            if isinstance(source, str) and isinstance(target, str):
                where = self._text(source)
                if where.startswith((".", "/", "~")):
                    inside = self._text(target).partition(":")[0]
                    yield self.folder / os.path.expanduser(where), inside  # noqa: PTH111 - no raise

    def _words(self, command: Sequence[str]) -> Iterator[Value]:
        """Give the words of a command, and of the shell commands in it."""
        for line in command:
            for word in _split(line):
                inner = [word] if word == line else _split(word)
                yield from (self._value("", written) for written in inner)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def image_name(image: str) -> str:
    """Return an image's name without registry, tag and digest: ``pgvector/pgvector``."""
    parts = image.partition("@")[0].split("/")
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        del parts[0]
    parts[-1] = parts[-1].partition(":")[0]
    if parts[-2:-1] == ["library"]:
        parts = parts[-1:]
    return "/".join(parts).lower()
