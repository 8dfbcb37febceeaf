"""The options of a component of kind ``postgres``."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator

from holdfast.i18n import _
from holdfast.model.options import Field, LocalPath, Options

SCHEMES = ("postgresql", "postgres")


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ValueError(_("does not begin with postgresql://"))
    if "sslpassword" in parse_qs(parts.query):
        raise ValueError(_("sslpassword is not taken: use a key file without a password"))
    return url


def _one_line(password: str) -> str:
    if set(password) & {"\n", "\r", "\0"}:  # a password file could not say it
        raise ValueError(_("has more than one line"))
    return password


class PostgresOptions(Options):
    """Options of a component of kind ``postgres``."""

    url: Annotated[str, AfterValidator(_address)] = Field(
        description="`postgresql://USER@HOST:PORT/DATABASE`, as PostgreSQL's own programs take it;"
        " `postgresql:///DATABASE?host=/run/postgresql` for a socket. Whatever libpq knows may"
        " follow: `?sslmode=verify-full&sslrootcert=…`.",
    )
    password: Annotated[str, AfterValidator(_one_line)] = Field(
        default="",
        repr=False,
        description="The password. Neither on a command line nor in an environment; without one,"
        " `~/.pgpass` or what the server asks for instead counts.",
    )
    databases: tuple[Annotated[str, Field(min_length=1, max_length=63)], ...] = Field(
        default=(),
        description="Databases of that server, each held still at its own instant, moments apart."
        " Default: the one that the URL names.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Tables to leave out: `table` or `schema.table`, with `*` and `?`.",
    )
    exclude_data: tuple[str, ...] = Field(
        default=(),
        description="Tables whose rows are left out; they are restored empty.",
    )
    maintenance: str = Field(
        default="postgres",
        description="The database from which others are created and renamed.",
    )
    in_place: bool = Field(
        default=False,
        description="Restore into the live database itself, in one transaction, where the account"
        " may not create databases. Applications wait for it from its beginning to its end.",
    )
    owners: bool = Field(
        default=True,
        description="Restore who owns what and who may do what. Turn it off to restore with an"
        " account that may not give things away; then everything is its own.",
    )
    globals: bool = Field(
        default=True,
        description="Whether roles and tablespaces are backed up too, as `globals.sql`: a restore"
        " makes the roles from it that are missing. Of an account that is no superuser it has no"
        " passwords in it.",
    )
    jobs: int = Field(default=2, ge=1, le=64, description="How much is restored side by side.")
    split: int = Field(
        default=128,
        ge=1,
        description="Tables of at least so many MB, eight at most, are dumped as artifacts of their"
        " own, from the same snapshot, so that a restore loads them side by side.",
    )
    work_memory: int = Field(
        default=256,
        ge=1,
        le=65536,
        description="MB that the server may use for each index that a restore builds.",
    )
    tools: LocalPath | None = Field(
        default=None,
        description="The folder with `pg_dump`, where it is in no usual place.",
    )
    connect_timeout: int = Field(
        default=10, ge=2, le=600, description="Seconds to wait for a connection."
    )
    lock_timeout: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds to wait for a table that another program locks.",
    )
    switch_timeout: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Seconds to wait, at the switch, for connections to end that were told to.",
    )
    silence: float = Field(
        default=600.0,
        gt=0,
        description="Seconds without a byte after which a dump or a restore counts as dead.",
    )
