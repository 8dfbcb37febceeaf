"""Loading dumps into an empty database, as fast as the server takes them.

The schema, the rows and the indexes of an archive are restored one after the other: the schema and
the indexes from its beginning alone, which has no rows in it, and the rows from the stream as it is
read, large tables that lie apart beside the rest. So nothing is copied to a disk first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from holdfast.model.artifact import CHUNK, Chunk, Chunks, Stream

from ._command import Environment, Running, feed, printed
from ._postgres_address import ENGLISH, Address
from ._postgres_backup import Dumped
from ._postgres_errors import Border
from ._postgres_frozen import frozen
from ._postgres_script import MalformedScript, Statement, statements
from ._postgres_session import composed, rows, session
from ._postgres_tools import Tools

if TYPE_CHECKING:
    from ._postgres_session import Connection

_TIMED = 17  # since this version programs set `transaction_timeout`, which older servers refuse
_HEADLINE = b"PostgreSQL database dump"
_COMPLETE = b"PostgreSQL database dump complete"
# What has statistics, the largest first; partitions come with the tables that they belong to.
_ANALYZED = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p') AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY c.relkind <> 'p', pg_table_size(c.oid) DESC
"""
_LOOKED_AT = 4096  # bytes at both ends of a script in which these stand


@dataclass(frozen=True, slots=True)
class How:
    """How to load: ``memory`` in MB for each index, ``silence`` in seconds."""

    jobs: int
    memory: int
    silence: float
    owners: bool
    tablespaces: bool


class Head:
    """The beginning of an archive that is being read, and what it says of its database."""

    def __init__(self, chunks: Chunks, file: Path) -> None:
        """``file`` is where the beginning is kept; everything else is read once."""
        self._rest = chunks
        self.file = file

    def read(self, tools: Tools, silence: float) -> list[Statement]:
        """Return the statements that are about the database itself.

        The program that is asked reads no further than it needs, and what it has read is kept.
        """
        argv = [tools["pg_restore"], "--create", "--section=pre-data", "--file=-"]
        with (
            Running(argv, Environment(ENGLISH), fed=True, patience=silence) as program,
            ThreadPoolExecutor(1, "head") as thread,
            self.file.open("wb") as file,
        ):
            reading = thread.submit(_about_database, program)
            try:
                for chunk in self._rest:
                    file.write(chunk)
                    if not program.write(chunk):
                        break
                program.finish()
            except BaseException:
                program.kill()
                raise
            return reading.result()

    def chunks(self) -> Chunks:
        """Give the whole archive, from its beginning."""
        with self.file.open("rb", buffering=0) as file:
            yield from iter(lambda: file.read(CHUNK), b"")
        yield from self._rest


def _about_database(program: Running) -> list[Statement]:
    chunks = printed(program)
    try:
        return [s for s in statements(chunks) if is_about_database(s)]
    finally:
        for _rest in chunks:  # it must not wait for us
            pass


def is_about_database(statement: Statement) -> bool:
    """Tell whether a statement creates a database, or changes or describes it as a whole."""
    return statement.begins("CREATE", "DATABASE") or database_token(statement) is not None


def database_token(statement: Statement) -> int | None:
    """Return which token names the database that a statement is about, if it is."""
    tokens = statement.tokens
    if any(statement.begins(verb, "DATABASE") for verb in ("CREATE", "ALTER", "DROP")):
        return 2
    if statement.begins("COMMENT", "ON", "DATABASE"):
        return 3
    if statement.begins("ALTER", "ROLE") or statement.begins("ALTER", "USER"):
        return 5 if len(tokens) > 5 and tokens[4].says("DATABASE") else None  # noqa: PLR2004
    if any(statement.begins(verb) for verb in ("GRANT", "REVOKE", "SECURITY")):
        places = range(len(tokens) - 2)
        at = (i for i in places if tokens[i].says("ON") and tokens[i + 1].says("DATABASE"))
        found = next(at, None)
        return None if found is None else found + 2
    return None


