"""Where the servers of a stack are, seen from this machine, and how their secrets are referred to.

The value of a secret never leaves this module: what is proposed names the variable that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from urllib.parse import SplitResult, unquote, urlsplit

from holdfast.model.dotenv import variable_of
from holdfast.model.facts import Discovery, Json

from ._compose import SECRET, Project, Scope, Service, Value, first

_PASSWORD = re.compile(r"://[^/?#]*?:(?P<password>(?:\$\{[^}]*\}|[^/?#@])*)@")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
_LOOPBACK = {"127.0.0.1", "::1"}
_HERE = {"localhost", "0.0.0.0", "host.docker.internal", *_LOOPBACK}  # noqa: S104 - only compared


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is. ``remark`` is what a person must do before it can be reached."""

    host: str
    port: int
    remark: str = ""
    service: Service | None = None

    @property
    def sound(self) -> bool:
        """Whether there can be such a place at all."""
        try:
            named = bool(_HOST.fullmatch(self.host) or IPv6Address(self.host))
        except ValueError:
            return False
        return named and 0 < self.port < 1 << 16

    @property
    def netloc(self) -> str:
        """Return it as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, scheme: str) -> str:
        """Return the URL; a port that its scheme means anyhow is left out."""
        usual = {"http": 80, "https": 443}.get(scheme) == self.port
        return f"{scheme}://{self.netloc.removesuffix(f':{self.port}') if usual else self.netloc}"

    @property
    def key(self) -> tuple[str, int]:
        """Return what is the same for every way to write this place."""
        return ("localhost" if self.host in _HERE else self.host.lower()), self.port


def place_of(service: Service, port: int) -> Place:
    """Return where this machine reaches a port of a service."""
    if service.on_host:
        return Place("localhost", port, service=service)
    published = [one for one in service.ports if one.target == port]
    for one in published:
        if one.published is not None:
            return Place(one.host.strip("[]"), one.published, service=service)
    line = f'ports: ["127.0.0.1:{port}:{port}"]'
    what = "publishes its port under a number that changes" if published else "publishes no port"
    remark = f"{service.name} {what}: give it `{line}` in {service.file}"
    return Place("localhost", port, remark, service)


def reached(project: Project, host: str, port: int) -> Place:
    """Return where this machine reaches what the services of a project know as ``host:port``."""
    if service := project.service(host):
        return place_of(service, port)
    if host.lower() not in _HERE:
        return Place(host, port)
    published = (s for s in project.services for one in s.ports if one.published == port)
    here = host if host in _LOOPBACK else "localhost"
    return Place(here, port, service=next(published, None))


# --- secrets -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secret:
    """How the configuration refers to a secret."""

    reference: str  # `${env:NAME}` or `${file:path}`
    env_file: str = ""  # the file of variables that NAME stands in
    remark: str = ""  # what a person must do for it


def secret_of(project: Project, value: Value | None, owner: Service | None = None) -> Secret | None:
    """Return how to refer to the text of a variable; None where there is none to refer to."""
    if value is None or not value.text:
        return None
    if value.file and value.name not in project.ambiguous:
        return Secret(f"${{env:{value.name}}}", value.file)
    name = variable_of(value.written)
    if name in project.variables and name not in project.ambiguous:
        return Secret(f"${{env:{name}}}", project.variables[name].file)
    where = value.file or (owner.file if owner else "the environment")
    wanted = _free(project, name or value.name, owner)
    return _to_be_set(wanted, f"the value that {where} has")


def secret_of_service(project: Project, service: Service, *names: str) -> Secret | None:
    """Return how to refer to the first of a service's variables, or to the file that it names.

    ``NAME_FILE`` names the place inside the service of one of the project's `secrets`.
    """
    if value := service.variable(*names):
        return secret_of(project, value, service)
    for name in names:
        _run, mounted, secret = service.text(f"{name}_FILE").partition("/run/secrets/")
        if mounted and secret in project.secrets:
            return Secret(project.secrets[secret])
        if service.text(f"{name}_FILE"):
            return _to_be_set(name, f"what is in the {name}_FILE of {service.name}")
    return None


def _free(project: Project, name: str, owner: Service | None) -> str:
    """Return a name like this one that stands for nothing else."""
    if name not in project.variables and name not in project.several | project.ambiguous:
        return name
    if owner is None:
        return f"{project.folder.name}_{name}"
    folder = f"{project.folder.name}_" if "/" in owner.file else ""
    return f"{folder}{owner.name}_{name}"


def _to_be_set(name: str, what: str) -> Secret:
    name = re.sub(r"\W", "_", name, flags=re.ASCII).upper()
    return Secret(f"${{env:{name}}}", remark=f"set {name} to {what}")


# --- URLs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A URL of a server in some variable, without its password."""

    variable: str
    place: Place
    parts: SplitResult = field(repr=False)
    password: Secret | None = None

    @property
    def user(self) -> str:
        """Return who logs in; empty if the URL does not say."""
        return unquote(self.parts.username or "")


