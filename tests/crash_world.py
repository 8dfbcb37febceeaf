"""The real command line in child processes that can be killed, starved and lied to at any step.

A server process loads the command line once and forks for each command, so that hundreds of crashes
take a minute; the holders of databases are forked, too (`tests.crash_holders`). A *step* is
whatever changes something a crash may leave behind: each opening for writing, write, sync, rename,
link, removal, truncation and statement of the catalog. A child may be killed right before its n-th
step, or in the middle of it where that is a write (``torn``); what lies between two steps leaves
the disk as the second one finds it.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.crash_holders import Holders

ROOT = Path(__file__).parents[1]
KILLED = -signal.SIGKILL
# Whatever else a command is asked concerns its own holders, too, and it must start them itself.
PLAIN = {"folder", "arguments", "kill_at", "torn"}
BUG = "this is a bug of Holdfast"
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink"}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. ``steps`` is how many it took; 0 where it was killed."""

    status: int
    out: str
    err: str
    steps: int
    process: int

    @property
    def killed(self) -> bool:
        return self.status == KILLED

    @property
    def document(self) -> Any:
        return json.loads(self.out)


# --- in the test's process ------------------------------------------------------------------------


class Commands:
    """A server of commands. Use as a context; leaving it ends the server."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash_world"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(self, folder: Path, *arguments: object, **fault: Any) -> Ran:
        """Run ``holdfast`` with these arguments in a folder; see `_Faults` for what can be done."""
        self.start(folder, *arguments, **fault)
        return self.finish()

    def start(self, folder: Path, *arguments: object, **fault: Any) -> int:
        """Begin a command; returns its process. Nothing else may be run before `finish`."""
        assert self._server.stdin is not None
        job = {"folder": str(folder), "arguments": [str(word) for word in arguments], **fault}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return int(self._answer()["process"])

    def finish(self) -> Ran:
        """Wait for the command that was begun."""
        return Ran(**self._answer())

    def _answer(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise AssertionError("the server of commands has ended")
        return json.loads(line)


@dataclass(frozen=True, slots=True)
class World:
    """A stack in a folder, with a configuration, and commands to run on it."""

    folder: Path
    commands: Commands

    def holdfast(self, *arguments: object, **fault: Any) -> Ran:
        """Run a command; none may ever end as a bug."""
        ran = self.commands.run(self.folder, *arguments, **fault)
        assert BUG not in ran.err, f"{arguments} {fault}\n{ran.err}\n{_report(ran.err)}"
        assert "Traceback" not in ran.err, f"{arguments} {fault}\n{ran.err}"
        return ran

    def done(self, *arguments: object, **fault: Any) -> Ran:
        """Run a command that must succeed."""
        ran = self.holdfast(*arguments, **fault)
        assert ran.status == 0, f"{arguments}: {ran.status}\n{ran.out}\n{ran.err}"
        return ran

    def asked(self, *arguments: object) -> Any:
        """Return the JSON document that a command answers with."""
        return self.done(*arguments, "--json").document

    def backups(self) -> set[str]:
        """Return the ids that are listed; none of them may be damaged."""
        found = self.asked("list")
        assert found["damaged"] == []
        return {backup["id"] for backup in found["backups"]}

    def runs(self) -> list[dict[str, Any]]:
        """Return the recent runs, newest first."""
        ran = self.holdfast("status", "--json")
        return list(ran.document["runs"])

    def live(self) -> dict[str, str]:
        """Return what lies in the folder of the live data, byte by byte."""
        return picture(self.folder / "data")


def _report(said: str) -> str:
    """Return the traceback that a bug was written down with."""
    words = [word for word in said.split() if word.endswith(".log")]
    return Path(words[-1]).read_text() if words and Path(words[-1]).exists() else ""


def picture(folder: Path) -> dict[str, str]:
    """Describe everything below a folder; what SQLite shares between processes is left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith("-shm"):
            continue
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            content = f"-> {path.readlink()}"
        elif path.is_file():
            content = f"{mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        else:
            content = f"{mode:o}"
        found[str(path.relative_to(folder))] = content
    return found


def copy_world(original: Path, place: Path) -> None:
    """Put a copy of a folder in the place of another one, with links, modes and times."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(original, place, symlinks=True)


# --- in the server --------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests, one JSON document a line, until the standard input ends."""
    holders = Holders()
    _load_everything()
    _build_commands()
    gc.collect()
    gc.freeze()  # a collection in a child would copy all that was loaded, only to look at it
    for line in sys.stdin:
        _serve_one(json.loads(line), holders)


def _load_everything() -> None:
    """Import what commands import on use, so that no child has to."""
    import holdfast

    for found in pkgutil.walk_packages(holdfast.__path__, "holdfast."):
        if not found.name.startswith("holdfast.testing") and found.name != "holdfast.__main__":
            try:
                importlib.import_module(found.name)
            except ImportError as error:
                print(f"{found.name} was not loaded: {error}", file=sys.stderr)  # noqa: T201
    for name in ("sqlite3", "ruamel.yaml", "zstandard", "isal.igzip", "pathspec", "rich.table"):
        importlib.import_module(name)


def _build_commands() -> None:
    """Build the tree of commands that each child would build for itself, just like this one."""
    import typer
    from typer.core import TyperArgument, TyperOption

    from holdfast.cli.app import app

    built = typer.main.get_command(app)
    waiting = [built]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for parameter in command.params:
            if isinstance(parameter, TyperOption | TyperArgument):
                parameter.get_runtime_param()
    setattr(typer.main, "get_command", lambda _app: built)  # noqa: B010 - mypy forbids the plain way


