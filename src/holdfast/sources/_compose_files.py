"""The compose files of a folder: which they are, how they are read, and how they add up."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from ._compose_yaml import Plain, read_yaml

LARGEST = 1 << 18  # bytes of a file; a compose file has some thousand
MOST = 20  # compose files of a folder
MOST_FOLDERS = 200
DEEPEST = 2  # folders below the one that is searched

FIRST = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
SECOND = tuple(name.replace("compose.", "compose.override.") for name in FIRST)
_COMPOSE = re.compile(r"(?:docker-)?compose(?:[.-][\w.-]+)?\.ya?ml", re.ASCII)
_SKIPPED = frozenset({
    "__pycache__", "backups", "build", "dist", "node_modules", "site-packages", "src", "target",
    "tests", "vendor", "venv",
})  # fmt: skip


class Unreadable(Exception):
    """A file that is there and cannot be read; says why."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A service as it is written, apart from the forms that each key may have."""

    file: str
    image: str = ""
    aliases: tuple[str, ...] = ()
    environment: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    env_files: tuple[str, ...] = ()
    ports: tuple[Plain, ...] = ()
    volumes: tuple[Plain, ...] = ()
    command: tuple[str, ...] = field(default=(), repr=False)
    on_host: bool = False
    emptied: frozenset[str] = frozenset()  # keys that take nothing over from an earlier file

    def over(self, other: Raw) -> Raw:
        """Return another file's service with this one's said over it, as compose adds them up."""
        return replace(
            self,
            image=self.image or other.image,
            aliases=self.aliases + other.aliases,
            environment={**other.environment, **self.environment},
            env_files=other.env_files + self.env_files,
            ports=self.ports if "ports" in self.emptied else self.ports + other.ports,
            volumes=self.volumes + other.volumes,
            command=self.command or other.command,
            on_host=self.on_host or other.on_host,
        )

    def beside(self, other: Raw) -> Raw:
        """Return this service with what only a variant of its file says about it."""
        return replace(
            self.over(other),
            ports=self.ports or (() if "ports" in self.emptied else other.ports),
            env_files=self.env_files or other.env_files,
        )


def folders_of(folder: Path) -> list[Path]:
    """Return the folder and those below it that may hold compose files, in order."""
    found: list[Path] = []

    def look(place: Path, depth: int) -> None:
        found.append(place)
        if depth >= DEEPEST:
            return
        for name in _names(place, folders=True):
            worth = not name.startswith(".") and name not in _SKIPPED
            if worth and len(found) < MOST_FOLDERS and not (place / name / ".holdfast").exists():
                look(place / name, depth + 1)

    look(folder, 0)
    return found


def _names(folder: Path, *, folders: bool) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) == folders)
    except OSError:  # not ours to look at: nothing to propose there
        return []


