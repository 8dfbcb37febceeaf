"""What the tests of PostgreSQL share: databases of their own, stored dumps, and clients."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg

from holdfast.model.artifact import CHUNK, Artifact, Chunks, Stream
from holdfast.model.facts import Facts
from holdfast.sources.postgres import PostgresOptions, PostgresSource
from servers.postgres import PASSWORD, PostgresServer

SMALL = """
CREATE TABLE a (id int PRIMARY KEY, text text);
CREATE TABLE b (a int REFERENCES a);
INSERT INTO a SELECT i, md5(i::text) FROM generate_series(1, 500) i;
INSERT INTO b SELECT i FROM generate_series(1, 500, 2) i;
"""


@contextmanager
def database(server: PostgresServer, schema: str = SMALL) -> Iterator[str]:
    """Give a new database, which is dropped in the end with all whose names begin as its own."""
    name = f"w{uuid.uuid4().hex[:8]}"
    server.run(f"CREATE DATABASE {name} TEMPLATE template0")
    if schema:
        server.run(schema, name)
    try:
        yield name
    finally:
        for one in databases(server, name):
            server.run(f'DROP DATABASE "{one}" WITH (FORCE)')


def databases(server: PostgresServer, begin: str) -> set[str]:
    """Return the names of databases that begin so."""
    return {
        row[0]
        for row in server.run(
            f"SELECT datname FROM pg_database WHERE starts_with(datname, '{begin}')"
        )
    }


def source_of(server: PostgresServer, name: str, **options: Any) -> PostgresSource:
    """Return a source of a database."""
    given = {"url": server.url(name), "password": PASSWORD, "tools": server.tools, **options}
    return PostgresSource("knowledge", PostgresOptions(**given))


def taken(source: PostgresSource, workspace: Path) -> tuple[list[Stream], Facts]:
    """Back up into memory, counting meanwhile."""
    workspace.mkdir(parents=True, exist_ok=True)
    with source.freeze(workspace) as frozen:
        stored = [in_memory(artifact) for artifact in frozen.artifacts]
        return stored, frozen.facts()


def in_memory(artifact: Artifact, change: Callable[[bytes], bytes] = bytes) -> Stream:
    """Return a stream with the same content, changed, that needs no server any more."""
    assert isinstance(artifact, Stream)
    with artifact.open() as chunks:
        data = change(b"".join(chunks))

    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter([data[at : at + CHUNK] for at in range(0, len(data), CHUNK)])

    return replace(artifact, open=opened, path=None)


def restored(source: PostgresSource, artifacts: Sequence[Artifact], workspace: Path) -> None:
    """Restore to the end."""
    staged = source.staging(f"t{uuid.uuid4().hex[:6]}", workspace / "staging")
    staged.fill(artifacts)
    staged.activate()
    staged.settle(None)


PACE = 0.003  # seconds between two pieces of work: there are other tests on this machine


@dataclass
class Clients:
    """Programs that use a database, and connect again as soon as they lose it."""

    connect: Callable[[], Any]
    work: Callable[[Any, int], None]
    errors: list[str] = field(default_factory=list)
    done: list[float] = field(default_factory=list)  # when a piece of work was done
    reconnects: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, count: int = 6) -> Iterator[Clients]:
        """Have so many of them work while the context is open."""
        threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]
        for thread in threads:
            thread.start()
        try:
            self.wait_for(3 * count)
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(30)

    def wait_for(self, more: int) -> None:
        """Wait until so much more work is done."""
        wanted = len(self.done) + more
        deadline = time.monotonic() + 30
        while len(self.done) < wanted:
            assert time.monotonic() < deadline, self.errors[-3:]
            time.sleep(0.005)

    def longest_pause(self) -> float:
        """Return for how long nobody got anything done, in seconds."""
        times = sorted(self.done)
        return max(later - sooner for sooner, later in pairwise(times))

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                with self.connect() as connection:
                    while not self._over.is_set():
                        self.work(connection, number)
                        self.done.append(time.monotonic())
                        time.sleep(PACE)
            except psycopg.Error as error:
                self.errors.append(str(error))
                self.reconnects += 1
                time.sleep(0.002)
