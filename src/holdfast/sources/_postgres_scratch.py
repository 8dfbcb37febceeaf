"""Empty twins to restore into: a server of their own where one can be run, or else new databases.

A server of its own is best: nothing of it touches the live one. It is reached by a socket in a
private folder only, and ends with this process, however that ends. New databases on the live server
are locked by a session for as long as they are used; those of a process that died are dropped by
the next one.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from holdfast.errors import HoldfastError, NoScratch
from holdfast.ports import Source

from ._command import Environment, ProgramFailed, Running, answer
from ._postgres_errors import Border
from ._postgres_names import name_of
from ._postgres_options import PostgresOptions
from ._postgres_preflight import Live
from ._postgres_session import session, value, values
from ._postgres_switch import drop_database
from ._postgres_tools import Tools, Version

if TYPE_CHECKING:
    from ._postgres_session import Connection

_KIND = "holdfast_scratch"
_READY_SECONDS = 60.0
_OWN_USERS = ("postgres", "nobody")  # who may run a server for root, which PostgreSQL refuses
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "autovacuum": "off",
}
_MAY_CREATE = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
_EXTENSIONS = "SELECT extname FROM pg_extension"
_AVAILABLE = "SELECT name FROM pg_available_extensions"
_LEFT = "SELECT datname FROM pg_database WHERE datname ~ %s"
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"


class Owner(Live, Protocol):
    """What a twin is made from."""

    @property
    def databases(self) -> Mapping[str, str]: ...

    @property
    def where(self) -> str: ...

    def twin(self, options: PostgresOptions, databases: Mapping[str, str]) -> Live: ...


@contextmanager
def scratch(owner: Owner, workspace: Path) -> Iterator[Source]:
    """Give a twin, which ends with the context and leaves nothing.

    Raises:
        NoScratch: none can be made; it says why.

    """
    with ExitStack() as everything:
        try:
            twin = everything.enter_context(_own_server(owner, workspace))
        except (HoldfastError, ProgramFailed, OSError) as error:
            twin = everything.enter_context(_new_databases(owner, f"no server of its own: {error}"))
        yield twin


# --- a server of its own ---


@contextmanager
def _own_server(owner: Owner, workspace: Path) -> Iterator[Source]:
    border = Border(owner.name, owner.where)
    version, extensions = _of_live(owner)
    tools = owner.toolbox.for_server(version, "initdb")
    if version[0] and tools.version[0] != version[0]:
        raise border.failed(f"there is no server program of version {version[0]}")
    user = _own_user()
    data = workspace / "cluster"
    data.mkdir(mode=0o700)
    if user is not None:
        os.chown(data, user, pwd.getpwuid(user).pw_gid)
    with _socket_folder(user) as folder:
        name = pwd.getpwuid(os.geteuid()).pw_name
        argv = [tools["initdb"], "-D", str(data), "-U", name, "-A", "trust", "-E", "UTF8"]
        answer([*argv, "--no-locale", "--no-sync"], Environment(user=user))
        with _server(tools, data, folder, user):
            url = f"postgresql://{quote(name)}@/postgres?host={quote(str(folder), safe='')}"
            twin = _twin(owner, {"url": url, "password": ""}, dict(owner.databases))
            _wait_until_ready(twin, extensions, border)
            yield twin


def _of_live(owner: Owner) -> tuple[Version, set[str]]:
    """Return the version of the live server, and the extensions; zeros where it is gone."""
    extensions: set[str] = set()
    try:
        for actual in owner.databases.values():
            with session(owner.address_of(actual), owner.border) as connection:
                number = connection.info.server_version
                extensions |= set(values(connection, _EXTENSIONS))
    except HoldfastError:
        return (0, 0), set()
    return (number // 10000, number % 10000), extensions


def _own_user() -> int | None:
    """Return whom to run a server as: ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in _OWN_USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise OSError("root may not run a server, and there is no user to run it for root")


@contextmanager
def _socket_folder(user: int | None) -> Iterator[Path]:
    """Give a private folder whose path is short: a socket's may have a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    try:
        if user is not None:
            os.chown(folder, user, pwd.getpwuid(user).pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(tools: Tools, data: Path, folder: Path, user: int | None) -> Iterator[None]:
    settings = _SETTINGS | {"unix_socket_directories": str(folder)}
    argv = [tools["postgres"], "-D", str(data)]
    argv += [part for item in settings.items() for part in ("-c", "=".join(item))]
    with Running(argv, Environment(user=user)) as program:
        try:
            yield
        finally:
            _ask_to_end(data)
            with suppress(ProgramFailed):  # nothing of it is kept
                program.finish()


def _ask_to_end(data: Path) -> None:
    """Have it end at once, but in good order: it gives back what it shares with the system."""
    with suppress(OSError, ValueError):
        pid = int((data / "postmaster.pid").read_text("ascii").splitlines()[0])
        os.kill(pid, signal.SIGINT)


def _wait_until_ready(twin: Live, extensions: set[str], border: Border) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with session(twin.maintenance(), border) as connection:
                if lacking := sorted(extensions - set(values(connection, _AVAILABLE))):
                    raise border.failed(f"it lacks the extension {', '.join(lacking)}")
                return
        except HoldfastError as error:
            if not error.retryable or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


# --- new databases on the live server ---


@contextmanager
def _new_databases(owner: Owner, before: str) -> Iterator[Source]:
    """Give a twin on the live server; ``before`` is why there is no better one."""
    with ExitStack() as everything:
        try:
            opened = session(owner.maintenance(), owner.border)
            connection = everything.enter_context(opened)
        except HoldfastError as error:
            raise NoScratch(component=owner.name, reason=f"{before}; {error}") from error
        if not value(connection, _MAY_CREATE):
            reason = f"{before}; the account may not create databases"
            raise NoScratch(component=owner.name, reason=reason)
        tag = secrets.token_hex(6)
        databases = {name: name_of(own, _KIND, tag) for name, own in owner.databases.items()}
        timeout = owner.options.switch_timeout
        for own in owner.databases.values():
            _sweep(connection, own, timeout)
        for name in databases.values():
            value(connection, _LOCK, name)
        try:
            yield _twin(owner, {}, databases)
        finally:
            for name in databases.values():
                drop_database(connection, name, timeout)


def _sweep(connection: Connection, database: str, timeout: float) -> None:
    """Drop the twins of a database that nobody uses any more: their process has died."""
    name = "".join(f"\\{c}" if not c.isalnum() and c.isascii() else c for c in database)
    for left in values(connection, _LEFT, f"^{name}_{_KIND}_[0-9a-f]{{12}}"):
        base = left[: len(database) + len(_KIND) + 2 + 12]
        if value(connection, _LOCK, base):
            drop_database(connection, left, timeout)
            value(connection, "SELECT pg_advisory_unlock(hashtextextended(%s, 0))", base)


def _twin(owner: Owner, changes: dict[str, str], databases: Mapping[str, str]) -> Live:
    options = owner.options
    plain = {"in_place": False, "owners": options.owners and options.globals}
    return owner.twin(options.model_copy(update={**changes, **plain}), databases)