class Files:
    """The files below one folder, and a line for each that was left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left_out: dict[str, None] = {}
        self._seen: set[str] = set()  # compose files: one that was named is not found again

    @property
    def left_out(self) -> list[str]:
        """One line for each file that was not read, and why."""
        return list(self._left_out)

    def leave_out(self, path: Path, reason: str) -> None:
        """Remember that a file could not be used."""
        self._left_out[f"{self.name(path)}: {reason}"] = None

    def name(self, path: Path) -> str:
        """Return a path as people read it: from the folder that is searched."""
        return os.path.relpath(path, self._folder)

    def content(self, path: Path) -> str:
        """Return the text of a file below the folder, never waiting for it.

        Raises:
            FileNotFoundError: it is not there.
            Unreadable: it is not a file of text that may be read here.

        """
        if ".." in PurePath(self.name(path)).parts:
            raise Unreadable("lies outside of the folder that is searched")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("is not a file")
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Unreadable(f"is larger than {LARGEST >> 10} KiB")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Unreadable("is not UTF-8 text") from None

    def declared(self, folder: Path, named: Sequence[str]) -> Declared:
        """Return what a folder's compose files declare, added up.

        ``named`` are the files of ``COMPOSE_FILE``. Without them it is the usual file with its
        override; other variants, of which nobody knows whether they are in use, only say what those
        do not.
        """
        files = _names(folder, folders=False)
        there = [name for name in files if _COMPOSE.fullmatch(name) and self._new(folder / name)]
        main = list(named) or [
            *[name for name in FIRST if name in there][:1],
            *[name for name in SECOND if name in there][:1],
        ]
        whole = Declared()
        for name in main:
            whole.add(self._read(folder / name), lambda new, old: new.over(old))
        for name in there[:MOST]:
            if name not in main:
                whole.add(self._read(folder / name), lambda new, old: old.beside(new))
        return whole

    def _new(self, path: Path) -> bool:
        return self.name(path) not in self._seen

    def _read(self, path: Path) -> Declared:
        self._seen.add(self.name(path))
        try:
            document = read_yaml(self.content(path))
            services = _mappings(document, "services")
            if not services:
                self.leave_out(path, "declares no services")
        except (Unreadable, FileNotFoundError, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            self.leave_out(path, "does not exist" if missing else str(error))
            return Declared()
        where = self.name(path)
        return Declared(
            {name: _raw(service, where) for name, service in services.items()},
            dict(_secrets(document, os.path.dirname(where))),  # noqa: PTH120 - a name, not a path
        )


@dataclass(frozen=True, slots=True)
class Declared:
    """Services by name; and secrets, by name, as a configuration refers to them."""

    services: dict[str, Raw] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, other: Declared, together: Callable[[Raw, Raw], Raw]) -> None:
        """Take in another file's; ``together`` makes one of the new and the old of a service."""
        for name, raw in other.services.items():
            old = self.services.get(name)
            self.services[name] = together(raw, old) if old else raw
        for name, reference in other.secrets.items():
            self.secrets.setdefault(name, reference)


def _mappings(document: Plain, key: str) -> dict[str, dict[str, Plain]]:
    """Return those of the values below a key of a document that are mappings."""
    values = document.get(key) if isinstance(document, dict) else None
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, dict)}


def _secrets(document: Plain, folder: str) -> Iterator[tuple[str, str]]:
    for name, secret in _mappings(document, "secrets").items():
        file, variable = secret.get("file"), secret.get("environment")
        if isinstance(file, str) and not set(file) & set("${}"):
            yield name, f"${{file:{PurePath(folder, file)}}}"
        elif isinstance(variable, str):
            yield name, f"${{env:{variable}}}"


def _raw(service: Mapping[str, Plain], file: str) -> Raw:
    image, network = service.get("image"), service.get("network_mode")
    return Raw(
        file=file,
        image=image if isinstance(image, str) else "",
        aliases=tuple(_aliases(service)),
        environment=dict(_environment(service.get("environment"))),
        env_files=tuple(_paths(service.get("env_file"))),
        ports=tuple(_items(service.get("ports"))),
        volumes=tuple(_items(service.get("volumes"))),
        command=(*_words(service.get("entrypoint")), *_words(service.get("command"))),
        on_host=network == "host",
        emptied=frozenset(key for key, value in service.items() if value is None),
    )


def _items(value: Plain) -> list[Plain]:
    return value if isinstance(value, list) else []


def _words(value: Plain) -> Iterable[str]:
    words = [value] if isinstance(value, str) else _items(value)
    return (word for word in words if isinstance(word, str))


def _aliases(service: Mapping[str, Plain]) -> Iterator[str]:
    for key in ("container_name", "hostname"):
        if isinstance(name := service.get(key), str):
            yield name
    networks = service.get("networks")
    for network in networks.values() if isinstance(networks, dict) else ():
        if isinstance(network, dict):
            yield from _words(network.get("aliases"))


def _environment(value: Plain) -> Iterator[tuple[str, str | None]]:
    """Give the variables of a mapping or of a list of ``NAME=value``."""
    if isinstance(value, dict):
        yield from ((n, t) for n, t in value.items() if t is None or isinstance(t, str))
    for item in _words(_items(value)):
        name, equals, text = item.partition("=")
        yield name, text if equals else None


def _paths(value: Plain) -> Iterator[str]:
    """Give the paths of ``env_file``: one, several, or several mappings with a ``path``."""
    for item in value if isinstance(value, list) else [value]:
        path = item.get("path") if isinstance(item, dict) else item
        if isinstance(path, str):
            yield path