def _serve_one(job: dict[str, Any], holders: Holders) -> None:
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        tempfile.TemporaryFile() as steps,
    ):
        child = os.fork()
        if child == 0:
            if job.keys() <= PLAIN:
                holders.take_over()
            _become_command(job, out.fileno(), err.fileno(), steps.fileno())
        _say({"process": child})
        _pid, status = os.waitpid(child, 0)
        _say(
            {
                "status": os.waitstatus_to_exitcode(status),
                "out": _content(out.fileno()),
                "err": _content(err.fileno()),
                "steps": int(_content(steps.fileno()) or 0),
                "process": child,
            }
        )


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _content(descriptor: int) -> str:
    return os.pread(descriptor, 1 << 24, 0).decode("utf-8", "replace")


def _become_command(job: dict[str, Any], out: int, err: int, steps: int) -> None:
    """Run one command in this process, and never return."""
    status = 1
    try:
        os.setsid()  # a Ctrl-C of a terminal reaches a group, and this is ours
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.chdir(job["folder"])
        faults = _Faults(**{k: v for k, v in job.items() if k not in {"folder", "arguments"}})
        faults.install()
        from holdfast.cli.app import run

        status = run(job["arguments"])
        # As the interpreter does when it ends; a reader that went away must be noticed before.
        sys.stdout.flush()
        sys.stderr.flush()
        faults.step()  # what was not to be killed before its last step is killed after it
        os.pwrite(steps, str(faults.steps).encode(), 0)
    except BaseException:  # noqa: BLE001 - a child must not go on as a second server
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class _Faults:
    """What is done to a command."""

    def __init__(
        self,
        *,
        kill_at: int = 0,
        torn: bool = False,
        signal_at: int = 0,
        signals: str = "SIGINT",
        largest_file: int = 0,
        user: int = 0,
        unreadable: str = "",
        clock: float = 0.0,
        environment: dict[str, str] | None = None,
        slow: float = 0.0,
        closed_output: bool = False,
    ) -> None:
        """Prepare faults.

        Args:
            kill_at: the step before which the process kills itself; 0: none.
            torn: whether a write that it is to be killed at is done by half.
            signal_at: the step before which the process's group gets the signal.
            signals: the name of that signal.
            largest_file: bytes beyond which no file may grow, as if the disk were full; 0: any.
            user: the user to become; 0: none.
            unreadable: reading a file whose name holds this fails as on a broken disk.
            clock: seconds by which the wall clock is wrong.
            environment: variables to set.
            slow: seconds that each step takes longer.
            closed_output: whether nobody reads the standard output.

        """
        self.steps = 0
        self._kill_at = kill_at
        self._torn = torn
        self._signal_at = signal_at
        self._signal = signal.Signals[signals]
        self._largest_file = largest_file
        self._user = user
        self._unreadable = unreadable
        self._clock = clock
        self._environment = environment or {}
        self._slow = slow
        self._closed_output = closed_output

    def install(self) -> None:
        """Let them act from now on."""
        os.environ.update(self._environment)
        if self._largest_file:
            limits = (self._largest_file, self._largest_file)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if self._user:
            os.setgroups([])
            os.setgid(self._user)
            os.setuid(self._user)
        if self._clock:
            self._shift_clock()
        if self._unreadable:
            self._break_disk()
        if self._closed_output:
            reading, writing = os.pipe()
            os.dup2(writing, 1)
            os.close(writing)
            os.close(reading)
        self._count_steps()

    def _count_steps(self) -> None:
        write, fsync = os.write, os.fsync

        def counted_write(descriptor: int, data: Any) -> int:
            if descriptor > 2:
                self.step(lambda: write(descriptor, memoryview(data)[: len(data) // 2]))
            return write(descriptor, data)

        def counted_fsync(descriptor: Any) -> None:
            self.step()
            fsync(descriptor)

        os.write = counted_write
        setattr(os, "fsync", counted_fsync)  # noqa: B010 - mypy forbids the plain way
        from holdfast.runtime.database import Database

        change = Database.change

        def counted_change(database: Database, name: str, values: Any) -> int:
            self.step()
            return change(database, name, values)

        setattr(Database, "change", counted_change)  # noqa: B010 - mypy forbids the plain way
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and path != os.devnull:
                self.step()
        elif event in _CHANGES:
            self.step()

    def step(self, half: Callable[[], object] | None = None) -> None:
        """Take a step: count it, and do what is to be done before it."""
        self.steps += 1
        if self.steps == self._kill_at:
            if self._torn and half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == self._signal_at:
            os.killpg(0, self._signal)
        if self._slow:
            time.sleep(self._slow)

    def _shift_clock(self) -> None:
        from datetime import datetime, timedelta

        from holdfast.runtime.session import SystemClock

        now, wrong = SystemClock.now, timedelta(seconds=self._clock)

        def shifted(clock: SystemClock) -> datetime:
            return now(clock) + wrong

        setattr(SystemClock, "now", shifted)  # noqa: B010 - mypy forbids the plain way

    def _break_disk(self) -> None:
        def broken(read: Callable[..., Any]) -> Callable[..., Any]:
            def reading(descriptor: int, *arguments: Any) -> Any:
                if self._unreadable in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return read(descriptor, *arguments)

            return reading

        os.read, os.pread = broken(os.read), broken(os.pread)


def steps_of(total: int, *, few: int = 0) -> Sequence[int]:
    """Return the numbers of all steps, or of ``few`` of them, the first and the last included."""
    if not few or total <= few:
        return range(1, total + 1)
    return sorted({1 + round(i * (total - 1) / (few - 1)) for i in range(few)})


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Have a folder for a while."""
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve()
