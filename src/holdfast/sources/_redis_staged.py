"""New content for a live Redis server, kept in a folder of ours until the server loads it.

The folder holds these files; which of them exist tells how far a restore got:

=================  =============================================================================
``content.rdb``    what is to be loaded, checked; ``content.acl`` are its users
``safety.rdb``     what the server had, checked; ``safety.acl`` its users, ``safety.json`` when
``begun.json``     there before the server is touched: from then on `revert` loads the safety copy
``activated``      there when the server has the new content
=================  =============================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from holdfast.errors import NoSpace, SourceCorrupt, StateUnwritable
from holdfast.model.artifact import Artifact, Chunks, Stream
from holdfast.ports import Source, Token

from ._redis_check import checked, native_problems, read_file
from ._redis_dump import Way, dumping
from ._redis_feed import Untouched
from ._redis_hold import Held, writers_held
from ._redis_rdb import Summary
from ._redis_target import Target
from ._redis_users import parsed, set_back, set_users, users, written
from ._swap import FULL

RDB, USERS = "rdb", "users"  # the parts of a backup
MODULES = "modules"  # the label of an RDB with data of modules: their names


class Live(Protocol):
    """What a staging needs to know of the live server."""

    name: str

    @property
    def target(self) -> Target: ...

    @property
    def way(self) -> Way: ...

    @property
    def keeps_users(self) -> bool: ...

    def view(self, rdb: Path, acl: Path | None, summary: Summary | None) -> Source: ...


class RedisStaged:
    """See `holdfast.ports.Staged`."""

    def __init__(self, live: Live, tag: str, workspace: Path) -> None:
        """Touch nothing."""
        self._live = live
        self._target = live.target
        self._access = live.target.access
        self._tag = tag
        self._folder = workspace
        self._summary: Summary | None = None
        self.token: Token = {
            "tag": tag,
            "workspace": str(workspace),
            "url": str(self._access.place),
        }

    @property
    def view(self) -> Source:
        """The staged content, to be counted and to have its keys listed."""
        acl = self._path("content.acl")
        return self._live.view(
            self._path("content.rdb"), acl if acl.exists() else None, self._summary
        )

    # --- filling ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write and check the new content and a copy of what is live; durable when this returns.

        Raises:
            TargetUnfit: the server cannot take it.
            SourceCorrupt: what was backed up is damaged; a server would die of it.
            NoSpace, StateUnwritable: the folder cannot be written.
            ServerUnreachable, AccessRefused, ServerFailed, ConnectionLost: the server's copy.

        """
        rdb, acl = self._chosen(artifacts)
        with self._foreseen():
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._access.connect() as wire:
            self._target.refuse_unfit(wire)
            self._summary = self._take(rdb)
            self._target.refuse_unreadable(wire, self._summary, rdb.labels.get(MODULES, ""))
            self._take_users(acl)
            if acl is not None and self._live.keeps_users and users(wire) is None:
                reason = "this account may not set its users; give it +acl, or say `users: false`"
                raise self._target.unfit(reason)
        self._keep_safe()

    def _chosen(self, artifacts: Sequence[Artifact]) -> tuple[Stream, Stream | None]:
        streams = {one.part: one for one in artifacts if isinstance(one, Stream)}
        if RDB not in streams or len(streams) != len(artifacts):
            raise self._target.unfit("the backup does not hold one RDB")
        return streams[RDB], streams.get(USERS)

    def _take(self, rdb: Stream) -> Summary:
        path = self._path("content.rdb")
        with self._foreseen(), rdb.open() as chunks, path.open("wb", buffering=0) as file:

            def written_on() -> Chunks:
                for chunk in chunks:
                    _write(file.fileno(), chunk)
                    yield chunk

            summary = checked(self._live.name, rdb.name, written_on())
            os.fsync(file.fileno())
        if not summary.checksummed and (problems := native_problems(path)):
            reason = "; ".join(problems)
            raise SourceCorrupt(component=self._live.name, path=rdb.name, reason=reason)
        return summary

    def _take_users(self, acl: Stream | None) -> None:
        if acl is None:
            return
        with acl.open() as chunks:
            data = b"".join(chunks)
        try:
            parsed(data.decode().splitlines())
        except ValueError as error:
            raise SourceCorrupt(
                component=self._live.name, path=acl.name, reason=str(error)
            ) from error
        self._write("content.acl", data)

    def _keep_safe(self) -> None:
        """Copy what the server has, so that another process can load it again."""
        path = self._path("safety.new")
        with self._foreseen(), dumping(self._access, path, self._live.way) as dump:
            checked(self._live.name, "safety.rdb", dump.spool.chunks())
            _sync(path)
        with self._access.connect() as wire:
            found = users(wire) if self._live.keeps_users else None
        instant = {"history": dump.history, "offset": dump.offset}
        self._write("safety.json", json.dumps(instant).encode())
        self._write("safety.acl", written(found or {}).encode())
        with self._foreseen():
            path.rename(self._path("safety.rdb"))
            _sync(self._folder)

    # --- the switch ---

    def activate(self) -> None:
        """Let the server load the new content; doing it again does nothing.

        If it was written to since the copy that `fill` made, another one is made first, while its
        writers wait.

        Raises:
            HoldfastError: it has not, or not for certain; `revert` puts it right.

        """
        if self._path("activated").exists():
            return
        summary = self._summary or read_file(self._live.name, self._path("content.rdb"))
        with writers_held(self._access) as held:
            if not self._still():
                self._keep_safe()
            self._load("content.rdb", summary, held)
        self._set_users()
        self._write("activated", b"")

    def _still(self) -> bool:
        """Tell whether nothing was written to the server since the safety copy."""
        safety = self._json("safety.json")
        with self._access.connect() as wire:
            state = wire.info("replication")
        offset = state.get("master_repl_offset")
        now = {"history": state.get("master_replid"), "offset": int(offset or -1)}
        return bool(safety["history"]) and safety == now

    def _load(self, name: str, summary: Summary, held: Held) -> None:
        identity = hashlib.sha1(f"{self._tag} {name}".encode(), usedforsecurity=False).hexdigest()

        def begun(how: Mapping[str, str]) -> None:
            self._write("begun.json", json.dumps(dict(how)).encode())
            if not how:  # by commands, which are writes themselves
                held.release()

        try:
            self._target.load(self._path(name), summary, identity, begun)
        except Untouched as failure:
            if name == "content.rdb":
                self._remove("begun.json")
            raise failure.error from failure

    def _set_users(self) -> None:
        if self._live.keeps_users and (wanted := self._users("content.acl")):
            with self._access.connect() as wire:
                set_users(wire, wanted)

    def revert(self) -> None:
        """Let the server load again what it had, if it was touched at all."""
        if not self._path("begun.json").exists():
            return
        begun = self._json("begun.json")
        summary = read_file(self._live.name, self._path("safety.rdb"))
        with writers_held(self._access) as held:
            with self._access.connect() as wire:
                self._target.release(wire, begun)
            self._load("safety.rdb", summary, held)
        if self._live.keeps_users and (touched := self._users("content.acl")):
            with self._access.connect() as wire:
                set_back(wire, touched, self._users("safety.acl"))
        self._remove("activated")
        self._remove("begun.json")

    def settle(self, attic: Path | None) -> str | None:
        """Let the safety copy go, or into the attic. May be called twice."""
        safety = self._path("safety.rdb")
        kept = attic / f"replaced-{self._tag}.rdb" if attic else None
        with self._foreseen():
            if safety.exists() and kept:
                kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _move(safety, kept)
            safety.unlink(missing_ok=True)
        self._remove("begun.json")
        return str(kept) if kept and kept.exists() else None

    # --- files ---

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _json(self, name: str) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self._path(name).read_bytes()))

    def _users(self, name: str) -> dict[str, str]:
        path = self._path(name)
        return parsed(path.read_text("utf-8").splitlines()) if path.exists() else {}

    def _write(self, name: str, data: bytes) -> None:
        """Write a small file whole and durably."""
        path = self._path(name)
        new = path.with_name(f".{name}.new")
        with self._foreseen():
            with new.open("wb", buffering=0) as file:
                os.fchmod(file.fileno(), 0o600)
                _write(file.fileno(), data)
                os.fsync(file.fileno())
            new.rename(path)
            _sync(self._folder)

    def _remove(self, name: str) -> None:
        with self._foreseen():
            if self._path(name).exists():
                self._path(name).unlink()
                _sync(self._folder)

    @contextmanager
    def _foreseen(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=self._folder) from error
            raise StateUnwritable(path=self._folder, reason=error.strerror or str(error)) from error


def _write(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _move(source: Path, target: Path) -> None:
    """Move a file, also to another file system; durable when it is gone from where it was."""
    aside = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, aside)
    aside.chmod(0o600)
    _sync(aside)
    aside.rename(target)
    _sync(target.parent)
    source.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
