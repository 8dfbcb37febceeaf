"""What may be said of a Redis server, and that its password never shows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast.errors import ConnectionLost, UsageInvalid
from holdfast.model.artifact import Chunk
from holdfast.sources._redis_place import parse
from holdfast.sources._redis_spool import Spool
from holdfast.sources._redis_users import parsed, written
from holdfast.sources.redis import RedisOptions, RedisSource


@pytest.mark.parametrize(
    ("url", "where", "password"),
    [
        ("redis://localhost", "redis://localhost:6379", ""),
        ("redis://cache:6380/3", "redis://cache:6380", ""),
        ("redis://:p%40ss@cache", "redis://cache:6379", "p@ss"),
        ("rediss://app:pw@[::1]:7000", "rediss://app@[::1]:7000", "pw"),
        ("valkey://cache", "redis://cache:6379", ""),
        ("unix:///run/redis/redis.sock", "unix:///run/redis/redis.sock", ""),
        ("unix://app@/run/redis.sock", "unix://app@/run/redis.sock", ""),
    ],
)
def test_places_are_read_and_shown_without_passwords(url: str, where: str, password: str) -> None:
    place, secret = parse(url)
    assert (str(place), secret) == (where, password)
    assert parse(where)[0] == place
    assert RedisSource("cache", RedisOptions(url=url)).where == where


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://x", "redis://", "redis://x/name", "unix://relative", ""]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        RedisOptions(url=url)
    with pytest.raises(UsageInvalid):
        RedisSource("cache", RedisOptions()).elsewhere(url)


def test_what_belongs_together_is_demanded() -> None:
    for wrong in (
        {"restore": "file"},
        {"restore": "file", "folder": Path("/var/lib/redis")},
        {"key": Path("key.pem")},
        {"listen": "host:port"},
        {"timeout": 0},
    ):
        with pytest.raises(ValidationError):
            RedisOptions(**wrong)


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("redis://localhost", True),
        ("redis://127.0.0.2", True),
        ("redis://[::1]", True),
        ("unix:///x", True),
        ("redis://10.0.0.1", False),
        ("redis://cache", False),
    ],
)
def test_only_this_machine_is_near(url: str, *, near: bool) -> None:
    assert parse(url)[0].near is near


def test_users_are_written_as_they_are_read() -> None:
    lines = [
        "user default on nopass ~* +@all",
        "user a on #12 ~x* -@all (+get ~y)",
        "user b off -@all",
    ]
    found = parsed(lines)
    assert list(found) == ["a", "b"]
    assert parsed(written(found).splitlines()) == found
    for wrong in ("a on", "user", "user a", "drop everything"):
        with pytest.raises(ValueError, match="user"):
            parsed([wrong])


def test_a_spool_is_read_while_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    got: list[Chunk] = []
    reader = threading.Thread(target=lambda: got.extend(spool.chunks()))
    reader.start()
    spool.write(b"one ")
    spool.write(b"two MARK", hold_back=4)
    spool.finish(drop=4)
    reader.join()
    assert b"".join(got) == b"one two " == b"".join(spool.chunks())
    spool.close()


def test_readers_of_a_spool_hear_of_its_failure(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.write(b"something")
    chunks = spool.chunks()
    assert next(chunks) == b"something"
    spool.fail(ConnectionLost(component="cache", where="redis://x", reason="cut"))
    with pytest.raises(ConnectionLost):
        next(chunks)
    spool.close()
