"""Finding Redis and Valkey servers in what compose files and ``.env`` tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from holdfast.model.dotenv import variable_of
from holdfast.model.facts import Discovery

from ._compose import Project, Scope, Service, Value, first, survey
from ._compose_addresses import (
    Found,
    Place,
    Proposals,
    Secret,
    number,
    place_of,
    reached,
    secret_of,
    secret_of_service,
    urls,
)

PORT = 6379
SCHEMES = ("redis", "rediss", "valkey", "valkeys")
TLS = {"rediss", "valkeys"}

# What the last part of an image's name is; not those that only speak the protocol.
IMAGES = frozenset({"redis", "redis-stack", "redis-stack-server", "valkey", "valkey-bundle"})
PASSWORD = ("REDIS_PASSWORD", "VALKEY_PASSWORD", "REDIS_PASS")


def find(folder: Path, kind: str) -> Iterator[Discovery]:
    """Give each server once, whatever number of its databases is named."""
    proposals = Proposals(kind)
    for project in survey(folder).projects:
        for service in project.services:
            if is_server(service):
                _add_of(proposals, project, service)
        for found in urls(project, SCHEMES, PORT):
            _add_of_url(proposals, project, found)
        for owner, scope in project.scopes():
            _add_of_variables(proposals, project, owner, scope)
    yield from proposals


def is_server(service: Service) -> bool:
    """Tell whether a service is a Redis or Valkey server."""
    return service.image.rpartition("/")[2] in IMAGES


def _add_of(proposals: Proposals, project: Project, service: Service) -> None:
    password = _required(project, service) or secret_of_service(project, service, *PASSWORD)
    _add(proposals, place_of(service, PORT), password, name=service.name)


def _required(project: Project, service: Service) -> Secret | None:
    """Return the password that the server's command demands."""
    words = service.command
    for index, word in enumerate(words[:-1]):
        if word.text == "--requirepass":
            given = words[index + 1]
            # A shell in the container looks the variable up there.
            inner = service.environment.get(variable_of(given.text))
            named = Value(f"{service.name}_PASSWORD", given.written, given.text)
            return secret_of(project, inner or named, service)
    return None


def _add_of_url(proposals: Proposals, project: Project, found: Found) -> None:
    owner = found.place.service
    if owner and is_server(owner):
        _add_of(proposals, project, owner)
        return
    scheme = "rediss" if found.parts.scheme in TLS else "redis"
    user = "" if found.user == "default" else found.user
    _add(proposals, found.place, found.password, scheme=scheme, user=user)


def _add_of_variables(
    proposals: Proposals, project: Project, owner: Service | None, scope: Scope
) -> None:
    """Propose what ``REDIS_HOST`` and its kin name."""
    host = first(scope, ("REDIS_HOST", "VALKEY_HOST"))
    if host is None or "/" in host.text:
        return
    place = reached(project, host.text, number(scope, ("REDIS_PORT", "VALKEY_PORT"), PORT))
    if place.service and is_server(place.service):
        _add_of(proposals, project, place.service)
    else:
        _add(proposals, place, secret_of(project, first(scope, PASSWORD), owner))


def _add(  # noqa: PLR0913 - what a server is known by
    proposals: Proposals,
    place: Place,
    password: Secret | None,
    *,
    scheme: str = "redis",
    user: str = "",
    name: str = "redis",
) -> None:
    login = f"{quote(user, safe='')}@" if user else ""
    url = f"{scheme}://{login}{place.netloc}"
    proposals.add(place.key, name, {"url": url}, secrets={"password": password}, place=place)
