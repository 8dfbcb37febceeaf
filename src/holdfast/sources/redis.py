"""Redis and Valkey: copied as of one instant over replication, and restored into the live server.

`_redis_pull` takes a server's dump as a replica would, `_redis_rdb` counts and checks it, and
`_redis_feed` gives one to a live server as a master would. No file of the server is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Self, cast

from pydantic import field_validator, model_validator

from holdfast.errors import AccessRefused, HoldfastError, NoScratch, UsageInvalid
from holdfast.model.artifact import Artifact, Chunks, Stream
from holdfast.model.facts import Discovery, Facts, Inspection, Json, Probe
from holdfast.model.options import Field, LocalPath, Options
from holdfast.ports import Frozen, Role, Source, Token

from ._guide import reading
from ._laid_out import LaidOut
from ._redis_check import checked, checker, counted, counts, native_problems
from ._redis_choice import Choice
from ._redis_dump import Dump, dumping
from ._redis_place import Place, parse
from ._redis_rdb import Summary
from ._redis_scan import NOTE, databases, scan_keys
from ._redis_staged import MODULES, RDB, USERS, RedisStaged
from ._redis_target import Target, listen_address, loaded_modules, rdb_version
from ._redis_twin import twin
from ._redis_users import parsed, users, written
from ._redis_view import RdbView
from ._redis_wire import Access, Said, Wire, text

RDB_FILE, USERS_FILE = "dump.rdb", "users.acl"


class RedisOptions(Options):
    """Options of a component of kind ``redis``."""

    url: str = Field(
        default="redis://localhost:6379",
        description="The server: `redis://user@host:port`, `rediss://…` for TLS, or"
        " `unix:///path/of.sock`. All its databases are kept, whichever number the URL ends in.",
    )
    password: str = Field(default="", description="The password of the user, or of the server.")
    ca: LocalPath | None = Field(
        default=None,
        description="Certificates that sign the server's, for `rediss://`; the system's if absent.",
    )
    cert: LocalPath | None = Field(
        default=None, description="Our own certificate, where the server asks for one."
    )
    key: LocalPath | None = Field(default=None, description="The key of `cert`.")
    connect_timeout: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Seconds to wait for a connection; in a restore also for the server's to us.",
    )
    timeout: float = Field(
        default=60.0,
        gt=0,
        le=3600,
        description="Seconds to wait for a sign of life. More than the server's"
        " `repl-diskless-sync-delay`, which is 5.",
    )
    backup: Literal["auto", "replication", "commands"] = Field(
        default="auto",
        description="How the server is copied: by `replication`, which is exact, or key by key with"
        " `commands`, which is not; `auto` takes the second where the first is forbidden.",
    )
    restore: Literal["auto", "replication", "file", "commands"] = Field(
        default="auto",
        description="How a live server gets its data: by `replication`, for which it connects to"
        " this machine; by `file`, for which it is started again; or by `commands`, which is slow,"
        " and shows readers a part meanwhile. `auto` takes the first that is possible.",
    )
    listen: str = Field(
        default="",
        description="`HOST` or `HOST:PORT` of this machine as the server reaches it, to restore by"
        " replication to a server elsewhere. One on this machine needs none.",
    )
    folder: LocalPath | None = Field(
        default=None, description="The server's `dir` as seen from here, to restore by file."
    )
    restart: tuple[str, ...] = Field(
        default=(),
        description="The command that starts the server again, to restore by file, such as"
        " `[systemctl, restart, redis]`.",
    )
    users: bool = Field(
        default=True,
        description="Whether the users of the ACL are kept and restored, but for `default`.",
    )

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, url: str) -> str:
        parse(url)
        return url

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, listen: str) -> str:
        if listen:
            listen_address(listen)
        return listen

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.restore == "file" and not (self.folder and self.restart):
            raise ValueError("`restore: file` needs `folder` and `restart`")
        if self.key and not self.cert:
            raise ValueError("`key` needs `cert`")
        return self


class RedisSource:
    """One server with all its databases. See `holdfast.ports.Source`."""

    kind: ClassVar[str] = "redis"
    role: ClassVar[Role] = Role.CACHE
    options_model: ClassVar[type[Options]] = RedisOptions

    def __init__(self, name: str, options: Options) -> None:
        """Touch nothing."""
        if not isinstance(options, RedisOptions):
            raise TypeError(f"{type(options).__name__} are not options of a Redis server")
        self.name = name
        self.options = options
        place, password = parse(options.url)
        self._access = Access(
            name,
            place,
            options.password or password,
            options.ca,
            options.cert,
            options.key,
            options.connect_timeout,
            options.timeout,
        )

    @property
    def where(self) -> str:
        """Say where the server is."""
        return str(self._access.place)

    @property
    def target(self) -> Target:
        """The server as what is restored to."""
        options = self.options
        return Target(
            self._access, options.restore, options.listen, options.folder, options.restart
        )

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find servers in compose files and ``.env``."""
        from ._redis_find import find

        return find(folder, cls.kind)

    def probe(self) -> Probe:
        """Look whether the server answers, and what the account may do there."""
        tools = {Path(tool).name: tool} if (tool := checker()) else {}
        try:
            with self._access.connect() as wire:
                rights = _rights(wire)
                try:
                    version, size = _version(wire), int(wire.info("memory")["used_memory"])
                except AccessRefused:
                    version, size = "", 0  # enough rights for a copy all the same
        except HoldfastError as error:
            return Probe(reachable=False, tools=tools, problems=(str(error),))
        return Probe(reachable=True, version=version, size=size, tools=tools, rights=rights)

    def facts(self) -> Facts:
        """Count the keys, those that expire, the libraries of functions and the users.

        Raises:
            ServerUnreachable, AccessRefused, ServerFailed, ConnectionLost: it cannot be asked.

        """
        with self._access.connect() as wire:
            found = users(wire) if self.options.users else None
            libraries = wire.ask("FUNCTION", "LIST")
            functions = 0 if isinstance(libraries, Said) else len(libraries)
            memory = wire.info("memory")
            details: dict[str, Json] = {
                "server_version": _version(wire),
                "used_memory": int(memory["used_memory"]),
                "maxmemory_policy": memory.get("maxmemory_policy", ""),
                "appendonly": wire.info("persistence").get("aof_enabled") == "1",
            }
            return Facts(counts(databases(wire), functions, len(found or {})), details)

    # --- freezing ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Let the server dump itself as of one instant, which its writers do not notice.

        Raises:
            ServerUnreachable, AccessRefused, ServerFailed, ConnectionLost: it cannot be copied.
            NoSpace: the workspace is full.

        """
        del evidence  # a server that runs has no damage that could be kept
        found, version, labels = self._look()
        with dumping(self._access, workspace / RDB_FILE, self.options.backup) as dump:
            artifacts = [
                Stream(RDB_FILE, dump.spool.opened, part=RDB, labels=labels, compressible=True)
            ]
            if found is not None:
                artifacts.append(_of_text(USERS_FILE, USERS, written(found)))
            frozen = Frozen(artifacts, dump.asked, Facts, exact=dump.exact, version=version)
            frozen.facts = lambda: self._count(frozen, dump, len(found or {}))
            yield frozen

    def _look(self) -> tuple[dict[str, str] | None, str, dict[str, str]]:
        """Return what no dump says: the users, the version, and which modules there are."""
        with self._access.connect() as wire:
            found = users(wire) if self.options.users else None
            modules = " ".join(sorted(loaded_modules(wire)))
            try:
                version = _version(wire)
            except AccessRefused:
                version = ""
        return found, version, {MODULES: modules} if modules else {}

    def _count(self, frozen: Frozen, dump: Dump, found: int) -> Facts:
        summary = checked(self.name, self.where, dump.spool.chunks())
        frozen.instant = dump.instant(summary)
        facts = counted(summary, found)
        return facts if dump.exact else replace(facts, notes=(*facts.notes, NOTE))

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read the stored RDB to its end, let the server's checker read it too, and count it."""
        streams = {one.part: one for one in artifacts if isinstance(one, Stream)}
        if RDB not in streams:
            return Inspection(Facts(), ("the backup does not hold an RDB",))
        copy = workspace / RDB_FILE
        try:
            with streams[RDB].open() as chunks:
                summary = checked(
                    self.name, streams[RDB].name, _copied(chunks, copy) if checker() else chunks
                )
            found = self._stored_users(streams.get(USERS))
        except (HoldfastError, ValueError) as error:
            if isinstance(error, HoldfastError) and error.code not in _FOUND:
                raise
            return Inspection(Facts(), (str(error),))
        problems = native_problems(copy) if copy.exists() else []
        return Inspection(counted(summary, found), tuple(problems))

    def _stored_users(self, stream: Stream | None) -> int:
        if stream is None:
            return 0
        with stream.open() as chunks:
            return len(parsed(b"".join(chunks).decode().splitlines()))

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> RedisStaged:
        """Return the folder where new content waits for the server to load it."""
        return RedisStaged(self, tag, workspace)

    def reopen(self, token: Token) -> RedisStaged:
        """Return a staging by its token: for the server it was made for, wherever ours is now."""
        source = self if token["url"] == self.where else self.elsewhere(str(token["url"]))
        return RedisStaged(source, str(token["tag"]), Path(str(token["workspace"])))

    def view(self, rdb: Path, acl: Path | None, summary: Summary | None) -> Source:
        """Return staged content as a source."""
        return cast("Source", RdbView(cast("Source", self), rdb, acl, summary))

    def at(self, folder: Path) -> Source:
        """Return a folder for the RDB itself."""
        return cast("Source", LaidOut(cast("Source", self), folder))

    def elsewhere(self, url: str) -> RedisSource:
        """Return the server that ``url`` names, with the same user and password."""
        try:
            place, password = parse(url)
        except ValueError as error:
            raise UsageInvalid(problem=f"{self.name}: {url} {error}") from None
        user = place.user or self._access.place.user
        own = str(replace(place, user=user))
        secret = password or self._access.password
        return self._with(url=own, password=secret)

    def _with(self, **changes: object) -> RedisSource:
        return RedisSource(self.name, self.options.model_copy(update=changes))

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[RedisSource]:
        """Give an empty server of our own, where none of the keys expires.

        Raises:
            NoScratch: there is no server program on this machine, or one that is too old.

        """
        with twin(self._access, workspace) as socket:
            source = self._with(
                url=str(Place(path=str(socket))),
                password="",  # nobody else reaches its socket
                restore="replication",
                listen="",
                folder=None,
                restart=(),
            )
            reads, writes = source.rdb_version(), self.rdb_version()
            if reads < writes:
                reason = f"the server program here reads RDB version {reads}, and not {writes}"
                raise NoScratch(component=self.name, reason=reason)
            yield source

    def rdb_version(self) -> int:
        """Return which RDB files the server reads and writes; 0 if it is not there."""
        try:
            with self._access.connect() as wire:
                return rdb_version(wire)
        except HoldfastError:
            return 0

    def occupants(self) -> Sequence[str]:
        """Name nobody: clients of a server notice what becomes of it."""
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return the lines that start a fresh server on the RDB, in ``"$TARGET"``."""
        lines = ['mkdir -p "$TARGET"', f'{reading(paths[RDB])} > "$TARGET"/{RDB_FILE}']
        options = f'--dir "$TARGET" --dbfilename {RDB_FILE} --appendonly no'
        if USERS in paths:
            lines.append(f'{reading(paths[USERS])} > "$TARGET"/{USERS_FILE}')
            options += f' --aclfile "$TARGET"/{USERS_FILE}'
        return [
            *lines,
            f'redis-check-rdb "$TARGET"/{RDB_FILE}',
            f'redis-server {options} --bind 127.0.0.1 --port "${{PORT:-6380}}" --daemonize yes',
            "# Do not start it with `appendonly yes` the first time: it would come up empty.",
            '# To turn that on: redis-cli -p "${PORT:-6380}" CONFIG SET appendonly yes',
        ]

    # --- keys ---

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the keys of ``database`` (0) that match ``pattern`` (``*``); some may come twice.

        Raises:
            UsageInvalid: other options than these.

        """
        choice = Choice.of(self.name, options)
        with self._access.connect() as wire:
            wire.call("SELECT", choice.database)
            yield scan_keys(wire, choice.pattern)

    # --- what the staging needs ---

    @property
    def way(self) -> Literal["auto", "replication", "commands"]:
        """How the server is copied."""
        return self.options.backup

    @property
    def keeps_users(self) -> bool:
        """Whether users are kept and restored."""
        return self.options.users


