"""Reading SQL scripts as the programs of PostgreSQL write them, one statement after the other.

The rows that follow a ``COPY … FROM stdin`` are passed on in chunks as they come, so a script may
be of any size; only one statement is held at a time. Commands of psql (lines that begin with a
backslash) are left out: they are not SQL, and some of them run programs.

The rules of quoting are those of "Lexical Structure" in PostgreSQL's manual. Semicolons end a
statement except in quotes, in parentheses, and between BEGIN ATOMIC and END in the body of a
function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from holdfast.model.artifact import Chunk, Chunks

LONGEST_STATEMENT = 256 << 20  # bytes: PostgreSQL itself takes no value of more than 1 GB
_END_OF_ROWS = b"\\.\n"
_ENOUGH = 1 << 16  # bytes asked for at once, at least, while a statement is incomplete

_TOKEN = re.compile(
    rb"""(?P<comment>--[^\n]*(?:\n|\Z)|/\*)
    |(?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
    |(?P<string>'[^']*')
    |(?P<name>"(?:[^"]|"")*")
    |(?P<dollar>\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?\$)
    |(?P<word>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)
    |(?P<open>\()|(?P<close>\))|(?P<end>;)
    |(?P<number>\d[\w.]*)
    |(?P<other>[^\s'"])
    """,
    re.VERBOSE | re.DOTALL,
)
_ROUTINE = re.compile(rb"CREATE\s+(OR\s+REPLACE\s+)?(FUNCTION|PROCEDURE)\b", re.IGNORECASE)
_COPY = re.compile(
    rb"""COPY\s+(?P<table>(?:"(?:[^"]|"")*"|[^\s".(]+)(?:\.(?:"(?:[^"]|"")*"|[^\s".(]+))*)""",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(rb'"(?:[^"]|"")*"|[^\s".]+')


class MalformedScript(ValueError):
    """It is no script that can be read to its end."""


@dataclass(frozen=True, slots=True)
class Token:
    """A word or a sign of a statement: its text, and where it begins and ends."""

    kind: str
    text: bytes
    begin: int
    end: int

    def says(self, word: str) -> bool:
        """Tell whether it is this key word."""
        return self.kind == "word" and self.text.upper() == word.encode()


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, without the comments before it. ``rows`` follow it where it copies rows in.

    ``rows`` must be read before the next statement; what was not is passed over. They come in
    PostgreSQL's text format, a line for each row, in chunks that end anywhere.
    """

    text: bytes
    tokens: tuple[Token, ...]
    rows: Chunks | None = field(default=None, compare=False)

    def begins(self, *words: str) -> bool:
        """Tell whether it begins with these key words."""
        return len(self.tokens) >= len(words) and all(
            token.says(word) for token, word in zip(self.tokens, words, strict=False)
        )

    def renamed(self, token: Token, name: str) -> bytes:
        """Return the text with another name in place of a token."""
        quoted = b'"' + name.encode().replace(b'"', b'""') + b'"'
        return self.text[: token.begin] + quoted + self.text[token.end :]

    @property
    def table(self) -> tuple[str, str]:
        """The schema and the name of the table that a COPY is about; no schema: empty."""
        found = _COPY.match(self.text)
        if found is None:
            return "", ""
        *schema, name = [plain(part) for part in _IDENTIFIER.findall(found["table"])]
        return ".".join(schema), name


def plain(name: bytes) -> str:
    """Return a name as it is meant: without its quotes."""
    if name.startswith(b'"'):
        name = name[1:-1].replace(b'""', b'"')
    return name.decode("utf-8", "surrogateescape")


def statements(chunks: Iterable[Chunk]) -> Iterator[Statement]:
    """Give the statements of a script in order.

    Raises:
        MalformedScript: it ends within a statement or within rows, or a statement is too long.

    """
    reader = _Reader(chunks)
    while (statement := reader.statement()) is not None:
        yield statement
        if statement.rows is not None:
            for _rest in statement.rows:
                pass


