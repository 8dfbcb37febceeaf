"""Running a store's own programs: streamed, with secrets out of sight, and never left behind.

A program runs under a guard (`_command_guard`) that kills it when this process is gone, however
that ended. Secrets are given in a file that exists in memory only and is named by an environment
variable, so they are neither on a command line, nor in an environment, nor on a disk.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from holdfast.model.artifact import CHUNK, Chunk, Chunks

from ._command_guard import BY_SIGNAL, NOT_FOUND

GUARD = str(Path(__file__).with_name("_command_guard.py"))
PATIENCE = 600.0  # seconds that a program may neither give nor take a byte
LARGEST_ANSWER = 64 << 20  # bytes of what `answer` keeps in memory
_LINES = 12  # of what a program said last that an error shows
_LONGEST_LINE = 500
_ENDING = 10.0  # seconds that a program has to end once nobody wants it


@dataclass(frozen=True, slots=True)
class Environment:
    """What a program finds around itself, besides what this process has.

    For each of ``secrets`` the variable of that name holds the path of a file with that content.
    ``user`` is the number of the user that it runs as, where that is another: only root may.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    user: int | None = None


NOTHING = Environment()


class ProgramFailed(Exception):
    """A program ended badly. Whoever ran it translates this into a row of the error table."""

    def __init__(self, program: str, outcome: str, said: Sequence[str]) -> None:
        """``outcome`` is how it ended; ``said`` are the last lines it wrote on its stderr."""
        super().__init__(f"{program} {outcome}")
        self.program = program
        self.outcome = outcome
        self.said = tuple(said)

    @property
    def reason(self) -> str:
        """What it said, or else how it ended; one line."""
        return "; ".join(self.said) or str(self)


class ProgramStalled(ProgramFailed):
    """A program neither gave nor took a byte for too long, and was ended."""


class Running:
    """A program under way. Use as a context; leaving it ends the program if it has not ended."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Environment = NOTHING,
        *,
        fed: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        """Start it.

        ``fed`` tells whether `write` will be called; otherwise its input is empty. ``patience`` is
        in seconds, see `ProgramStalled`.
        """
        self.name = Path(argv[0]).name
        self._patience = patience
        self._said: deque[str] = deque(maxlen=_LINES)
        self._ending = threading.Lock()
        variables = {**os.environ, **environment.variables}
        with _files_in_memory(environment.secrets, variables) as files:
            reading, self._control = os.pipe()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", GUARD, str(reading), *argv],
                    stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=variables,
                    pass_fds=[reading, *files],
                    process_group=0,  # Ctrl-C is for us, who then end it in good order
                    bufsize=0,
                    **_identity(environment.user),
                )
            finally:
                os.close(reading)
        for pipe in filter(None, (self._process.stdin, self._process.stdout)):
            os.set_blocking(pipe.fileno(), False)
            with suppress(OSError):  # a larger pipe is only faster
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, CHUNK)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def kill(self) -> None:
        """End it, whatever it is busy with; what it printed can still be read."""
        with self._ending:
            if self._control >= 0:
                os.close(self._control)
                self._control = -1
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:  # the guard itself hangs
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End it, and let go of it; nothing happens if it has ended. No other thread may use it."""
        self.kill()
        self._listener.join(_ENDING)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def chunks(self) -> Chunks:
        """Give what it prints. The last chunk is given only once it has ended well.

        Raises:
            ProgramFailed: it ended badly, even if only after its last byte.

        """
        held: Chunk = b""
        while chunk := self.read():
            if held:
                yield held
            held = chunk
        self.finish()
        if held:
            yield held

    def await_output(self) -> None:
        """Wait until it printed something or ended; takes none of it. Raises `ProgramStalled`."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        self._wait_for(self._process.stdout.fileno(), select.POLLIN)

    def read(self) -> bytes:
        """Return some of what it prints; nothing at its end. Raises `ProgramStalled`."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker
        descriptor = self._process.stdout.fileno()
        while True:
            try:
                return os.read(descriptor, CHUNK)
            except BlockingIOError:
                self._wait_for(descriptor, select.POLLIN)

    def write(self, data: Chunk) -> bool:
        """Give it input, waiting until it took all. Returns whether it still wanted it.

        Raises:
            ProgramStalled: it took nothing for too long.

        """
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        descriptor = self._process.stdin.fileno()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                self._wait_for(descriptor, select.POLLOUT)
            except BrokenPipeError:
                return False
        return True

    def end_input(self) -> None:
        """Tell it that there is no more input."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def finish(self) -> None:
        """Wait until it has ended. Raises `ProgramFailed` unless it ended well."""
        self.end_input()
        status = self._process.wait()
        self._listener.join(_ENDING)
        if status == 0:
            return
        said = list(self._said)
        if status == NOT_FOUND and not said:
            raise ProgramFailed(self.name, "could not be run", said)
        if status > BY_SIGNAL:
            outcome = f"was ended by {_signal_name(status - BY_SIGNAL)}"
            raise ProgramFailed(self.name, outcome, [*said, f"{self.name} {outcome}"])
        raise ProgramFailed(self.name, f"ended with status {status}", said)

    def _wait_for(self, descriptor: int, event: int) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(self._patience * 1000):
            outcome = f"did nothing for {self._patience:g} s"
            raise ProgramStalled(self.name, outcome, [*self._said, f"{self.name} {outcome}"])

    def _listen(self) -> None:
        """Keep the last lines that it says: a full pipe would stop it."""
        assert self._process.stderr is not None  # noqa: S101 - for the type checker
        rest = b""
        while data := self._process.stderr.read(1 << 16):
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-_LONGEST_LINE:]
            self._said.extend(filter(None, map(_readable, lines)))
        if last := _readable(rest):
            self._said.append(last)


def answer(
    argv: Sequence[str], environment: Environment = NOTHING, *, patience: float = PATIENCE
) -> bytes:
    """Run a program to its end and return what it prints.

    Raises:
        ProgramFailed: it ended badly, or printed more than anyone expects.

    """
    with Running(argv, environment, patience=patience) as program:
        parts: list[Chunk] = []
        size = 0
        for chunk in program.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER:
                raise ProgramFailed(program.name, "printed far too much", [])
        return b"".join(parts)


def feed(program: Running, chunks: Iterable[Chunk]) -> None:
    """Give a program all that is to be read, and wait until it ended well.

    What is read is read to its end even if the program wants no more of it, because that is where
    a stored stream shows that its bytes are right. Raises `ProgramFailed`.
    """
    wanted = True
    for chunk in chunks:
        if wanted and not program.write(chunk):
            wanted = False
    program.finish()


def printed(program: Running) -> Chunks:
    """Give what a program prints; whether it ended well is for whoever feeds it to see."""
    while chunk := program.read():
        yield chunk


def _identity(user: int | None) -> dict[str, Any]:
    """Return what makes a process another user's, in that user's own group alone."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


@contextmanager
def _files_in_memory(
    contents: Mapping[str, bytes], variables: dict[str, str]
) -> Iterator[list[int]]:
    """Make a file for each content, and name it by its variable as a child will see it."""
    files: list[int] = []
    try:
        for variable, content in contents.items():
            file = os.memfd_create("holdfast", os.MFD_CLOEXEC)
            files.append(file)
            os.fchmod(file, 0o600)  # programs refuse a file of secrets that others may read
            os.write(file, content)
            variables[variable] = f"/proc/self/fd/{file}"
        yield files
    finally:
        for file in files:
            os.close(file)


def _readable(line: bytes) -> str:
    return line.decode("utf-8", "replace").strip()[:_LONGEST_LINE]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
