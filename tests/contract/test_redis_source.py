"""Redis earns the contract, in three generations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from holdfast.ports import Source
from holdfast.sources.redis import RedisOptions, RedisSource
from holdfast.testing.source_contract import SourceContract
from servers.redis import (
    REDIS_6,
    REDIS_7,
    VALKEY,
    Pool,
    Server,
    content,
    fill,
    free_port,
    programs,
)


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[str, Pool]]:
    """Servers of each version, started when the first test wants them."""
    pools: dict[str, Pool] = {}
    yield pools
    for pool in pools.values():
        pool.stop()


class RedisContract(SourceContract):
    version = REDIS_7
    discoverable = False
    always_there = True
    __test__ = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.__test__ = True

    @pytest.fixture(autouse=True)
    def _server(self, pools: dict[str, Pool], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        if self.version not in pools:
            pools[self.version] = Pool(self.version)
        self.pool = pools[self.version]
        monkeypatch.setenv("PATH", f"{programs(self.version)}:/usr/bin:/bin")
        yield
        self.pool.take_back()

    def make_source(self, name: str, folder: Path) -> RedisSource:
        return RedisSource(name, RedisOptions(url=self.pool.of(folder).url))

    def other_place(self, source: Source, folder: Path) -> Source:
        return source.elsewhere(self.pool.of(folder).url)

    def server(self, source: Source) -> Server:
        assert isinstance(source, RedisSource)
        (server,) = (one for one in self.pool.used() if one.url == source.options.url)
        return server

    def create(self, source: Source) -> None:
        fill(self.server(source))

    def change(self, source: Source) -> None:
        with self.server(source).client() as client:
            client.set("later", "x")
            client.delete("scores", "stream")
        with self.server(source).client(5) as client:
            client.set("elsewhere", "x")

    def content(self, source: Source) -> object:
        return content(self.server(source))

    def litter(self, folder: Path) -> set[str]:
        server = self.pool.of(folder)
        with server.client() as client:
            state = client.info("replication")
            users = {*client.acl_users()} - {"default"}
        files = {path.name for path in server.folder.iterdir()} - {"dump.rdb"}
        master = {f"replica of {state['master_port']}"} if state["role"] != "master" else set()
        return {*master, *users, *files}

    def guide_environment(self, target: Path) -> Mapping[str, str]:
        del target
        self.port = free_port()
        path = f"{programs(self.version)}:/usr/bin:/bin"
        return {"PORT": str(self.port), "PATH": path}

    def guided_content(self, source: Source, target: Path) -> object:
        by_hand = Server(self.version, target)
        by_hand.port = self.port
        by_hand.wait()
        try:
            return content(by_hand)
        finally:
            with by_hand.client() as client:
                client.shutdown(nosave=True)


class TestRedis7(RedisContract):
    version = REDIS_7


class TestRedis6(RedisContract):
    version = REDIS_6


class TestValkey(RedisContract):
    version = VALKEY
