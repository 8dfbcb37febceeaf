"""Finding Chroma servers in what compose files and ``.env`` tell.

A server whose folder lies on this machine is not proposed: the folder is found by itself, and can
be copied exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.model.facts import Discovery, Json

from ._compose import Project, Scope, Service, first, survey
from ._compose_addresses import (
    Place,
    Proposals,
    Secret,
    http_address,
    place_of,
    reached,
    secret_of,
    secret_of_service,
)

PORT = 8000
DATABASE = "chroma.sqlite3"
HOST = ("CHROMA_HOST", "CHROMA_SERVER_HOST", "CHROMADB_HOST")
NUMBER = ("CHROMA_PORT", "CHROMA_SERVER_PORT", "CHROMA_SERVER_HTTP_PORT", "CHROMADB_PORT")
URL = ("CHROMA_URL", "CHROMA_SERVER_URL", "CHROMADB_URL")
TOKEN = ("CHROMA_TOKEN", "CHROMA_AUTH_TOKEN", "CHROMA_SERVER_AUTHN_CREDENTIALS", "CHROMA_API_KEY")
SSL = ("CHROMA_SSL", "CHROMA_SERVER_SSL_ENABLED")


def find(folder: Path, kind: str) -> Iterator[Discovery]:
    """Give each server once."""
    proposals = Proposals(kind)
    for project in survey(folder).projects:
        for service in project.services:
            if is_server(service) and not _has_its_folder_here(service):
                _add_of(proposals, project, service)
        for owner, scope in project.scopes():
            _add_of_variables(proposals, project, owner, scope)
    yield from proposals


def is_server(service: Service) -> bool:
    """Tell whether a service is a Chroma server."""
    return service.image in {"chromadb/chroma", "chroma-core/chroma"}


def _has_its_folder_here(service: Service) -> bool:
    return any(_is_file(source / DATABASE) for source, _inside in service.volumes)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # not ours to look at: then it cannot be copied either
        return False


def _add_of(proposals: Proposals, project: Project, service: Service) -> None:
    token = secret_of_service(project, service, *TOKEN)
    _add(proposals, place_of(service, PORT), "http", token, service.environment, service.name)


def _add_of_variables(
    proposals: Proposals, project: Project, owner: Service | None, scope: Scope
) -> None:
    """Propose what ``CHROMA_URL`` names, or ``CHROMA_HOST`` and ``CHROMA_PORT``."""
    if owner and is_server(owner):
        return  # there such variables say what it listens on
    address = http_address(scope, URL, HOST, NUMBER, PORT)
    if address is None:
        return
    scheme, host, port = address
    secure = first(scope, SSL)
    if secure and secure.text.lower() in {"1", "true"}:
        scheme = "https"
    place = reached(project, host, port)
    if place.service and is_server(place.service):
        if not _has_its_folder_here(place.service):
            _add_of(proposals, project, place.service)
    else:
        token = secret_of(project, first(scope, TOKEN), owner)
        _add(proposals, place, scheme, token, scope, "chroma")


def _add(  # noqa: PLR0913, PLR0917 - what a server is known by
    proposals: Proposals,
    place: Place,
    scheme: str,
    token: Secret | None,
    scope: Scope,
    name: str,
) -> None:
    options: dict[str, Json] = {"url": place.url(scheme)}
    for option, variable in (("tenants", "CHROMA_TENANT"), ("databases", "CHROMA_DATABASE")):
        if value := first(scope, (variable,)):
            options[option] = [value.text]
    proposals.add(place.key, name, options, secrets={"token": token}, place=place)
