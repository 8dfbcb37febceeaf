"""Where a PostgreSQL server is, and how to get in: for the driver and for the store's programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from ._command import Environment

# A connection that died silently is noticed within about a minute and a half.
_KEEPALIVE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "5",
    "tcp_user_timeout": "90000",
}
ENGLISH = {"LC_ALL": "C"}  # so that what programs say is understood, see `_postgres_errors`
_SHOWN = ("host", "port", "user")


@dataclass(frozen=True, slots=True)
class Address:
    """One database. ``params`` are libpq's, without the database and without the password."""

    params: Mapping[str, str]
    database: str
    password: str = field(default="", repr=False)

    @classmethod
    def parsed(cls, url: str, password: str, connect_timeout: int) -> Address:
        """Return the address that a URL names, as libpq reads it.

        Raises:
            ValueError: it is none; the text does not repeat it.

        """
        import psycopg
        from psycopg.conninfo import conninfo_to_dict

        try:
            found = conninfo_to_dict(url)
        except psycopg.Error:
            raise ValueError("it is no address of a PostgreSQL server") from None
        params = {name: str(value) for name, value in found.items() if value is not None}
        own = params.pop("password", "")
        user = params.get("user", "")
        database = params.pop("dbname", "") or user or "postgres"
        timeout = {"connect_timeout": str(connect_timeout)}
        return cls({**_KEEPALIVE, **timeout, **params}, database, password or own)

    def of(self, database: str) -> Address:
        """Return the address of another database of the same server."""
        return replace(self, database=database)

    @property
    def where(self) -> str:
        """Say where it is, without what is secret."""
        host, port, user = (self.params.get(name, "") for name in _SHOWN)
        name = quote(self.database, safe="")
        at = f"{quote(user, safe='')}@" if user else ""
        if host.startswith("/") or not host:
            socket = f"?host={host}" if host else ""
            return f"postgresql://{at}/{name}{socket}" + (f"&port={port}" if port and host else "")
        return f"postgresql://{at}{host}{f':{port}' if port else ''}/{name}"

    def connecting(self) -> dict[str, Any]:
        """Return what the driver is to be given."""
        secret = {"password": self.password} if self.password else {}
        return {**self.params, "dbname": self.database, "application_name": "holdfast", **secret}

    def argument(self) -> str:
        """Return what a program of PostgreSQL is to be given as its database; nothing secret."""
        from psycopg.conninfo import make_conninfo

        params = {**self.params, "dbname": self.database, "application_name": "holdfast"}
        return make_conninfo("", **params)

    def environment(self, settings: Mapping[str, str] | None = None) -> Environment:
        """Return what such a program needs; ``settings`` are the server's, for its session."""
        own = " ".join(f"-c {name}={value}" for name, value in (settings or {}).items())
        options = " ".join(filter(None, (self.params.get("options", ""), own)))
        variables = {**ENGLISH, "PGOPTIONS": options}
        if not self.password:
            return Environment(variables)
        escaped = self.password.replace("\\", "\\\\").replace(":", "\\:")
        return Environment(
            {**variables, "PGPASSWORD": ""},  # empty counts as none: the file is read
            {"PGPASSFILE": f"*:*:*:*:{escaped}\n".encode()},
        )
