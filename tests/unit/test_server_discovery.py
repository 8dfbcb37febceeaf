"""Which stores are proposed of what compose files and .env tell; never the value of a secret."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.config.init import init
from holdfast.model.facts import Discovery
from holdfast.runtime import registry
from holdfast.sources import (
    _chroma_server_find,
    _objects_find,
    _postgres_find,
    _qdrant_find,
    _redis_find,
)

FINDERS = {
    "postgres": _postgres_find,
    "redis": _redis_find,
    "qdrant": _qdrant_find,
    "chroma": _chroma_server_find,
    "objects": _objects_find,
}

COMPOSE = """\
services:
  db:
    image: pgvector/pgvector:pg16
    environment:
      POSTGRES_USER: brain
      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?set it}
      POSTGRES_DB: knowledge
    ports: ["127.0.0.1:5433:5432"]
  cache:
    image: redis:7-alpine
    command: redis-server --requirepass ${REDIS_PASSWORD}
    ports: ["6379:6379"]
  vectors:
    image: qdrant/qdrant:v1.16.3
    environment: [QDRANT__SERVICE__API_KEY=hunter2]
    ports: [{target: 6333, published: "6333"}]
  memory:
    image: chromadb/chroma:1.0
  objects:
    image: quay.io/minio/minio
    command: server /data
    environment: {MINIO_ROOT_USER: "${S3_USER}", MINIO_ROOT_PASSWORD: "${S3_PASSWORD}"}
    ports: ["9000-9001:9000-9001"]
  make-buckets:
    image: minio/mc
    entrypoint: >
      /bin/sh -c "mc alias set m http://objects:9000 admin $$P; mc mb -p m/attachments; exit 0;"
  api:
    build: .
    environment:
      DATABASE_URL: postgresql+asyncpg://brain:${POSTGRES_PASSWORD}@db:5432/knowledge
      AUDIT_URL: postgresql://brain:${POSTGRES_PASSWORD}@db:5432/audit
      REDIS_URL: redis://:${REDIS_PASSWORD}@cache:6379/0
      CELERY_BROKER_URL: redis://:${REDIS_PASSWORD}@cache:6379/1
      QDRANT_URL: http://vectors:6333
      CHROMA_HOST: memory
      S3_ENDPOINT: http://objects:9000
      S3_BUCKET: uploads
