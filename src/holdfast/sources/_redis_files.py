"""Loading an RDB by putting it where the server looks when it starts, and starting it again.

A server with ``appendonly yes`` reads its append-only file and nothing else: with an RDB alone
beside it, it comes up empty. But such a file may begin with an RDB, and may end there; so the RDB
becomes the base of a new one. Before the files are replaced the server is told to write neither of
them any more, or it would save its old data over them when it is stopped. Both settings come back
with its configuration file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import CommandFailed, ConnectionLost, NoSpace, ServerUnreachable, TargetUnfit

from ._redis_feed import POLL, Untouched
from ._redis_wire import Access, Wire
from ._swap import FULL

_NAMES = ("dbfilename", "appenddirname", "appendfilename")
WRITING = ("save", "appendonly")  # the settings that decide whether the server writes its files
_LONGEST_RESTART = 600.0  # seconds


@dataclass(frozen=True, slots=True)
class Files:
    """One server whose folder lies on this machine, and the command that starts it again."""

    access: Access
    folder: Path
    restart: Sequence[str]

    def prove(self, wire: Wire, save: Callable[[Wire], None]) -> None:
        """Let the server save itself, and look whether that came into the folder.

        Were the folder another one, the server would come up with whatever lies in its own.

        Raises:
            Untouched: it did not, or the server does not say where it would be.

        """
        name = wire.setting("dbfilename")
        if name is None:
            raise Untouched(
                self._unfit("the server does not tell its configuration"), elsewise=True
            )
        before = self._state(name)
        save(wire)
        if self._state(name) == before:
            reason = "the server did not save itself there: it is not its `dir`"
            raise Untouched(self._unfit(reason), elsewise=True)

    def _state(self, name: str) -> tuple[int, int] | None:
        """Return what changes whenever a file is replaced; None if there is none."""
        try:
            status = (self.folder / name).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def load(self, wire: Wire, rdb: Path, begun: Callable[[Mapping[str, str]], None]) -> None:
        """Replace the server's files and start it again.

        ``begun`` is called just before, with what `resume` needs.

        Raises:
            Untouched: it could not be started again, and has what it had.
            TargetUnfit, NoSpace, ServerUnreachable, ServerFailed: it is not known what it has.

        """
        names = {name: wire.setting(name) for name in (*_NAMES, *WRITING)}
        before = {"run_id": wire.info("server")["run_id"]}
        before |= {name: names[name] or "" for name in WRITING}
        begun(before)
        self._replace(wire, rdb, names)
        try:
            self._start_again()
        except CommandFailed as error:
            with self.access.connect() as again:
                if not resume(again, before):
                    raise
            raise Untouched(error) from error
        self._wait_for_another(before["run_id"])
        for leftover in self._old_folder(names):
            shutil.rmtree(leftover, ignore_errors=True)

    def _replace(self, wire: Wire, rdb: Path, names: Mapping[str, str | None]) -> None:
        for name, value in zip(WRITING, ("", "no"), strict=True):
            wire.call("CONFIG", "SET", name, value)
        try:
            if names["appendonly"] == "yes":
                self._append_only(rdb, names)
            self._place(rdb, self.folder / str(names["dbfilename"]))
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=self.folder) from error
            raise self._unfit(error.strerror or str(error)) from error

    def _append_only(self, rdb: Path, names: Mapping[str, str | None]) -> None:
        name = str(names["appendfilename"])
        if not names["appenddirname"]:  # before Redis 7 it is one file
            self._place(rdb, self.folder / name)
            return
        live = self.folder / str(names["appenddirname"])
        new = live.with_name(f".{live.name}.holdfast-new")
        (old,) = self._old_folder(names)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._own(new)
        base = f"{name}.1.base.rdb"
        self._place(rdb, new / base)
        manifest = new / f"{name}.manifest"
        manifest.write_text(f"file {base} seq 1 type b\n")
        self._own(manifest)
        _sync(manifest)
        _sync(new)
        if live.exists():
            live.rename(old)
        new.rename(live)
        _sync(self.folder)

    def _old_folder(self, names: Mapping[str, str | None]) -> list[Path]:
        folder = names["appenddirname"]
        return [self.folder / f".{folder}.holdfast-old"] if folder else []

    def _place(self, rdb: Path, target: Path) -> None:
        aside = target.with_name(f".{target.name}.holdfast-new")
        shutil.copyfile(rdb, aside)
        aside.chmod(0o600)
        self._own(aside)
        _sync(aside)
        aside.rename(target)
        _sync(target.parent)

    def _own(self, path: Path) -> None:
        """Give a file to whom the folder belongs: that is who the server runs as."""
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.chown(path, owner.st_uid, owner.st_gid)

    def _start_again(self) -> None:
        words = " ".join(self.restart)
        try:
            done = subprocess.run(
                self.restart,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_LONGEST_RESTART,
                check=False,
            )
        except OSError as error:
            outcome = f"could not be run: {error.strerror}"
            raise CommandFailed(what="restart", command=words, outcome=outcome) from error
        except subprocess.TimeoutExpired as error:
            outcome = f"took longer than {_LONGEST_RESTART:g} s"
            raise CommandFailed(what="restart", command=words, outcome=outcome) from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            outcome = f"ended with {done.returncode}: {' '.join(said)}"
            raise CommandFailed(what="restart", command=words, outcome=outcome)

    def _wait_for_another(self, run_id: str) -> None:
        """Wait until the server is another process than before, and has loaded its data."""
        patience = time.monotonic() + self.access.timeout
        while True:
            try:
                with self.access.connect() as wire:
                    started = wire.info("server")["run_id"] != run_id
                    if started and wire.info("persistence").get("loading") == "0":
                        return
            except (ServerUnreachable, ConnectionLost) as error:
                started, reason = False, str(error)
            else:
                reason = "it is the same process as before"
            if not started and time.monotonic() > patience:
                raise self.access.failed(f"it was not started again: {reason}")
            time.sleep(POLL)

    def _unfit(self, reason: str) -> TargetUnfit:
        return TargetUnfit(component=self.access.component, path=self.folder, reason=reason)


def resume(wire: Wire, before: Mapping[str, str]) -> bool:
    """Let a server that was not started again write its files as before.

    Returns whether it is the same process, with the data it had.
    """
    if wire.info("server")["run_id"] != before["run_id"]:
        return False
    for name in WRITING:
        wire.call("CONFIG", "SET", name, before[name])
    if before["appendonly"] != "yes" and before["save"]:
        wire.ask("BGSAVE")  # what we put in its file's place
    return True


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
