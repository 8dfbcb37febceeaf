"""A connection to an SSH server that many threads use, made when it is first needed.

The library works in an event loop, which has a thread of its own here. A connection that has ended
is made anew by whoever needs it next. Only hosts that the file of known hosts knows are spoken to.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    HostUntrusted,
    ServerFailed,
    ServerUnreachable,
)

if TYPE_CHECKING:
    from asyncssh import SFTPClient, SFTPClientFile, SSHClientConnection

T = TypeVar("T")
STOPPING = 5  # seconds that ending may take
SSH = 22  # the usual port
ALIVE = 15  # seconds between signs of life; three that stay out end the connection
KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))


@dataclass(frozen=True, slots=True)
class Login:
    """Which server, as whom, and what proves both.

    Without ``keys`` those of the agent and the usual files below ``~/.ssh`` are tried, as ssh does;
    an empty ``user`` or a ``port`` of 0 is what ``~/.ssh/config`` says, or the usual.
    """

    host: str
    user: str = ""
    port: int = 0
    keys: tuple[Path, ...] = ()
    passphrase: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    known_hosts: tuple[Path, ...] = KNOWN_HOSTS

    @property
    def where(self) -> str:
        """Say which server it is, and as whom."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"sftp://{user}{self.host}{port}"


class Session:
    """A connection. May be used by several threads.

    Args:
        component: whose it is, for errors.
        login: which server, and as whom.
        connect: seconds that connecting may take.
        answer: seconds that an answer may take.

    """

    def __init__(self, component: str, login: Login, connect: float, answer: float) -> None:
        """Connect to nothing yet."""
        self.component = component
        self.login = login
        self._connect_seconds = connect
        self._answer_seconds = answer
        self._background = _Background()
        self._connecting = asyncio.Lock()
        self._sftp: SFTPClient | None = None
        weakref.finalize(self, self._background.stop)

    def run(self, work: Callable[[SFTPClient], Awaitable[T]]) -> T:
        """Do something that may be done twice: once more, if a connection turns out to be dead."""
        used = self._sftp is not None
        try:
            return self.once(work)
        except ConnectionLost:
            if not used:
                raise
        return self.once(work)

    def once(self, work: Callable[[SFTPClient], Awaitable[T]]) -> T:
        """Do something with the connection, and wait for it."""
        return self.wait(self.begin(work))

    def begin(self, work: Callable[[SFTPClient], Awaitable[T]]) -> Future[T]:
        """Begin to do something; `wait` for what is returned."""
        return self._background.submit(self._with_client(work))

    def wait(self, future: Future[T]) -> T:
        """Return the result. Raises rows of ``errors``, and ``asyncssh.SFTPError``."""
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of somebody who was interrupted
            raise

    def close_later(self, file: SFTPClientFile) -> None:
        """Close a file for which nobody waits; that of a connection that ended is closed."""
        self._background.submit(_closed(file))

    # --- in the event loop ---

    async def _with_client(self, work: Callable[[SFTPClient], Awaitable[T]]) -> T:
        import asyncssh

        sftp = await self._client()
        try:
            return await asyncio.wait_for(work(sftp), self._answer_seconds)
        except (
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
            asyncssh.DisconnectError,
            OSError,
        ) as error:
            self._forget(sftp, error)
            raise self._lost(error) from error

    async def _client(self) -> SFTPClient:
        async with self._connecting:
            if self._sftp is None:
                self._background.connection, self._sftp = await self._connected()
            return self._sftp

    def _forget(self, sftp: SFTPClient, error: Exception) -> None:
        """End a connection that is dead or dumb: that of an old file may be neither."""
        connection = self._background.connection
        if self._sftp is not sftp or connection is None:
            return
        if connection.is_closed() or isinstance(error, TimeoutError):
            connection.abort()
            self._background.connection = self._sftp = None

    async def _connected(self) -> tuple[SSHClientConnection, SFTPClient]:
        import asyncssh

        login = self.login
        chosen: dict[str, Any] = {}
        if login.user:
            chosen["username"] = login.user
        if login.keys:
            chosen |= {"client_keys": [str(key) for key in login.keys], "agent_path": None}
        if login.port:
            chosen["port"] = login.port
        try:
            connection = await asyncssh.connect(
                login.host,
                known_hosts=self._known_hosts(),
                passphrase=login.passphrase or None,
                password=login.password or None,
                connect_timeout=self._connect_seconds,
                login_timeout=self._connect_seconds,
                keepalive_interval=ALIVE,
                compression_algs=None,  # what a vault keeps is compressed already
                x509_trusted_certs=None,
                gss_host=None,
                **chosen,
            )
            return connection, await self._sftp_on(connection)
        except (asyncssh.Error, OSError, ValueError) as error:
            if await self._shows_another_key(error):
                raise self._untrusted() from error
            raise self._not_connected(error) from error

    async def _sftp_on(self, connection: SSHClientConnection) -> SFTPClient:
        try:
            return await asyncio.wait_for(connection.start_sftp_client(), self._connect_seconds)
        except BaseException:
            connection.abort()
            raise

    async def _shows_another_key(self, error: Exception) -> bool:
        """Tell whether a server hung up because it has no key of the kind that is known.

        It is asked for keys of that kind only, and does not say why it ends the connection.
        """
        import asyncssh

        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return True
        if not isinstance(error, ConnectionResetError | asyncssh.DisconnectError) or isinstance(
            error, asyncssh.PermissionDenied
        ):
            return False
        host, port = self.login.host, self.login.port or SSH
        try:
            asking = asyncssh.get_server_host_key(host, port)
            shown = await asyncio.wait_for(asking, self._connect_seconds)
        except (asyncssh.Error, OSError):
            return False  # it does not show any: what failed first is what counts
        known = asyncssh.match_known_hosts(self._known_hosts(), host, "", port)[0]
        return shown is not None and shown not in known

    def _known_hosts(self) -> Sequence[str]:
        """Return the files of known hosts that there are; without any, no host is known."""
        files = [path.expanduser() for path in self.login.known_hosts]
        found = [str(path) for path in files if path.is_file()]
        if not found:
            raise self._untrusted()
        return found

    # --- what it says when that fails ---

    def _not_connected(self, error: Exception) -> HoldfastError:
        import asyncssh

        rows: list[tuple[type[Exception], type[HoldfastError], str]] = [
            (asyncssh.PermissionDenied, AccessRefused, "it accepts no key or password we have"),
            (asyncssh.KeyImportError, AccessRefused, f"a key cannot be read: {error}"),
            (asyncssh.KeyEncryptionError, AccessRefused, f"a key cannot be read: {error}"),
            (FileNotFoundError, AccessRefused, "there is no such key file"),
            (TimeoutError, ServerUnreachable, f"no answer for {self._connect_seconds:g} s"),
            (OSError, ServerUnreachable, _said(error)),
            (asyncssh.DisconnectError, ServerUnreachable, _said(error)),
        ]
        for kind, row, reason in rows:
            if isinstance(error, kind):
                return self._row(row, reason)
        return self._row(ServerFailed, _said(error))

    def _lost(self, error: Exception) -> ConnectionLost:
        reason = _said(error)
        if isinstance(error, TimeoutError):
            reason = f"it has not answered for {self._answer_seconds:g} s"
        return ConnectionLost(component=self.component, where=self.login.where, reason=reason)

    def _untrusted(self) -> HostUntrusted:
        files = " or ".join(str(path) for path in self.login.known_hosts)
        return HostUntrusted(component=self.component, where=self.login.where, known_hosts=files)

    def _row(self, row: type[HoldfastError], reason: str) -> HoldfastError:
        return row(component=self.component, where=self.login.where, reason=reason)


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


async def _closed(file: SFTPClientFile) -> None:
    import asyncssh

    with suppress(asyncssh.Error, OSError):
        await file.close()


class _Background:
    """An event loop in a thread of its own, and the connection that lives in it.

    It does not know its session, so that it can end when nobody has that any more.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.connection: SSHClientConnection | None = None
        self._thread = threading.Thread(target=self._serve, name="holdfast-sftp", daemon=True)
        self._starting = threading.Lock()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin to do something in the loop, whose thread begins with it."""
        with self._starting:
            if not self._thread.is_alive():
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """End the connection, the loop and its thread."""
        if not self._thread.is_alive():
            self.loop.close()
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        if self._thread is not threading.current_thread():
            self._thread.join(STOPPING)

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.run_until_complete(self._ended())
        self.loop.close()

    async def _ended(self) -> None:
        if self.connection is not None:
            self.connection.abort()
            await self.connection.wait_closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_default_executor()