def urls(project: Project, schemes: Iterable[str], port: int) -> Iterator[Found]:
    """Give every URL of these schemes in the variables of a project. ``port`` is the usual one.

    Of ``postgresql+asyncpg`` only what stands before the ``+`` counts.
    """
    wanted = frozenset(schemes)
    for owner, scope in project.scopes():
        for value in scope.values():
            parts = split(value.text)
            if parts is None or parts.scheme.partition("+")[0] not in wanted:
                continue
            host = parts.hostname or "localhost"
            place = reached(project, host, parts.port or port)
            yield Found(value.name, place, parts, _password(project, scope, value, owner))


def split(text: str) -> SplitResult | None:
    """Return the parts of a URL; None where a text is none."""
    if "://" not in text or any(character.isspace() for character in text):
        return None
    try:
        parts = urlsplit(text)
        _port = parts.port  # raises where it is no number
    except ValueError:
        return None
    return parts


def http_address(
    scope: Scope, urls: Sequence[str], hosts: Sequence[str], ports: Sequence[str], port: int
) -> tuple[str, str, int] | None:
    """Return scheme, host and port that variables of these names give; None where they give none.

    ``port`` is the usual one. Some write a URL where a host is wanted.
    """
    host = first(scope, hosts)
    url = first(scope, urls) or host
    parts = split(url.text) if url else None
    if parts and parts.hostname and parts.scheme in {"http", "https"}:
        return parts.scheme, parts.hostname, parts.port or number(scope, ports, port)
    if host and "/" not in host.text:
        return "http", host.text, number(scope, ports, port)
    return None


def number(scope: Scope, names: Sequence[str], default: int) -> int:
    """Return the first of these variables that is set, as a number; else the default."""
    value = first(scope, names)
    return int(value.text) if value and value.text.isdecimal() else default


def _password(project: Project, scope: Scope, value: Value, owner: Service | None) -> Secret | None:
    """Return how to refer to the password within a URL, by itself."""
    parts = split(value.text)
    password = unquote(parts.password or "") if parts else ""
    if not password:
        return None
    written = _PASSWORD.search(value.written)
    if written and (name := variable_of(written["password"])):
        inner = Value(name, written["password"], password)
        return secret_of(project, inner, owner)
    for same in (*project.variables.values(), *scope.values()):
        if same.text == password and SECRET.search(same.name):
            return secret_of(project, same, owner)
    own = _free(project, value.name, owner) if value.name in project.several else value.name
    stem = re.sub(r"_?(URL|URI|DSN)$", "", own, flags=re.IGNORECASE) or own
    return _to_be_set(f"{stem}_PASSWORD", f"the password in {value.name}")


# --- proposals ---------------------------------------------------------------------------------


class Proposals:
    """The stores of one kind, each of them once."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._found: dict[object, Discovery] = {}

    def __iter__(self) -> Iterator[Discovery]:
        return iter(self._found.values())

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def add(  # noqa: PLR0913 - what a proposal consists of
        self,
        key: object,
        name: str,
        options: dict[str, Json],
        *,
        secrets: dict[str, Secret | None],
        place: Place | None = None,
        remarks: Sequence[str] = (),
    ) -> None:
        """Propose a store unless it is already; ``key`` is the same for every way to find it.

        What names no place that there can be is passed over: it is no address at all.
        """
        if key in self._found or (place and not place.sound):
            return
        given = {option: secret for option, secret in secrets.items() if secret}
        said = [place.remark if place else "", *remarks]
        said += [secret.remark for secret in given.values()]
        self._found[key] = Discovery(
            name,
            self._kind,
            options,
            comment="; ".join(dict.fromkeys(filter(None, said))),
            secrets={option: secret.reference for option, secret in given.items()},
            env_files=tuple(
                dict.fromkeys(secret.env_file for secret in given.values() if secret.env_file)
            ),
        )
