"""Buckets and folders of real servers for stores, each test with one of its own."""

from __future__ import annotations

import atexit
import functools
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from holdfast.s3.http import Address, Client, Patience
from holdfast.s3.sign import Credentials, Signer
from holdfast.stores._sftp_session import Login, Session
from holdfast.stores.s3 import S3Store
from holdfast.stores.sftp import SftpStore
from servers.s3 import KEY, REGION, SECRET, shared_server
from servers.ssh import SshServer, ssh_server
from tests import objects_world

QUICK = Patience(attempts=4, connect=2.0, answer=5.0)


def new_bucket(**described: Any) -> str:
    """Make an empty bucket, and return its name."""
    bucket = f"store-{secrets.token_hex(6)}"
    objects_world.client().create_bucket(Bucket=bucket, **described)
    return bucket


@functools.cache
def shared_bucket() -> str:
    """Return a bucket in which each test takes a prefix of its own: to make one takes a while."""
    return new_bucket()


def s3_client(
    bucket: str, endpoint: str, key: str = KEY, secret: str = SECRET, **changes: Any
) -> Client:
    """Return the client of a bucket."""
    signer = Signer(lambda: Credentials(key, secret), REGION)
    given: dict[str, Any] = {"patience": QUICK, **changes}
    return Client("vault offsite", Address(bucket, endpoint), signer, **given)


def s3_store(
    bucket: str = "", prefix: str | None = None, *, endpoint: str = "", **described: Any
) -> S3Store:
    """Return a store in a bucket of the shared server, below a prefix that is new unless given."""
    client = s3_client(bucket or shared_bucket(), endpoint or shared_server().endpoint)
    where = f"{secrets.token_hex(6)}/" if prefix is None else prefix
    return S3Store(client, where, **described)


@functools.cache
def shared_ssh() -> SshServer:
    """Return the one server for SFTP of this process; it ends with the process."""
    running = ExitStack()
    server = running.enter_context(ssh_server())
    atexit.register(running.close)
    return server


def login_of(server: SshServer, **changes: Any) -> Login:
    """Return how to log in to a server."""
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "user": server.user,
        "port": server.port,
        "keys": (server.key,),
        "known_hosts": (server.known_hosts,),
    }
    return Login(**given | changes)


@functools.cache
def shared_session() -> Session:
    """Return a connection to the shared server: to make one takes a while."""
    return Session("vault offsite", login_of(shared_ssh()), 5.0, 10.0)


def sftp_store(
    server: SshServer | None = None,
    folder: str | Path = "",
    *,
    connect: float = 5.0,
    answer: float = 10.0,
    **changes: Any,
) -> SftpStore:
    """Return a store in a folder of a server, a new one unless it is said which.

    Without a server it is the shared one, by the shared connection.
    """
    place = folder or (server or shared_ssh()).folder / secrets.token_hex(6)
    if server is None:
        return SftpStore(shared_session(), str(place))
    login = login_of(server, **changes)
    return SftpStore(Session("vault offsite", login, connect, answer), str(place))
