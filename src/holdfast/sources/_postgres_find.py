"""Finding PostgreSQL databases in what compose files and ``.env`` tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from holdfast.model.facts import Discovery

from ._compose import Project, Scope, Service, first, survey
from ._compose_addresses import (
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

PORT = 5432
SCHEMES = ("postgresql", "postgres", "postgis", "timescaledb")
TLS = {"sslmode", "sslrootcert"}  # what of a URL's query goes on with it

# What the last part of an image's name is: `bitnami/postgresql`, `pgvector/pgvector`.
IMAGES = frozenset({
    "alloydbomni", "citus", "paradedb", "pgvecto-rs", "pgvector", "postgis", "postgres",
    "postgresql", "postgresql-repmgr", "timescaledb", "timescaledb-ha", "vchord-postgres",
})  # fmt: skip
USER = ("POSTGRES_USER", "POSTGRESQL_USERNAME", "POSTGRESQL_USER")
SUPERUSER_PASSWORD = ("POSTGRESQL_POSTGRES_PASSWORD", "POSTGRES_POSTGRES_PASSWORD")
PASSWORD = ("POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD")
DATABASE = ("POSTGRES_DB", "POSTGRESQL_DATABASE", "POSTGRES_DATABASE", "POSTGRES_DB_NAME")


def find(folder: Path, kind: str) -> Iterator[Discovery]:
    """Give each database once: that of every server, and those that URLs and variables name."""
    proposals = Proposals(kind)
    for project in survey(folder).projects:
        for service in project.services:
            if is_server(service):
                _add_of(proposals, project, service, _database(service))
        for found in urls(project, SCHEMES, PORT):
            database = unquote(found.parts.path).strip("/") or found.user
            owner = found.place.service
            if owner and is_server(owner):
                _add_of(proposals, project, owner, database)
            elif database and "/" not in database:
                tls = [pair for pair in parse_qsl(found.parts.query) if pair[0] in TLS]
                _add(proposals, found.place, found.user, database, found.password, tls=tls)
        for owner, scope in project.scopes():
            _add_of_variables(proposals, project, owner, scope)
    yield from proposals


def is_server(service: Service) -> bool:
    """Tell whether a service is a PostgreSQL server."""
    return service.image.rpartition("/")[2] in IMAGES


def _database(service: Service) -> str:
    return service.text(*DATABASE, default=service.text(*USER, default="postgres"))


def _add_of(proposals: Proposals, project: Project, service: Service, database: str) -> None:
    """Propose a database of a server as its first user, who may do everything there."""
    superuser = secret_of_service(project, service, *SUPERUSER_PASSWORD)
    user = "postgres" if superuser else service.text(*USER, default="postgres")
    password = superuser or secret_of_service(project, service, *PASSWORD)
    name = service.name if database == _database(service) else f"{service.name}-{database}"
    _add(proposals, place_of(service, PORT), user, database, password, name)


def _add_of_variables(
    proposals: Proposals, project: Project, owner: Service | None, scope: Scope
) -> None:
    """Propose what ``POSTGRES_HOST`` and its kin name, or ``PGHOST`` and its."""
    for stem, names in (("POSTGRES_", DATABASE), ("PG", ("PGDATABASE",)), ("DB_", ("DB_NAME",))):
        host = first(scope, (f"{stem}HOST", f"{stem}SERVER"))
        database = first(scope, (*names, f"{stem}DATABASE"))
        if host is None or database is None or "/" in host.text + database.text:
            continue
        if stem == "DB_" and not _speaks_postgres(scope):
            continue
        place = reached(project, host.text, number(scope, (f"{stem}PORT",), PORT))
        if place.service and is_server(place.service):
            _add_of(proposals, project, place.service, database.text)
            continue
        user = first(scope, (f"{stem}USER", f"{stem}USERNAME"))
        password = secret_of(project, first(scope, (f"{stem}PASSWORD", f"{stem}PASS")), owner)
        _add(proposals, place, user.text if user else "", database.text, password)


def _speaks_postgres(scope: Scope) -> bool:
    kinds = first(scope, ("DB_CONNECTION", "DB_TYPE", "DB_ENGINE", "DB_DRIVER", "DB_PORT"))
    return kinds is not None and ("postg" in kinds.text or kinds.text in {"pgsql", str(PORT)})


def _add(  # noqa: PLR0913, PLR0917 - what a database is known by
    proposals: Proposals,
    place: Place,
    user: str,
    database: str,
    password: Secret | None,
    name: str = "",
    tls: Sequence[tuple[str, str]] = (),
) -> None:
    login = f"{quote(user, safe='')}@" if user else ""
    query = f"?{urlencode(tls)}" if tls else ""
    url = f"postgresql://{login}{place.netloc}/{quote(database, safe='')}{query}"
    proposals.add(
        (place.key, database),
        name or database,
        {"url": url},
        secrets={"password": password},
        place=place,
    )
