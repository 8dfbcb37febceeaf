"""What the driver and the programs of PostgreSQL say, as rows of the error table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    NoSpace,
    ServerFailed,
    ServerUnreachable,
    SourceLocked,
    SourceMissing,
    ToolMissing,
)

from ._command import ProgramFailed, ProgramStalled

if TYPE_CHECKING:
    import psycopg

# Classes of SQLSTATE, see "PostgreSQL Error Codes" in its manual.
_BY_STATE = (
    ("53100", "full"),
    ("55P03", "locked"),
    ("3D000", "missing"),
    ("42501", "refused"),
    ("28", "refused"),
    ("08", "lost"),
    ("57P", "lost"),
)
_ABOUT_ROWS = ("22", "23")  # whose details have values in them
# What is said before a session has codes, and by programs, which are run to say it in English.
_BY_TEXT = {
    "full": "No space left on device|could not extend file",
    "locked": "lock timeout|could not obtain lock",
    "missing": 'database ".*" does not exist',
    "refused": (
        "password authentication failed|no password supplied|authentication failed|pg_hba\\.conf"
        '|permission denied|must be (superuser|owner|member)|role ".*" does not exist'
        "|is not permitted to log in|does not support SSL|certificate|SSL error|channel binding"
    ),
    "unreachable": (
        "Connection refused|timeout expired|timed out|failed to resolve|could not translate host"
        "|Is the server running|unreachable|No route to host|is starting up|is shutting down"
        "|in recovery mode|not (yet|currently) accepting|too many (clients|connections)"
        "|remaining connection slots"
    ),
    "lost": (
        "closed the connection|terminating connection|connection to server was lost"
        "|connection (has been|is|was)? ?(closed|lost|reset)|could not (receive|send) data"
        "|no connection to the server|SSL SYSCALL|EOF detected|Broken pipe|unexpected EOF"
    ),
}


@dataclass(frozen=True, slots=True)
class Border:
    """Where errors of the libraries beneath become ours: they name this component and place."""

    component: str
    where: str
    lock_timeout: float = 0.0

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Raise whatever fails inside as a row of the error table."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise self.of_driver(error) from error
        except ProgramFailed as error:
            raise self.of_program(error) from error

    def of_driver(self, error: psycopg.Error) -> HoldfastError:
        """Return the row for an error of the driver."""
        state = error.sqlstate or ""
        # No more than these: the rest repeats the statement, in which there may be secrets or rows.
        detail = "" if state.startswith(_ABOUT_ROWS) else error.diag.message_detail
        said = filter(None, (error.diag.message_primary, detail))
        text = one_line("; ".join(said) or str(error))
        for begin, kind in _BY_STATE:
            if state.startswith(begin):
                return self._row(kind, text)
        return self._row("" if state else _kind(text), text)

    def of_program(self, error: ProgramFailed) -> HoldfastError:
        """Return the row for a program that ended badly."""
        if "No such file or directory" in error.reason and "127" in error.outcome:
            return ToolMissing(component=self.component, tool=error.program, advice=ADVICE)
        own = [line for line in error.said if line.startswith(f"{error.program}:")]
        text = one_line("; ".join(own) or error.reason)
        if isinstance(error, ProgramStalled):
            return self._row("lost", text)
        return self._row(_kind(text), text)

    def failed(self, reason: str) -> HoldfastError:
        """Return the row for what the server does that it should not."""
        return self._row("", reason)

    def _row(self, kind: str, text: str) -> HoldfastError:
        component, where = self.component, self.where
        match kind:
            case "full":
                return NoSpace(path=f"{where}: {text}")
            case "locked":
                seconds = f"{self.lock_timeout:g}"
                return SourceLocked(component=component, path=where, seconds=seconds)
            case "missing":
                return SourceMissing(component=component, path=where)
        row = _SAYING_WHY.get(kind, ServerFailed)
        return row(component=component, where=where, reason=text)


_SAYING_WHY: dict[str, type[HoldfastError]] = {
    "refused": AccessRefused,
    "unreachable": ServerUnreachable,
    "lost": ConnectionLost,
}
ADVICE = "install PostgreSQL's client programs, or name their folder with the option `tools`"


def _kind(text: str) -> str:
    return next((kind for kind, pattern in _BY_TEXT.items() if re.search(pattern, text)), "")


def one_line(text: str) -> str:
    """Return a message without its line breaks."""
    return " ".join(text.split())