"""
ENV = """\
POSTGRES_PASSWORD=hunter2-pg
REDIS_PASSWORD=hunter2-redis
S3_USER=hunter2-user
S3_PASSWORD=hunter2-s3
DATABASE_URL=postgresql://brain:hunter2-pg@localhost:5433/knowledge
"""


def find(kind: str, folder: Path, compose: str = "", env: str = "") -> list[Discovery]:
    if compose:
        (folder / "compose.yaml").write_text(compose)
    if env:
        (folder / ".env").write_text(env)
    module: ModuleType = FINDERS[kind]
    found: Iterable[Discovery] = module.find(folder, kind)
    discoveries = list(found)
    assert "hunter2" not in repr(discoveries)
    assert all(one.source == kind for one in discoveries)
    for one in discoveries:
        if kind in registry.SOURCES:
            secrets = dict.fromkeys(one.secrets, "a secret")
            source_class = registry.source_class(kind)
            source_class.options_model.model_validate({**one.options, **secrets})
    return discoveries


def only(kind: str, folder: Path, compose: str = "", env: str = "") -> Discovery:
    [found] = find(kind, folder, compose, env)
    return found


def test_a_whole_stack_is_found_each_store_once(tmp_path: Path) -> None:
    found = {one.name: one for kind in FINDERS for one in find(kind, tmp_path, COMPOSE, ENV)}
    assert {name: one.options for name, one in found.items()} == {
        "db": {"url": "postgresql://brain@127.0.0.1:5433/knowledge"},
        "db-audit": {"url": "postgresql://brain@127.0.0.1:5433/audit"},
        "cache": {"url": "redis://localhost:6379"},
        "vectors": {"url": "http://localhost:6333"},
        "memory": {"url": "http://localhost:8000"},
        "attachments": {"url": "s3://attachments", "endpoint": "http://localhost:9000"},
        "uploads": {"url": "s3://uploads", "endpoint": "http://localhost:9000"},
    }
    assert found["db"].secrets == {"password": "${env:POSTGRES_PASSWORD}"}
    assert found["cache"].secrets == {"password": "${env:REDIS_PASSWORD}"}
    assert found["vectors"].secrets == {"api_key": "${env:QDRANT__SERVICE__API_KEY}"}
    assert found["memory"].secrets == {}
    assert found["uploads"].secrets == {
        "access_key": "${env:S3_USER}",
        "secret_key": "${env:S3_PASSWORD}",
    }
    assert {name for name, one in found.items() if one.env_files == (".env",)} == {
        *("db", "db-audit", "cache", "attachments", "uploads"),
    }
    assert {name: one.comment for name, one in found.items() if one.comment} == {
        "vectors": "set QDRANT__SERVICE__API_KEY to the value that compose.yaml has",
        "memory": 'memory publishes no port: give it `ports: ["127.0.0.1:8000:8000"]`'
        " in compose.yaml",
    }


@pytest.mark.parametrize("kind", FINDERS)
def test_nothing_is_found_where_nothing_is(tmp_path: Path, kind: str) -> None:
    assert find(kind, tmp_path) == []
    env = "HOST=x\nURL=http://x\nDATABASE_URL=sqlite:///a.db\nCACHE_URL=memcached://x\nX=://\n"
    compose = "services: {web: {image: nginx, ports: ['80:80']}, d: {image: dragonfly}}\n"
    assert find(kind, tmp_path, compose, env) == []


@pytest.mark.parametrize(
    ("kind", "image", "port"),
    [
        ("postgres", "postgres:17", 5432),
        ("postgres", "pgvector/pgvector:pg17", 5432),
        ("postgres", "timescale/timescaledb:latest-pg16", 5432),
        ("postgres", "timescale/timescaledb-ha:pg16", 5432),
        ("postgres", "postgis/postgis", 5432),
        ("postgres", "bitnami/postgresql:16", 5432),
        ("postgres", "docker.io/bitnamilegacy/postgresql", 5432),
        ("postgres", "supabase/postgres:15.1", 5432),
        ("postgres", "ghcr.io/immich-app/postgres:14", 5432),
        ("redis", "redis:8", 6379),
        ("redis", "bitnami/redis", 6379),
        ("redis", "valkey/valkey:8-alpine", 6379),
        ("redis", "redis/redis-stack-server", 6379),
        ("qdrant", "qdrant/qdrant", 6333),
        ("qdrant", "ghcr.io/qdrant/qdrant:v1", 6333),
        ("chroma", "chromadb/chroma", 8000),
        ("chroma", "ghcr.io/chroma-core/chroma:latest", 8000),
        ("objects", "minio/minio", 9000),
        ("objects", "bitnami/minio:2025", 9000),
        ("objects", "chrislusf/seaweedfs", 8333),
        ("objects", "localstack/localstack:4", 4566),
    ],
)
def test_an_image_tells_what_the_service_is(
    tmp_path: Path, kind: str, image: str, port: int
) -> None:
    compose = f"services: {{store: {{image: '{image}', ports: ['7000:{port}']}}}}\n"
    found = only(kind, tmp_path, compose)
    assert "localhost:7000" in str(found.options.get("endpoint", found.options["url"]))
    others = [other for other in FINDERS if other != kind]
    assert [one for other in others for one in find(other, tmp_path)] == []


@pytest.mark.parametrize(
    "image",
    [
        *("postgrest/postgrest", "prometheuscommunity/postgres-exporter", "edoburu/pgbouncer"),
        *("dpage/pgadmin4", "redis/redisinsight", "oliver006/redis_exporter", "minio/mc"),
        *("docker.dragonflydb.io/dragonflydb/dragonfly", "redislabs/rejson-tools", "postgraphile"),
        "bitnami/redis-sentinel",
    ],
)
def test_what_only_sounds_like_a_store_is_none(tmp_path: Path, image: str) -> None:
    compose = f"services: {{x: {{image: '{image}'}}}}\n"
    assert [one for kind in FINDERS for one in find(kind, tmp_path, compose)] == []


def test_a_kind_whose_driver_is_missing_is_left_out_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    monkeypatch.setattr(registry, "SOURCES", {**registry.SOURCES, "redis": "no_driver:Source"})
    kinds = {one.source for one in registry.discoveries(tmp_path)}
    assert {"postgres", "qdrant", "objects"} <= kinds
    assert "redis" not in kinds
    [line] = registry.unread(tmp_path)
    assert "kind of source redis needs the Python package no_driver" in line
    assert "pip install 'holdfast[redis]'" in line


WORDS = """
DATABASE_URL POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_DB POSTGRES_PASSWORD REDIS_URL
REDIS_HOST REDIS_PORT QDRANT_URL QDRANT_HOST QDRANT_PORT CHROMA_HOST CHROMA_PORT CHROMA_TENANT
S3_ENDPOINT S3_BUCKET S3_ACCESS_KEY S3_SECRET_KEY AWS_REGION
"""
PARTS = """
postgresql:// redis:// http:// https:// s3:// : / // @ ? # [ ] [::1] %00 %zz a b-c d.e 99999 5432
0 -1 ${env:X} ${X $ \\ ' " \x7f é \u202e =
"""
NAMES = st.sampled_from(WORDS.split())
PIECES = st.sampled_from([*PARTS.split(), " ", "\t"])
VALUES = st.lists(PIECES, max_size=6).map("".join)


@settings(deadline=None, print_blob=True)
@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_whatever_variables_hold_what_init_writes_is_valid(variables: dict[str, str]) -> None:
    with TemporaryDirectory() as name:
        lines = (f"{variable}={value}\n" for variable, value in variables.items())
        (Path(name) / ".env").write_text("".join(lines))
        found = [one for kind in FINDERS for one in FINDERS[kind].find(Path(name), kind)]
        init(Path(name), found, registry.kinds())  # which examines what it writes


# --- PostgreSQL ---


def test_a_database_is_named_by_its_user_where_nothing_else_names_it(tmp_path: Path) -> None:
    compose = "services: {db: {image: postgres, ports: ['5432:5432'], environment: [%s]}}\n"
    url = only("postgres", tmp_path, compose % "POSTGRES_USER=me").options["url"]
    assert url == "postgresql://me@localhost:5432/me"
    url = only("postgres", tmp_path, compose % "").options["url"]
    assert url == "postgresql://postgres@localhost:5432/postgres"


def test_bitnamis_own_variables_are_known(tmp_path: Path) -> None:
    compose = (
        "services: {db: {image: bitnami/postgresql, ports: ['5432:5432'], environment: {"
        "POSTGRESQL_USERNAME: app, POSTGRESQL_PASSWORD: '${APP}', POSTGRESQL_DATABASE: data%s}}}\n"
    )
    found = only("postgres", tmp_path, compose % "", "APP=hunter2\nADMIN=hunter2-admin\n")
    assert found.options["url"] == "postgresql://app@localhost:5432/data"
    found = only("postgres", tmp_path, compose % ", POSTGRESQL_POSTGRES_PASSWORD: '${ADMIN}'")
    assert found.options["url"] == "postgresql://postgres@localhost:5432/data"
    assert found.secrets == {"password": "${env:ADMIN}"}


@pytest.mark.parametrize(
    ("env", "url", "reference", "remark"),
    [
        (
            "DATABASE_URL=postgresql+psycopg://me:hunter2@db.example.com/app?sslmode=require&x=1",
            "postgresql://me@db.example.com:5432/app?sslmode=require",
            "${env:DATABASE_PASSWORD}",
            "set DATABASE_PASSWORD to the password in DATABASE_URL",
        ),
        (
            "DB_PASS=hunter2 @/\nPG_DSN=postgres://me:hunter2%20%40%2f@h:6000/app",
            "postgresql://me@h:6000/app",
            "${env:DB_PASS}",
            "",
        ),
        ("URL=postgres://h/app", "postgresql://h:5432/app", None, ""),
        ("URL=postgres://m%40e@[::1]:1/a%2Db", "postgresql://m%40e@[::1]:1/a-b", None, ""),
        (
            (
                "POSTGRES_HOST=h\nPOSTGRES_USER=me\nPOSTGRES_PASSWORD=hunter2\nPOSTGRES_DB=app\n"
                "POSTGRES_PORT=6000"
            ),
            "postgresql://me@h:6000/app",
            "${env:POSTGRES_PASSWORD}",
            "",
        ),
        (
            "PGHOST=h\nPGUSER=me\nPGPASSWORD=hunter2\nPGDATABASE=app",
            "postgresql://me@h:5432/app",
            "${env:PGPASSWORD}",
            "",
        ),
        (
            "DB_CONNECTION=pgsql\nDB_HOST=h\nDB_USERNAME=me\nDB_PASSWORD=hunter2\nDB_DATABASE=app",
            "postgresql://me@h:5432/app",
            "${env:DB_PASSWORD}",
            "",
        ),
    ],
)
def test_a_database_is_found_by_variables_alone(
    tmp_path: Path, env: str, url: str, reference: str | None, remark: str
) -> None:
    found = only("postgres", tmp_path, env=env + "\n")
    assert found.options == {"url": url}
    assert found.secrets == ({"password": reference} if reference else {})
    assert found.comment == remark


def test_variables_of_another_kind_of_database_are_none(tmp_path: Path) -> None:
    env = "DB_CONNECTION=mysql\nDB_HOST=h\nDB_DATABASE=app\nDB_PORT=3306\n"
    assert find("postgres", tmp_path, env=env) == []


def test_a_password_that_equals_a_user_is_not_taken_for_it(tmp_path: Path) -> None:
    env = "POSTGRES_USER=hunter2\nDATABASE_URL=postgres://me:hunter2@h/app\n"
    assert only("postgres", tmp_path, env=env).secrets == {"password": "${env:DATABASE_PASSWORD}"}


def test_two_services_with_urls_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    compose = (
        "services:\n  one: {environment: {DATABASE_URL: 'postgres://me:hunter2-1@h/one'}}\n"
        "  two: {environment: {DATABASE_URL: 'postgres://me:hunter2-2@h/two'}}\n"
    )
    found = find("postgres", tmp_path, compose)
    passwords = ["${env:ONE_DATABASE_PASSWORD}", "${env:TWO_DATABASE_PASSWORD}"]
    assert [one.secrets["password"] for one in found] == passwords


def test_localhost_in_a_variable_is_the_service_that_publishes_there(tmp_path: Path) -> None:
    compose = "services: {db: {image: postgres, ports: ['5433:5432']}}\n"
    env = "DATABASE_URL=postgresql://postgres:hunter2@127.0.0.1:5433/postgres\n"
    assert only("postgres", tmp_path, compose, env).name == "db"


def test_a_container_is_known_by_its_other_names_too(tmp_path: Path) -> None:
    compose = (
        "services:\n  db:\n    image: postgres\n    container_name: my-db\n"
        "    networks: {back: {aliases: [database]}}\n    ports: ['5432:5432']\n"
    )
    env = "A=postgres://postgres@my-db/postgres\nB=postgres://postgres@database:5432/postgres\n"
    assert only("postgres", tmp_path, compose, env).name == "db"


# --- Redis ---


@pytest.mark.parametrize(
    ("env", "url", "reference"),
    [
        ("REDIS_URL=redis://:hunter2@h:6380/3", "redis://h:6380", "${env:REDIS_PASSWORD}"),
        ("X=rediss://me:hunter2@h", "rediss://me@h:6379", "${env:X_PASSWORD}"),
        ("X=redis://default@h", "redis://h:6379", None),
        ("X=valkey://h", "redis://h:6379", None),
        ("REDIS_HOST=h\nREDIS_PASSWORD=hunter2", "redis://h:6379", "${env:REDIS_PASSWORD}"),
        ("REDIS_HOST=h\nREDIS_PORT=${P:-7000}", "redis://h:7000", None),
    ],
)
def test_a_cache_is_found_by_variables_alone(
    tmp_path: Path, env: str, url: str, reference: str | None
) -> None:
    found = only("redis", tmp_path, env=env + "\n")
    assert found.options == {"url": url}
    assert found.secrets == ({"password": reference} if reference else {})


@pytest.mark.parametrize(
    ("keys", "reference"),
    [
        ("command: [redis-server, --requirepass, hunter2]", "${env:CACHE_PASSWORD}"),
        ("command: redis-server --requirepass ${PASS}", "${env:PASS}"),
        (
            (
                'command: sh -c "redis-server --requirepass $$PASS_INSIDE"\n'
                "    environment: {PASS_INSIDE: '${PASS}'}"
            ),
            "${env:PASS}",
        ),
        ("environment: [REDIS_PASSWORD=hunter2]", "${env:REDIS_PASSWORD}"),
        ("command: [redis-server, --requirepass]", None),
    ],
)
def test_the_password_that_a_server_demands_is_referred_to(
    tmp_path: Path, keys: str, reference: str | None
) -> None:
    compose = f"services:\n  cache:\n    image: redis\n    ports: ['6379:6379']\n    {keys}\n"
    found = only("redis", tmp_path, compose, "PASS=hunter2\n")
    assert found.secrets == ({"password": reference} if reference else {})


# --- Qdrant, Chroma ---


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ("QDRANT_URL=https://x.cloud.qdrant.io:6333\nQDRANT_API_KEY=hunter2",
         "https://x.cloud.qdrant.io:6333"),
        ("QDRANT_HOST=h\nQDRANT_PORT=7000\nQDRANT_API_KEY=hunter2", "http://h:7000"),
        ("QDRANT_HOST=https://h\nQDRANT_API_KEY=hunter2", "https://h:6333"),
    ],
)  # fmt: skip
def test_qdrant_is_found_by_variables_alone(tmp_path: Path, env: str, url: str) -> None:
    found = only("qdrant", tmp_path, env=env + "\n")
    assert found.options == {"url": url}
    assert found.secrets == {"api_key": "${env:QDRANT_API_KEY}"}


def test_qdrant_with_tls_is_reached_by_https(tmp_path: Path) -> None:
    compose = (
        "services: {q: {image: qdrant/qdrant, ports: ['6333:6333'],"
        " environment: {QDRANT__SERVICE__ENABLE_TLS: 'true'}}}\n"
    )
    assert only("qdrant", tmp_path, compose).options == {"url": "https://localhost:6333"}


def test_chroma_is_found_by_variables_alone(tmp_path: Path) -> None:
    env = "CHROMA_HOST=h\nCHROMA_PORT=9\nCHROMA_SSL=true\nCHROMA_TOKEN=hunter2\nCHROMA_TENANT=t\n"
    found = only("chroma", tmp_path, env=env)
    assert found.options == {"url": "https://h:9", "tenants": ["t"]}
    assert found.secrets == {"token": "${env:CHROMA_TOKEN}"}


def test_a_chroma_folder_of_this_machine_is_copied_itself(tmp_path: Path) -> None:
    compose = (
        "services:\n  memory: {image: chromadb/chroma, volumes: ['./data/chroma:/data']}\n"
        "  api: {build: ., environment: {CHROMA_HOST: memory}}\n"
    )
    assert len(find("chroma", tmp_path, compose)) == 1
    (tmp_path / "data/chroma").mkdir(parents=True)
    (tmp_path / "data/chroma/chroma.sqlite3").touch()
    assert find("chroma", tmp_path, compose) == []


def test_what_a_chroma_server_listens_on_is_no_address(tmp_path: Path) -> None:
    compose = (
        "services: {memory: {image: chromadb/chroma, ports: ['9000:8000'],"
        " environment: {CHROMA_SERVER_HOST: 0.0.0.0, CHROMA_PORT: 8000}}}\n"
    )
    assert only("chroma", tmp_path, compose).options == {"url": "http://localhost:9000"}


# --- objects ---


def test_a_bucket_of_amazons_own_needs_no_endpoint(tmp_path: Path) -> None:
    env = (
        "AWS_STORAGE_BUCKET_NAME=my-bucket\nAWS_ACCESS_KEY_ID=hunter2-id\n"
        "AWS_SECRET_ACCESS_KEY=hunter2\nAWS_REGION=eu-central-1\n"
    )
    found = only("objects", tmp_path, env=env)
    assert found.options == {"url": "s3://my-bucket", "region": "eu-central-1"}
    assert found.secrets == {
        "access_key": "${env:AWS_ACCESS_KEY_ID}",
        "secret_key": "${env:AWS_SECRET_ACCESS_KEY}",
    }


def test_an_endpoint_may_lack_its_scheme(tmp_path: Path) -> None:
    env = "S3_ENDPOINT=storage.example.com\nS3_BUCKET=one\n"
    found = only("objects", tmp_path, env=env)
    assert found.options == {"url": "s3://one", "endpoint": "http://storage.example.com"}
    assert found.comment == "add `access_key` and `secret_key`"
    (tmp_path / ".env").write_text("S3_ENDPOINT=https://h:443/storage/s3/\nS3_BUCKET=one\n")
    assert only("objects", tmp_path).options["endpoint"] == "https://h/storage/s3"


def test_one_key_without_the_other_is_of_no_use(tmp_path: Path) -> None:
    env = "S3_ENDPOINT=https://h\nS3_BUCKET=one\nS3_ACCESS_KEY=hunter2\n"
    found = only("objects", tmp_path, env=env)
    assert found.secrets == {}
    assert found.comment == "add `access_key` and `secret_key`"


def test_several_buckets_of_one_server_are_several_stores(tmp_path: Path) -> None:
    compose = (
        "services: {s: {image: bitnami/minio, ports: ['9000:9000'],"
        " environment: {MINIO_DEFAULT_BUCKETS: 'one,two;three Bad_Name'}}}\n"
    )
    urls = [one.options["url"] for one in find("objects", tmp_path, compose)]
    assert urls == ["s3://one", "s3://two", "s3://three"]


def test_a_server_without_a_named_bucket_asks_for_one(tmp_path: Path) -> None:
    compose = "services: {s: {image: chrislusf/seaweedfs, ports: ['8333:8333']}}\n"
    found = only("objects", tmp_path, compose)
    assert (found.name, found.options["url"]) == ("objects", "s3://bucket")
    assert found.comment == (
        "write the name of your bucket in place of `bucket`; add `access_key` and `secret_key`"
    )


def test_a_bucket_in_env_is_in_the_one_server_there_is(tmp_path: Path) -> None:
    compose = "services: {s: {image: minio/minio, ports: ['9000:9000']}}\n"
    env = "S3_BUCKET=one\nAWS_ACCESS_KEY_ID=hunter2-id\nAWS_SECRET_ACCESS_KEY=hunter2\n"
    found = only("objects", tmp_path, compose, env)
    assert found.options == {"url": "s3://one", "endpoint": "http://localhost:9000"}
    assert found.secrets["secret_key"] == "${env:AWS_SECRET_ACCESS_KEY}"


def test_buckets_are_made_by_the_client_of_amazon_too(tmp_path: Path) -> None:
    compose = (
        "services:\n  s: {image: localstack/localstack, ports: ['4566:4566']}\n"
        "  init: {image: amazon/aws-cli, command: [s3, mb, 's3://made', --region, x]}\n"
    )
    assert only("objects", tmp_path, compose).options["url"] == "s3://made"
