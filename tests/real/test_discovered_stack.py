"""From a compose file and a ``.env`` to a backup and back, on real servers, with nothing typed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from servers import redis as redis_server
from servers import s3
from servers.postgres import PASSWORD, PostgresServer, tools_of
from tests.edges.command_line import Brain

REDIS_PASSWORD = 'a "quoted" $ecret'

COMPOSE = """\
services:
  db:
    image: postgres:17
    environment:
      POSTGRES_PASSWORD: ${{POSTGRES_PASSWORD:?}}
      POSTGRES_DB: discovered
    ports: ["127.0.0.1:{postgres}:5432"]
  cache:
    image: redis:7
    command: redis-server --requirepass ${{REDIS_PASSWORD}}
    ports: ["127.0.0.1:${{REDIS_PORT}}:6379"]
  storage:
    image: chrislusf/seaweedfs
    ports: [{{target: 8333, published: "{s3}", host_ip: 127.0.0.1}}]
  api:
    build: .
    environment:
      DATABASE_URL: postgresql+asyncpg://postgres:${{POSTGRES_PASSWORD}}@db/discovered
      S3_BUCKET: discovered
      S3_ENDPOINT: http://storage:8333
      S3_ACCESS_KEY: ${{S3_ACCESS_KEY}}
      S3_SECRET_KEY: ${{S3_SECRET_KEY}}
"""
ENV = """\
POSTGRES_PASSWORD="{postgres}"
REDIS_PASSWORD='{redis}'
REDIS_PORT={port}
S3_ACCESS_KEY={key}
S3_SECRET_KEY={secret}
"""


@dataclass(frozen=True)
class World:
    """Servers with a little in them, and a folder in which nothing but a compose file is."""

    brain: Brain
    postgres: PostgresServer
    redis: redis_server.Server
    bucket: Any

    def change(self, word: str) -> None:
        with self.postgres.connect("discovered") as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
            connection.execute("DELETE FROM words")
            connection.execute("INSERT INTO words VALUES (%s)", (word,))
        with self.redis.client() as client:
            client.set("word", word)
        self.bucket.put_object(Key="word", Body=word.encode())

    def words(self) -> list[str]:
        with self.postgres.connect("discovered") as connection:
            [(row,)] = connection.execute("SELECT word FROM words").fetchall()
        with self.redis.client() as client:
            cached = client.get("word")
        assert isinstance(cached, bytes)
        stored = self.bucket.Object("word").get()["Body"].read()
        return [str(row), cached.decode(), stored.decode()]


@pytest.fixture
def world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], postgres_17: PostgresServer
) -> Iterator[World]:
    with ExitStack() as running:
        redis = running.enter_context(
            redis_server.running(redis_server.REDIS_7, password=REDIS_PASSWORD)
        )
        storage = s3.shared_server()
        bucket = boto3.resource(
            "s3",
            endpoint_url=storage.endpoint,
            aws_access_key_id=s3.KEY,
            aws_secret_access_key=s3.SECRET,
            region_name="us-east-1",
        ).Bucket("discovered")
        bucket.create()
        with postgres_17.connect() as connection:
            connection.execute("CREATE DATABASE discovered")
        (tmp_path / "compose.yaml").write_text(
            COMPOSE.format(postgres=postgres_17.port, s3=storage.port)
        )
        escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        (tmp_path / ".env").write_text(
            ENV.format(
                postgres=escaped,
                redis=REDIS_PASSWORD,
                port=redis.port,
                key=s3.KEY,
                secret=s3.SECRET,
            )
        )
        yield World(Brain(tmp_path, capsys), postgres_17, redis, bucket)
        with postgres_17.connect() as connection:
            connection.execute("DROP DATABASE discovered WITH (FORCE)")
        bucket.objects.delete()
        bucket.delete()


@pytest.mark.timeout(180)
def test_a_stack_is_found_backed_up_and_restored_as_it_stands(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tools_of("17")
    assert tools is not None
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    brain = world.brain
    world.change("before")
    said = brain.ok("init", str(brain.folder))
    written = brain.config.read_text()
    for secret in (PASSWORD, REDIS_PASSWORD, s3.SECRET, s3.KEY):
        assert secret not in written + said.out
    health = brain.ok("health", "--json").json["components"]
    assert set(health) == {"db", "cache", "discovered", "settings"}
    assert all(probe["reachable"] for probe in health.values())
    assert health["db"]["rights"] == "superuser"
    assert health["cache"]["rights"] == "user default"

    brain.ok("backup")
    world.change("after")
    brain.ok("restore", "--yes")
    assert world.words() == ["before"] * 3

    with redis_server.running(redis_server.REDIS_7, password=REDIS_PASSWORD) as other:
        world.change("later")
        brain.ok("restore", "--target", f"cache={other.url}", "--yes")
        with other.client() as client:
            assert client.get("word") == b"before"
    assert world.words() == ["later"] * 3
    state = brain.folder / ".holdfast"
    told = [
        path.read_bytes()
        for path in state.rglob("*")
        if path.is_file() and "replaced" not in path.parts  # where the stack's own `.env` is kept
    ]
    for secret in (PASSWORD, REDIS_PASSWORD, s3.SECRET):
        assert secret.encode() not in b"".join(told)
