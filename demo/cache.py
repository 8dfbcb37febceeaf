"""What the application counts and remembers for a while, in Redis, where it has one."""

from __future__ import annotations

import os
from typing import Any, Protocol

FOR_SECONDS = 86_400  # that an answer is remembered


class Cache(Protocol):
    """A counter of documents, and the last answers."""

    def count(self, number: int) -> None:
        """Count a document."""

    def remember(self, question: str, answer: str) -> None:
        """Remember an answer for a while."""

    def all(self) -> dict[str, str]:
        """Return everything in it, and that what goes by itself still will."""

    def documents(self) -> int:
        """Return how many documents were counted."""


class NoCache:
    """The cache of an application without one."""

    def count(self, number: int) -> None:
        """Forget it."""

    def remember(self, question: str, answer: str) -> None:
        """Forget it."""

    def all(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def documents(self) -> int:
        """Return nothing."""
        return 0


class RedisCache:
    """A cache in Redis."""

    def __init__(self, url: str) -> None:
        """Connect."""
        import redis

        self._redis: Any = redis.Redis.from_url(
            url, password=os.environ["REDIS_PASSWORD"], decode_responses=True
        )

    def count(self, number: int) -> None:
        """Count a document, and keep its number in the stream of what is to be done next."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.set("documents", number)
            pipe.xadd("indexed", {"document": number})
            pipe.execute()

    def remember(self, question: str, answer: str) -> None:
        """Remember an answer for a while."""
        self._redis.set(f"answer:{question}", answer, ex=FOR_SECONDS)

    def all(self) -> dict[str, str]:
        """Return everything in it; a key that should go by itself is marked."""
        found = {"documents": self._redis.get("documents") or ""}
        found["indexed"] = repr(self._redis.xrange("indexed"))
        for key in self._redis.scan_iter("answer:*"):
            fleeting = 0 < self._redis.ttl(key) <= FOR_SECONDS
            found[key] = f"{self._redis.get(key)} {fleeting}"
        return found

    def documents(self) -> int:
        """Return how many documents were counted, if the stream says so too."""
        counted = int(self._redis.get("documents") or 0)
        return counted if self._redis.xlen("indexed") == counted else -1

    def lose(self) -> None:
        """Empty it, as one does with what is called a cache."""
        self._redis.flushall()


def open_cache(where: str) -> Cache:
    """Open the cache of a URL; without one there is none."""
    return RedisCache(where) if where else NoCache()
