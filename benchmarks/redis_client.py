"""A client of a Redis server, as an application's own scripts are written.

`python -m benchmarks.redis_client fill PORT KEYS` makes data, `save PORT FILE` keeps what ``DUMP``
answers for each key, and `replay PORT FILE` empties the server and restores them in pipelines.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

import redis

BATCH = 1000
DAY = 86_400_000  # milliseconds
HEAD = struct.Struct("<qII")  # time to live, and the sizes of key and value


def fill(client: redis.Redis, keys: int) -> None:
    """Make strings of 60 random characters; every fifth expires, every fiftieth is a hash."""
    chance = random.Random(20_260_204)
    for start in range(0, keys, BATCH):
        with client.pipeline(transaction=False) as many:
            for number in range(start, min(keys, start + BATCH)):
                value = chance.randbytes(30).hex()
                if number % 50 == 0:
                    many.hset(f"profile:{number}", mapping={"name": value, "visits": number})
                elif number % 5 == 0:
                    many.set(f"session:{number}", value, px=DAY + number)
                else:
                    many.set(f"item:{number}", value)
            many.execute()


def save(client: redis.Redis, path: Path) -> None:
    """Keep every key, one after the other."""
    with path.open("wb") as file:
        cursor = 0
        while True:
            cursor, keys = client.scan(cursor, count=BATCH)
            with client.pipeline(transaction=False) as many:
                for key in keys:
                    many.pttl(key)
                    many.dump(key)
                answers = many.execute()
            for number, key in enumerate(keys):
                left, value = answers[2 * number : 2 * number + 2]
                assert isinstance(key, bytes)  # noqa: S101 - the client decodes nothing
                file.write(HEAD.pack(max(0, left), len(key), len(value)))
                file.write(key)
                file.write(value)
            if cursor == 0:
                return


def replay(client: redis.Redis, path: Path) -> None:
    """Empty the server, and restore every key."""
    client.flushall()
    with path.open("rb") as file:
        while True:
            with client.pipeline(transaction=False) as many:
                for _turn in range(BATCH):
                    if not (head := file.read(HEAD.size)):
                        break
                    left, key, value = HEAD.unpack(head)
                    many.restore(file.read(key), left, file.read(value))
                if not many.execute():
                    return


def main() -> None:
    """Do what the command line says."""
    what, port, argument = sys.argv[1:]
    with redis.Redis(port=int(port)) as client:
        if what == "fill":
            fill(client, int(argument))
        elif what == "save":
            save(client, Path(argument))
        else:
            replay(client, Path(argument))


if __name__ == "__main__":
    main()
