"""Finding Qdrant servers in what compose files and ``.env`` tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.model.facts import Discovery

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

PORT = 6333
KEY = ("QDRANT__SERVICE__API_KEY", "QDRANT_API_KEY")
TLS = ("QDRANT__SERVICE__ENABLE_TLS",)
URL = ("QDRANT_URL", "QDRANT_ENDPOINT")
HOST = ("QDRANT_HOST",)
NUMBER = ("QDRANT_PORT", "QDRANT_HTTP_PORT")


def find(folder: Path, kind: str) -> Iterator[Discovery]:
    """Give each server once."""
    proposals = Proposals(kind)
    for project in survey(folder).projects:
        for service in project.services:
            if is_server(service):
                _add_of(proposals, project, service)
        for owner, scope in project.scopes():
            _add_of_variables(proposals, project, owner, scope)
    yield from proposals


def is_server(service: Service) -> bool:
    """Tell whether a service is a Qdrant server."""
    return service.image.rpartition("/")[2] in {"qdrant", "qdrant-unprivileged"}


def _add_of(proposals: Proposals, project: Project, service: Service) -> None:
    scheme = "https" if service.text(*TLS).lower() in {"1", "true"} else "http"
    key = secret_of_service(project, service, *KEY)
    _add(proposals, place_of(service, PORT), scheme, key, service.name)


def _add_of_variables(
    proposals: Proposals, project: Project, owner: Service | None, scope: Scope
) -> None:
    """Propose what ``QDRANT_URL`` names, or ``QDRANT_HOST`` and ``QDRANT_PORT``."""
    address = http_address(scope, URL, HOST, NUMBER, PORT)
    if address is None:
        return
    scheme, host, port = address
    place = reached(project, host, port)
    if place.service and is_server(place.service):
        _add_of(proposals, project, place.service)
    else:
        _add(proposals, place, scheme, secret_of(project, first(scope, KEY), owner))


def _add(
    proposals: Proposals, place: Place, scheme: str, key: Secret | None, name: str = "qdrant"
) -> None:
    url = place.url(scheme)
    proposals.add(place.key, name, {"url": url}, secrets={"api_key": key}, place=place)