class _Reader:
    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._ended = False

    def _more(self) -> bool:
        """Read on; returns whether there was more."""
        parts = [self._buffer]
        size = 0
        while size < max(_ENOUGH, len(self._buffer)):  # so that no long value is scanned often
            chunk = next(self._chunks, None)
            if chunk is None:
                self._ended = True
                break
            parts.append(bytes(chunk))
            size += len(chunk)
        self._buffer = b"".join(parts)
        return size > 0

    # --- statements ---

    def statement(self) -> Statement | None:
        """Return the next one; None at the end."""
        while True:
            self._skip_space()
            if not self._buffer:
                return None
            if not self._buffer.startswith(b"\\"):
                break
            self._skip_line()
        scan = _Scan()
        while not scan.go_on(self._buffer, ended=self._ended):
            if len(self._buffer) > LONGEST_STATEMENT:
                raise MalformedScript("a statement is too long")
            if not self._more() and self._ended and not scan.finish(self._buffer):
                if scan.empty:
                    return None
                raise MalformedScript("it ends within a statement")
        text, tokens = self._buffer[scan.begin : scan.at], tuple(scan.tokens)
        self._buffer = self._buffer[scan.at :]
        tokens = tuple(
            Token(t.kind, t.text, t.begin - scan.begin, t.end - scan.begin) for t in tokens
        )
        statement = Statement(text, tokens)
        copies = statement.begins("COPY") and any(token.says("STDIN") for token in tokens)
        return Statement(text, tokens, self._rows()) if copies else statement

    def _skip_space(self) -> None:
        """Go to where a statement begins: past white space and comments."""
        while True:
            self._buffer = self._buffer.lstrip()
            if self._buffer.startswith(b"--"):
                self._skip_line()
            elif self._buffer not in (b"", b"-") or not self._more():
                return

    def _skip_line(self) -> None:
        while b"\n" not in self._buffer:
            if not self._more():
                self._buffer = b""
                return
        self._buffer = self._buffer[self._buffer.index(b"\n") + 1 :]

    # --- rows ---

    def _rows(self) -> Chunks:
        """Give the rows up to their end mark, which takes a line of its own."""
        self._skip_line()  # what follows the semicolon
        at_line_start = True
        while True:
            found = self._find_end(at_line_start=at_line_start)
            if found >= 0:
                rows, self._buffer = self._buffer[:found], self._buffer[found + 3 :]
                if rows:
                    yield rows
                return
            # The mark may have begun: its line break and its two signs are held back.
            keep = min(len(self._buffer), 3)
            rows, self._buffer = self._buffer[:-keep] if keep else b"", self._buffer[-keep:]
            if rows:
                at_line_start = rows.endswith(b"\n")
                yield rows
            if not self._more():
                raise MalformedScript("it ends within the rows of a table")

    def _find_end(self, *, at_line_start: bool) -> int:
        if at_line_start and self._buffer.startswith(_END_OF_ROWS):
            return 0
        found = self._buffer.find(b"\n" + _END_OF_ROWS)
        return found + 1 if found >= 0 else -1


class _Scan:
    """How far a statement was read: it goes on where more of the script has come."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.begin = 0
        self.at = 0
        self._parentheses = 0
        self._blocks = 0

    @property
    def empty(self) -> bool:
        """Whether nothing but comments was found."""
        return not self.tokens

    def go_on(self, buffer: bytes, *, ended: bool) -> bool:
        """Read tokens; returns whether the statement is complete."""
        while True:
            at = _after_space(buffer, self.at)
            found = _TOKEN.match(buffer, at)
            if found is None:
                return False  # a quotation that goes on, or the end of what has come
            end = found.end()
            kind = found.lastgroup or ""
            if end == len(buffer) and kind != "end" and not ended:
                return False  # it may be longer than what has come of it
            if kind == "comment" and found.group() == b"/*":
                end = _after_comment(buffer, at)
            elif kind == "dollar":
                closing = buffer.find(found.group(), end)
                end = closing + len(found.group()) if closing >= 0 else -1
            if end < 0:
                return False
            self.at = end
            if kind == "comment":
                continue
            if not self.tokens:
                self.begin = at
            self.tokens.append(Token(kind, buffer[at:end], at, end))
            if self._ends(kind, buffer):
                return True

    def finish(self, buffer: bytes) -> bool:
        """Tell whether the statement is complete because the script ends here."""
        return self.go_on(buffer, ended=True)

    def _ends(self, kind: str, buffer: bytes) -> bool:
        match kind:
            case "open":
                self._parentheses += 1
            case "close":
                self._parentheses -= 1
            case "word":
                self._count_blocks(buffer)
            case "end":
                return self._parentheses <= 0 and self._blocks <= 0
        return False

    def _count_blocks(self, buffer: bytes) -> None:
        word = self.tokens[-1]
        if word.says("ATOMIC"):
            before = self.tokens[-2] if len(self.tokens) > 1 else None
            if before and before.says("BEGIN") and _ROUTINE.match(buffer, self.begin):
                self._blocks += 1
        elif self._blocks and word.says("CASE"):
            self._blocks += 1
        elif self._blocks and word.says("END"):
            self._blocks -= 1


def _after_space(buffer: bytes, at: int) -> int:
    while at < len(buffer) and buffer[at : at + 1].isspace():
        at += 1
    return at


def _after_comment(buffer: bytes, at: int) -> int:
    """Return where a comment ends, which may hold others; -1 if that has not come yet."""
    depth = 0
    for mark in re.finditer(rb"/\*|\*/", buffer[at:]):
        depth += 1 if mark.group() == b"/*" else -1
        if depth == 0:
            return at + mark.end()
    return -1
