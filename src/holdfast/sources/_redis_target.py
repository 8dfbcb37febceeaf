"""A live server as the target of a restore: whether it is fit, and how it takes an RDB."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.errors import TargetUnfit

from ._redis_feed import POLL, Feeding, Untouched
from ._redis_files import Files, resume
from ._redis_rdb import Summary
from ._redis_replay import replay
from ._redis_scan import databases
from ._redis_wire import Access, Said, Wire, text

How = Literal["auto", "replication", "file", "commands"]
_BY_RELEASE = ((7, 9), (7.2, 10), (7.4, 11), (8.1, 12))  # below it: the RDB version it reads
_FOOTER = 10


Begun = Callable[[Mapping[str, str]], None]
"""Called just before a way of loading touches the server, with what `Target.release` needs."""


@dataclass(frozen=True, slots=True)
class Target:
    """How one server may be given an RDB."""

    access: Access
    how: How = "auto"
    listen: str = ""
    folder: Path | None = None
    restart: Sequence[str] = ()

    # --- whether it is fit ---

    def refuse_unfit(self, wire: Wire) -> None:
        """Raise unless the server is one that may be given other data.

        Raises:
            TargetUnfit: it is a replica, part of a cluster, or watched by Sentinel.

        """
        if wire.info("server").get("redis_mode") == "cluster":
            raise self.unfit("it is part of a cluster, whose nodes each hold a part of the keys")
        state = wire.info("replication")
        if state["role"] != "master":
            master = f"{state.get('master_host')}:{state.get('master_port')}"
            raise self.unfit(f"it is a replica of {master}; restore to that one")
        clients = wire.ask("CLIENT", "LIST")
        if isinstance(clients, bytes) and b" name=sentinel-" in clients:
            raise self.unfit("Sentinel watches it and would appoint another master meanwhile")

    def refuse_unreadable(self, wire: Wire, summary: Summary, modules: str) -> None:
        """Raise unless the server can load an RDB with this in it: one that cannot would die of it.

        Raises:
            TargetUnfit: it is too old, has too few databases, or lacks a module.

        """
        reads = rdb_version(wire)
        if summary.version > reads:
            reason = f"the backup is of a newer server: RDB version {summary.version}, not {reads}"
            raise self.unfit(reason)
        highest = max(summary.keys, default=0)
        if isinstance(wire.ask("SELECT", highest), Said):
            raise self.unfit(f"it has no database {highest}; raise `databases` there")
        wire.call("SELECT", 0)
        if summary.modules:
            missing = set(modules.split()) - set(loaded_modules(wire))
            if missing or not modules:
                needed = ", ".join(sorted(missing) or sorted(summary.modules))
                raise self.unfit(f"the backup has data of modules that it lacks: {needed}")

    def unfit(self, reason: str) -> TargetUnfit:
        """Return the error that nothing can be restored to it."""
        access = self.access
        return TargetUnfit(component=access.component, path=access.place, reason=reason)

    # --- loading ---

    def load(self, rdb: Path, summary: Summary, identity: str, begun: Begun) -> None:
        """Replace all that the server holds by an RDB that was checked; durable on return.

        Raises:
            Untouched: no way worked, and the server has what it had.
            HoldfastError: it is not known what it has.

        """
        first: Untouched | None = None
        for way in self._ways():
            try:
                with self.access.connect() as wire:
                    way(wire, rdb, summary, identity, begun)
            except Untouched as failure:
                first = first or failure
                if not failure.elsewise:
                    break
            else:
                return
        assert first is not None  # noqa: S101 - there is always one way
        raise first

    def _ways(self) -> list[Callable[..., None]]:
        ways = {
            "replication": self._by_replication,
            "file": self._by_file,
            "commands": self._by_commands,
        }
        if self.how != "auto":
            return [ways[self.how]]
        return [ways[name] for name in ways if name != "file" or (self.folder and self.restart)]

    def _by_replication(
        self,
        wire: Wire,
        rdb: Path,
        summary: Summary,
        identity: str,
        begun: Begun,
    ) -> None:
        del summary
        host, port = self._own_address()
        if wire.setting("tls-replication") == "yes":
            reason = "it replicates over TLS only (tls-replication), which is not spoken here"
            raise Untouched(self.unfit(reason), elsewise=True)
        Feeding(self.access, (host, port), identity).load(
            wire, rdb, lambda port: begun({"host": host, "port": str(port)})
        )
        self._persist(wire, written=wire.setting("repl-diskless-load") in {None, "disabled"})

    def _own_address(self) -> tuple[str, int]:
        """Return where we listen, and the server finds us; port 0 is any that is free."""
        if self.listen:
            return listen_address(self.listen)
        if not self.access.place.near:
            reason = "it is on another machine; say with `listen` how it reaches this one"
            raise Untouched(self.unfit(reason), elsewise=True)
        return "127.0.0.1", 0

    def _by_file(
        self,
        wire: Wire,
        rdb: Path,
        summary: Summary,
        identity: str,
        begun: Begun,
    ) -> None:
        del identity
        if self.folder is None or not self.restart:
            raise Untouched(self.unfit("restoring by file needs `folder` and `restart`"))
        files = Files(self.access, self.folder, self.restart)
        files.prove(wire, self._save)
        files.load(wire, rdb, begun)
        with self.access.connect() as again:
            self._expect(again, summary)

    def _expect(self, wire: Wire, summary: Summary) -> None:
        """Raise unless a server that was started again has what never expires."""
        found = databases(wire)
        for database, keys in summary.keys.items():
            if found.get(database, (0, 0))[0] < keys - summary.expiring[database]:
                raise self.access.failed("it came up without the data that was put into its folder")

    def _by_commands(
        self,
        wire: Wire,
        rdb: Path,
        summary: Summary,
        identity: str,
        begun: Begun,
    ) -> None:
        del identity
        replay(wire, rdb, summary, lambda: begun({}))
        self._persist(wire, written=False)

    def _persist(self, wire: Wire, *, written: bool) -> None:
        """Wait until what was loaded is on the server's disk, if it keeps anything there.

        ``written`` says that a file of the server has the RDB already.
        """
        state = wire.info("persistence")
        if state.get("aof_enabled") == "1":
            while "1" in {state.get("aof_rewrite_in_progress"), state.get("aof_rewrite_scheduled")}:
                time.sleep(POLL)
                state = wire.info("persistence")
            if state.get("aof_last_bgrewrite_status", "ok") != "ok":
                raise self.access.failed("it has the data, but could not rewrite its AOF")
            return
        if not written and wire.setting("save"):
            self._save(wire)

    def _save(self, wire: Wire) -> None:
        """Let it save itself, after what it may be saving already, and wait for that."""
        while isinstance(said := wire.ask("BGSAVE"), Said):
            if "in progress" not in said.text and "child process" not in said.text:
                raise self.access.error("BGSAVE", said)
            time.sleep(POLL)
        while (state := wire.info("persistence")).get("rdb_bgsave_in_progress") == "1":
            time.sleep(POLL)
        if state.get("rdb_last_bgsave_status") != "ok":
            raise self.access.failed("it has the data, but could not save it")

    def release(self, wire: Wire, begun: Mapping[str, str]) -> None:
        """Take back what a loading that was broken off has left the server in.

        Raises:
            TargetUnfit: it has become somebody else's replica.

        """
        if "run_id" in begun:
            resume(wire, begun)
        state = wire.info("replication")
        if state["role"] == "master":
            return
        master = state.get("master_host", ""), state.get("master_port", "")
        if master != (begun.get("host"), begun.get("port")):
            raise self.unfit(f"it has become a replica of {':'.join(master)} meanwhile")
        wire.call("REPLICAOF", "NO", "ONE")


def listen_address(listen: str) -> tuple[str, int]:
    """Return host and port of ``listen``. Raises ``ValueError``."""
    host, colon, port = listen.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = listen, "0"
    if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the highest port
        raise ValueError("is no address of the form HOST or HOST:PORT")
    return host.strip("[]"), int(port)


def rdb_version(wire: Wire) -> int:
    """Return the newest version of RDB files that a server reads."""
    dumped = wire.ask("FUNCTION", "DUMP")  # ends in it; Redis 6 has no functions
    if isinstance(dumped, bytes) and len(dumped) >= _FOOTER:
        return int.from_bytes(dumped[-_FOOTER : 2 - _FOOTER], "little")
    state = wire.info("server")
    major, minor, *_rest = (state.get("redis_version", "0") + ".0").split(".")
    release = float(f"{major}.{minor}")
    return next((reads for below, reads in _BY_RELEASE if release < below), 12)


def loaded_modules(wire: Wire) -> list[str]:
    """Return the names of the modules that a server has loaded."""
    answer = wire.ask("MODULE", "LIST")
    if not isinstance(answer, list):
        return []
    return [
        text(value)
        for one in answer
        for name, value in zip(one[::2], one[1::2], strict=False)
        if text(name) == "name"
    ]