class Loader:
    """Loads one database's dump. ``address`` is that of the empty database."""

    def __init__(
        self, address: Address, server: int, tools: Tools | None, how: How, border: Border
    ) -> None:
        """``server`` is its major version; without ``tools`` only scripts can be loaded."""
        self._address = address
        self._known_tools = tools
        self._how = how
        self._border = border
        self._indirect = tools is not None and tools.version[0] >= _TIMED > server
        self._over = threading.Event()
        self._programs: list[Running] = []

    @property
    def tools(self) -> Tools:
        """The programs that read archives."""
        assert self._known_tools is not None  # noqa: S101 - whoever loads an archive gave them
        return self._known_tools

    # --- archives ---

    def archive(self, dumped: Dumped, head: Head) -> None:
        """Load the schema, then the rows, then the indexes and all that refers to rows."""
        with self._border.translating():
            self._section("pre-data", head.file)
            self._rows(dumped, head)
            jobs = [] if self._indirect else [f"--jobs={self._how.jobs}"]
            self._section("post-data", head.file, *jobs)

    def _section(self, section: str, file: Path, *options: str) -> None:
        with self._program(section, [*options, str(file)]) as program:
            if self._indirect:
                self._execute_printed(program)
            program.finish()

    def _rows(self, dumped: Dumped, head: Head) -> None:
        """Load the rows of the dump and of its parts side by side, the largest first."""
        works: list[Callable[[], None]] = [partial(self._part, part) for part in dumped.parts]
        path = dumped.main.path
        if path is not None and not self._indirect:
            works.append(partial(self._file, path, head.chunks()))
        else:
            works.append(partial(self._stream, head.chunks()))
        with ThreadPoolExecutor(self._how.jobs, "load") as threads:
            futures = [threads.submit(work) for work in works]
            try:
                done, _others = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self._stop()
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _stop(self) -> None:
        """End whatever other threads are busy with: the first failure is the one that counts."""
        self._over.set()
        for program in self._programs:
            program.kill()

    def _part(self, part: Stream) -> None:
        with part.open() as chunks:
            self._stream(frozen(chunks))

    def _stream(self, chunks: Chunks) -> None:
        with (
            self._program("data", [], fed=True) as program,
            ThreadPoolExecutor(1, "execute") as thread,
        ):
            executing = thread.submit(self._execute_printed, program) if self._indirect else None
            try:
                feed(program, self._until_over(chunks))
            except BaseException:
                program.kill()
                if executing is not None and (reason := executing.exception()):
                    raise reason from None  # why the program was not read any more
                raise
            if executing is not None:
                executing.result()

    def _file(self, path: Path, chunks: Chunks) -> None:
        """Load from a file that nobody changes, several tables at once, and check it meanwhile."""
        with self._program("data", [f"--jobs={self._how.jobs}", str(path)]) as program:
            for _checked in self._until_over(chunks):
                pass
            program.finish()

    def _until_over(self, chunks: Chunks) -> Iterator[Chunk]:
        for chunk in chunks:
            if self._over.is_set():
                raise _Stopped
            yield chunk

    def _program(self, section: str, more: Sequence[str], *, fed: bool = False) -> Running:
        how = self._how
        target = ["--file=-"] if self._indirect else [f"--dbname={self._address.argument()}"]
        argv = [
            self.tools["pg_restore"],
            "--exit-on-error",
            f"--section={section}",
            *([] if how.owners else ["--no-owner", "--no-privileges"]),
            *([] if how.tablespaces else ["--no-tablespaces"]),
            *([] if self._indirect else ["--no-password"]),
            *target,
            *more,
        ]
        program = Running(
            argv,
            self._address.environment(self.settings),
            fed=fed,
            patience=how.silence,
        )
        self._programs.append(program)
        return program

    @property
    def settings(self) -> dict[str, str]:
        """What makes loading faster. Durability comes with the last commit, which waits."""
        return {
            "synchronous_commit": "off",
            "maintenance_work_mem": f"{self._how.memory}MB",
            "statement_timeout": "0",
        }

    def _execute_printed(self, program: Running) -> None:
        """Execute what a program prints that does not reach the server itself."""
        try:
            self.execute(statements(printed(program)))
        except BaseException:
            program.kill()
            raise

    # --- scripts ---

    def script(self, dumped: Dumped) -> list[Statement]:
        """Load a script; returns what it has in it about the database itself, not yet done."""
        found: list[Statement] = []

        def kept(of_script: Iterable[Statement]) -> Iterator[Statement]:
            for statement in of_script:
                if is_about_database(statement):
                    found.append(statement)
                else:
                    yield statement

        with self._border.translating(), dumped.main.open() as chunks:
            try:
                self.execute(kept(statements(_whole(chunks))))
            except MalformedScript as error:
                raise self._border.failed(f"{dumped.main.name}: {error}") from error
        return found

    def analyze(self) -> None:
        """Have the server learn what it needs for good plans, several tables at a time."""
        with session(self._address, self._border) as connection:
            waiting: SimpleQueue[tuple[str, str]] = SimpleQueue()
            for row in rows(connection, _ANALYZED):
                waiting.put(row)
        with ThreadPoolExecutor(self._how.jobs, "analyze") as threads:
            for done in [threads.submit(self._analyze, waiting) for _job in range(self._how.jobs)]:
                done.result()

    def _analyze(self, waiting: SimpleQueue[tuple[str, str]]) -> None:
        with session(self._address, self._border) as connection, suppress(Empty):
            while True:
                connection.execute(composed("ANALYZE {}.{}", *waiting.get_nowait()))

    def execute(self, script: Iterable[Statement]) -> None:
        """Execute statements in a session of their own."""
        with session(self._address, self._border) as connection:
            for name, value in self.settings.items():
                connection.execute(f"SET {name} = '{value}'".encode())
            for statement in script:
                run(connection, statement)


class _Stopped(Exception):
    """Another thread failed first."""


def run(connection: Connection, statement: Statement) -> None:
    """Execute one statement of a script, with the rows that follow it."""
    if _is_of_newer(statement):
        return
    if statement.rows is None:
        connection.execute(statement.text)
        return
    with connection.cursor() as cursor, cursor.copy(statement.text) as copy:
        for chunk in statement.rows:
            copy.write(chunk)


def _is_of_newer(statement: Statement) -> bool:
    """Tell whether a statement changes a setting that older servers do not know."""
    return statement.begins("SET", "TRANSACTION_TIMEOUT")


def _whole(chunks: Chunks) -> Iterator[Chunk]:
    """Give a script; raise at its end if it says how it begins, but not that it is complete."""
    begin, end = b"", b""
    for chunk in chunks:
        if len(begin) < _LOOKED_AT:
            begin += bytes(chunk[: _LOOKED_AT - len(begin)])
        end = (end + bytes(chunk[-_LOOKED_AT:]))[-_LOOKED_AT:]
        yield chunk
    if _HEADLINE in begin and _COMPLETE not in end:
        raise MalformedScript("it was cut off")
