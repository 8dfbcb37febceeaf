"""Finding buckets of S3 servers in what compose files and ``.env`` tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.model.facts import Discovery, Json

from ._compose import Project, Scope, Service, first, survey
from ._compose_addresses import (
    Place,
    Proposals,
    Secret,
    place_of,
    reached,
    secret_of,
    secret_of_service,
    split,
)

PORTS = {
    "adobe/s3mock": 9090,
    "bitnami/minio": 9000,
    "bitnamilegacy/minio": 9000,
    "chrislusf/seaweedfs": 8333,
    "dxflrs/garage": 3900,
    "localstack/localstack": 4566,
    "localstack/localstack-pro": 4566,
    "minio/minio": 9000,
    "rustfs/rustfs": 9000,
    "zenko/cloudserver": 8000,
}
"""Where each image serves S3."""

ENDPOINT = (
    "S3_ENDPOINT", "S3_ENDPOINT_URL", "S3_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
    "AWS_S3_ENDPOINT", "AWS_S3_ENDPOINT_URL", "AWS_ENDPOINT", "MINIO_ENDPOINT", "MINIO_URL",
)  # fmt: skip
BUCKETS = (
    "S3_BUCKET", "S3_BUCKET_NAME", "AWS_S3_BUCKET", "AWS_S3_BUCKET_NAME", "AWS_BUCKET",
    "AWS_BUCKET_NAME", "AWS_STORAGE_BUCKET_NAME", "MINIO_BUCKET", "MINIO_BUCKET_NAME",
    "MINIO_DEFAULT_BUCKETS", "BUCKET_NAME",
)  # fmt: skip
KEY = (
    "MINIO_ROOT_USER", "MINIO_ACCESS_KEY", "S3_ACCESS_KEY", "S3_ACCESS_KEY_ID",
    "AWS_ACCESS_KEY_ID", "S3_KEY",
)  # fmt: skip
SECRET_KEY = (
    "MINIO_ROOT_PASSWORD", "MINIO_SECRET_KEY", "S3_SECRET_KEY", "S3_SECRET_ACCESS_KEY",
    "AWS_SECRET_ACCESS_KEY", "S3_SECRET",
)  # fmt: skip
REGION = ("S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
UNNAMED = "bucket"
"""What stands where nothing names a bucket."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where buckets are, and what is needed to read them."""

    endpoint: str  # empty: Amazon's own
    key: object  # the same for every way to write the endpoint
    access_key: Secret | None
    secret_key: Secret | None
    region: str = ""
    place: Place | None = None


def find(folder: Path, kind: str) -> Iterator[Discovery]:
    """Give each bucket once; a server of which no bucket is named, with one to be named."""
    proposals = Proposals(kind)
    for project in survey(folder).projects:
        for service in project.services:
            if is_server(service):
                server = _of_service(project, service)
                for bucket in _buckets(project, service):
                    _add(proposals, server, bucket)
        for owner, scope in project.scopes():
            for bucket in _named(scope):
                if server_there := _of_variables(project, owner, scope):
                    _add(proposals, server_there, bucket)
    yield from proposals


def is_server(service: Service) -> bool:
    """Tell whether a service serves S3."""
    return service.image in PORTS


def _of_service(project: Project, service: Service) -> Server:
    place = place_of(service, PORTS[service.image])
    return Server(
        endpoint=place.url("http"),
        key=place.key,
        access_key=secret_of_service(project, service, *KEY) or _key(project, KEY),
        secret_key=secret_of_service(project, service, *SECRET_KEY) or _key(project, SECRET_KEY),
        place=place,
    )


def _key(project: Project, names: tuple[str, ...]) -> Secret | None:
    """Return a key that only those who use the server know."""
    for owner, scope in project.scopes():
        if value := first(scope, names):
            return secret_of(project, value, owner)
    return None


def _of_variables(project: Project, owner: Service | None, scope: Scope) -> Server | None:
    """Return the server that ``S3_ENDPOINT`` and its kin name; without, it is Amazon's."""
    named = first(scope, ENDPOINT)
    address = _address(named.text) if named else None
    key: object
    if address:
        scheme, host, port, path = address
        place = reached(project, host, port)
        if place.service and is_server(place.service):
            return _of_service(project, place.service)
        endpoint, key = place.url(scheme) + path, (*place.key, path)
    elif [service for service in project.services if is_server(service)]:
        return None  # it is in that one, or cannot be told
    else:
        place, endpoint, key = None, "", ("amazonaws.com", 443)
    region = first(scope, REGION)
    return Server(
        endpoint=endpoint,
        key=key,
        access_key=secret_of(project, first(scope, KEY), owner),
        secret_key=secret_of(project, first(scope, SECRET_KEY), owner),
        region=region.text if region else "",
        place=place,
    )


def _address(endpoint: str) -> tuple[str, str, int, str] | None:
    """Return scheme, host, port and path of an endpoint, which may be without a scheme."""
    parts = split(endpoint if "://" in endpoint else f"http://{endpoint}")
    if parts is None or not parts.hostname or parts.scheme not in {"http", "https"}:
        return None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname, port, parts.path.rstrip("/")


def _buckets(project: Project, service: Service) -> list[str]:
    """Return the buckets of a server: those that are named for it, or else one to be named."""
    found = dict.fromkeys(_named(service.environment))
    for owner, scope in project.scopes():
        server = first(scope, ENDPOINT)
        address = _address(server.text) if server else None
        place = reached(project, address[1], address[2]) if address else None
        if place is None or place.service is service:
            found |= dict.fromkeys(_named(scope))
        if owner:
            found |= dict.fromkeys(_made(owner))
    return list(found) or [UNNAMED]


def _named(scope: Scope) -> Iterator[str]:
    for name in BUCKETS:
        if value := first(scope, (name,)):
            yield from filter(_BUCKET.fullmatch, re.split(r"[\s,;]+", value.text))


def _made(service: Service) -> Iterator[str]:
    """Give the buckets that a service makes by ``mc mb local/bucket`` or ``s3 mb s3://bucket``."""
    words = [word.text.rstrip(";") for word in service.command]
    for index, word in enumerate(words):
        if word != "mb" or words[index - 1].rpartition("/")[2] not in {"mc", "s3", "s3api"}:
            continue
        targets = (one for one in words[index + 1 :] if not one.startswith("-"))
        target = next(targets, "").removeprefix("s3://")
        bucket = target.rpartition("/")[2] if target.count("/") == 1 else target
        if _BUCKET.fullmatch(bucket):
            yield bucket


def _add(proposals: Proposals, server: Server, bucket: str) -> None:
    options: dict[str, Json] = {"url": f"s3://{bucket}"}
    if server.endpoint:
        options["endpoint"] = server.endpoint
    if server.region:
        options["region"] = server.region
    remarks = ["write the name of your bucket in place of `bucket`"] * (bucket == UNNAMED)
    secrets = {"access_key": server.access_key, "secret_key": server.secret_key}
    if not all(secrets.values()):  # one is of no use
        remarks += ["add `access_key` and `secret_key`"] * bool(server.endpoint)
        secrets = {}
    proposals.add(
        (server.key, bucket),
        "objects" if bucket == UNNAMED else bucket,
        options,
        secrets=secrets,
        place=server.place,
        remarks=remarks,
    )
