"""An application on PostgreSQL, each time a process of its own.

`python -m benchmarks.postgres_client fill URL MEGABYTES` makes a database of mixed tables, seeded:
two runs measure the same rows. `… switch URL COMMAND…` runs a command while six clients work, and
prints for how many seconds one of them got nothing done, at worst, around losing its connection.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np
import psycopg

from .data import _statements

SCHEMA = """
CREATE TABLE accounts (id int PRIMARY KEY, branch int, balance int, filler char(84));
CREATE TABLE messages (id bigint PRIMARY KEY, at timestamptz, author int, body text);
CREATE TABLE documents (id int PRIMARY KEY, properties jsonb);
CREATE TABLE embeddings (id int PRIMARY KEY, vector bytea);
"""
INDEXES = """
CREATE INDEX accounts_branch ON accounts (branch);
CREATE INDEX messages_at ON messages (at);
CREATE INDEX messages_author ON messages (author, at);
ALTER TABLE messages ADD FOREIGN KEY (author) REFERENCES accounts;
ANALYZE;
"""
# Rows for each megabyte of the whole, with what pages and indexes need.
ACCOUNTS, MESSAGES, DOCUMENTS, EMBEDDINGS = 2000, 1000, 120, 60
DIMENSIONS = 384
CLIENTS = 6
MARGIN = 1.0  # seconds that clients work before and after


def fill(url: str, megabytes: int) -> None:
    """Make the database: a third numbers, a third text, the rest JSON and vectors."""
    seeded = np.random.default_rng(20_260_204)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        accounts = ACCOUNTS * megabytes
        connection.execute(
            "INSERT INTO accounts SELECT i, i % 100, i % 9973 * 7, '' FROM"
            f" generate_series(1, {accounts}) i"
        )
        texts = _texts(seeded)
        _copy(connection, "messages", _messages(seeded, texts, MESSAGES * megabytes, accounts))
        _copy(connection, "documents", _documents(texts, DOCUMENTS * megabytes))
        _copy(connection, "embeddings", _embeddings(seeded, EMBEDDINGS * megabytes))
        connection.execute(INDEXES)


def _copy(
    connection: psycopg.Connection[tuple[object, ...]], table: str, lines: Iterator[bytes]
) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
        while batch := b"".join(islice(lines, 1000)):
            copy.write(batch)


def _texts(seeded: np.random.Generator) -> Iterator[bytes]:
    """Give texts of about 300 bytes for ever."""
    for statements in _statements(seeded):
        for line in statements.splitlines():
            yield line.partition(b"'")[2][:-3]


def _messages(
    seeded: np.random.Generator, texts: Iterator[bytes], count: int, accounts: int
) -> Iterator[bytes]:
    authors = seeded.integers(1, accounts + 1, count)
    for number in range(count):
        minute, second = divmod(number, 60)
        day, minute = divmod(minute, 1440)
        at = f"2026-{day // 28 % 12 + 1:02}-{day % 28 + 1:02} {minute // 60:02}:{minute % 60:02}"
        line = f"{number}\t{at}:{second:02}+00\t{authors[number]}\t"
        yield line.encode() + next(texts) + b"\n"


def _documents(texts: Iterator[bytes], count: int) -> Iterator[bytes]:
    for number in range(count):
        body = b" ".join(next(texts) for _text in range(3))
        yield b'%d\t{"title": "document %d", "tags": ["a", "b"], "body": "%b"}\n' % (
            number,
            number,
            body,
        )


def _embeddings(seeded: np.random.Generator, count: int) -> Iterator[bytes]:
    for number in range(count):
        vector = seeded.standard_normal(DIMENSIONS, np.float32).tobytes().hex()
        yield f"{number}\t\\\\x{vector}\n".encode()


class Client(threading.Thread):
    """Reads and writes, and connects again as soon as it loses its connection."""

    def __init__(self, url: str, over: threading.Event) -> None:
        super().__init__()
        self._url = url
        self._over = over
        self.longest = 0.0  # seconds

    def run(self) -> None:
        """Work until it is over."""
        done = time.monotonic()
        lost = False
        while not self._over.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    while not self._over.wait(0.002):
                        connection.execute("SELECT balance FROM accounts WHERE id = 1")
                        if lost:
                            self.longest = max(self.longest, time.monotonic() - done)
                            lost = False
                        done = time.monotonic()
            except psycopg.Error:
                lost = True
                time.sleep(0.002)


def switch(url: str, argv: list[str]) -> float:
    """Run a command while clients work; return the longest that one of them had to wait."""
    over = threading.Event()
    clients = [Client(url, over) for _client in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        time.sleep(MARGIN)
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        time.sleep(MARGIN)
    finally:
        over.set()
        for client in clients:
            client.join()
    longest = max(client.longest for client in clients)
    if not longest:
        raise RuntimeError("no client lost its connection: there was no switch")
    return longest


def main() -> None:
    """Do what the command line says."""
    what, url, *words = sys.argv[1:]
    if what == "fill":
        fill(url, int(words[0]))
    else:
        print(switch(url, words))


if __name__ == "__main__":
    main()
