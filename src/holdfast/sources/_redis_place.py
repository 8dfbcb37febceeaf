"""Where a Redis server is, as a URL says it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

PORT = 6379
_PLAIN, _SECURE = ("redis", "valkey"), ("rediss", "valkeys")


@dataclass(frozen=True, slots=True)
class Place:
    """A server's address: a host and a port, or the path of a socket on this machine."""

    host: str = ""
    port: int = 0
    path: str = ""
    secure: bool = False
    user: str = ""

    def __str__(self) -> str:
        """Return the URL, which has no password in it."""
        user = f"{quote(self.user)}@" if self.user else ""
        if self.path:
            return f"unix://{user}{quote(self.path)}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.secure else 'redis'}://{user}{host}:{self.port}"

    @property
    def near(self) -> bool:
        """Whether the server runs on this machine, as far as its address tells."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse(url: str) -> tuple[Place, str]:
    """Return the place that a URL names and the password in it, which may be empty.

    The number of a database in it says nothing: all databases belong together. Raises
    ``ValueError`` with what is wrong.
    """
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/"):
            raise ValueError("a socket is named as unix:///absolute/path")
        return Place(path=unquote(parts.path), user=user), password
    if parts.scheme not in {*_PLAIN, *_SECURE}:
        raise ValueError("is no URL of the form redis://, rediss:// or unix://")
    if not parts.hostname:
        raise ValueError("names no host")
    database = parts.path.strip("/")
    if database and not database.isdigit():
        raise ValueError(f"ends in /{database}, which is no number of a database")
    secure = parts.scheme in _SECURE
    return Place(parts.hostname, parts.port or PORT, secure=secure, user=user), password
