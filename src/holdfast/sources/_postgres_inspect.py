"""Reading stored dumps with PostgreSQL's own eyes, without a server: every byte, every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from holdfast.model.artifact import Chunk, Chunks, Stream
from holdfast.model.facts import Facts, Inspection, Json

from ._command import Environment, ProgramFailed, Running, feed, printed
from ._postgres_address import ENGLISH
from ._postgres_backup import Backup
from ._postgres_count import objects_unit, shown
from ._postgres_dump import SERVER
from ._postgres_errors import one_line
from ._postgres_script import MalformedScript, Statement, statements
from ._postgres_tools import Toolbox, Tools

_OBJECT = b"SELECT pg_catalog.lo_open("  # how the content of a large object begins


@dataclass(frozen=True, slots=True)
class Inspector:
    """Inspects the backups of one component. ``silence`` is in seconds."""

    toolbox: Toolbox
    silence: float

    def inspect(self, backup: Backup) -> Inspection:
        """Count what is stored; what cannot be read to its end is a problem."""
        counts: Counter[str] = Counter()
        problems: list[str] = []
        for dumped in backup.dumps:
            prefix = backup.prefix(dumped)
            counts[objects_unit(prefix)] += 0
            tools = None if dumped.is_script else self.toolbox.for_archive(dumped.tool)
            for stream in (dumped.main, *dumped.parts):
                problems += self._read(stream, tools, counts, prefix)
        if backup.roles is not None:
            problems += self._read(backup.roles, None, counts, "")
        return Inspection(Facts(dict(counts), _details(backup)), tuple(problems))

    def _read(
        self, stream: Stream, tools: Tools | None, counts: Counter[str], prefix: str
    ) -> Iterator[str]:
        """Count one artifact; give what is wrong with it."""
        try:
            with stream.open() as chunks:
                if tools is None:
                    _count(chunks, counts, prefix)
                else:
                    self._read_archive(tools, chunks, counts, prefix)
        except MalformedScript as error:
            yield f"{stream.name}: {error}"
        except ProgramFailed as error:
            yield f"{stream.name}: {error.program}: {one_line(error.reason)}"

    def _read_archive(
        self, tools: Tools, chunks: Chunks, counts: Counter[str], prefix: str
    ) -> None:
        # Rows and large objects are all in this section, and nothing that could look like them.
        argv = [tools["pg_restore"], "--section=data", "--file=-"]
        with (
            Running(argv, Environment(ENGLISH), fed=True, patience=self.silence) as program,
            ThreadPoolExecutor(1, "count") as thread,
        ):
            counting = thread.submit(_count, printed(program), counts, prefix)
            try:
                feed(program, chunks)
            except BaseException:
                program.kill()  # the count ends with it
                raise
            counting.result()


def _count(chunks: Iterator[Chunk], counts: Counter[str], prefix: str) -> None:
    try:
        for statement in statements(chunks):
            if statement.rows is not None:
                counts[f"rows/{prefix}{_table(statement)}"] += _lines(statement.rows)
            elif statement.text.startswith(_OBJECT):
                counts[objects_unit(prefix)] += 1
    finally:
        for _rest in chunks:  # nobody may wait for us to read it
            pass


def _table(statement: Statement) -> str:
    schema, name = statement.table
    return shown(schema or "public", name)


def _lines(rows: Chunks) -> int:
    return sum(bytes(chunk).count(b"\n") for chunk in rows)


def _details(backup: Backup) -> dict[str, Json]:
    return {
        dumped.database or dumped.main.name: {
            "server": dumped.main.labels.get(SERVER, ""),
            "extensions": list(dumped.needs.extensions),
        }
        for dumped in backup.dumps
    }