_FOUND = {"source-corrupt", "tool-too-old"}  # what an inspection reports and does not raise


def _rights(wire: Wire) -> str:
    """Say in a few words what the account may do, as far as the server tells."""
    user = wire.ask("ACL", "WHOAMI")
    if isinstance(user, Said):
        return ""
    refused = [
        name
        for name, words in {
            "replicate": ("PSYNC", "?", "-1"),
            "be replaced": ("REPLICAOF", "NO", "ONE"),
        }.items()
        if _is_refused(wire, text(user), words)
    ]
    return f"user {text(user)}" + (f", which may not {' or '.join(refused)}" if refused else "")


def _is_refused(wire: Wire, user: str, words: Sequence[str]) -> bool:
    answer = wire.ask("ACL", "DRYRUN", user, *words)  # since Redis 7
    return not isinstance(answer, Said) and text(answer) != "OK"


def _version(wire: Wire) -> str:
    server = wire.info("server")
    if "valkey_version" in server:
        return f"valkey {server['valkey_version']}"
    return server["redis_version"]


def _of_text(name: str, part: str, content: str) -> Stream:
    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter((content.encode(),) if content else ())

    return Stream(name, opened, len(content), part)


def _copied(chunks: Chunks, path: Path) -> Chunks:
    with path.open("wb", buffering=0) as file:
        for chunk in chunks:
            file.write(chunk)
            yield chunk
